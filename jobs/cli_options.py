"""Options that several commands have, and how settings are loaded, JSON and logs are printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from detector.errors import SettingsError, StorageError

if TYPE_CHECKING:
    from jobs.config import ScanSettings
    from jobs.config_load import Loaded

ConfigFiles = Annotated[
    list[Path] | None, typer.Option("--config", "-c", help="Settings file in YAML; later ones win.")
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="One setting, as key=value.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Output = Annotated[str, typer.Argument(help="The --output of the scan.")]
Limit = Annotated[int | None, typer.Option(min=0, help="At most so many rows.")]
Weights = Annotated[
    str | None, typer.Option(help="default, a shipped file's name, a path, or s3://...#sha256=....")
]
Address = Annotated[str | None, typer.Option(help="As for a scan: local, in-process, a cluster's.")]
Policy = Annotated[str | None, typer.Option(help="Thresholds of your own: a file that `calibrate` wrote.")]
Profile = Annotated[str | None, typer.Option(help="fast, balanced or thorough: 1, 2 or 10 windows a video.")]


class Handing(typer.core.TyperCommand):
    """A command that hands on what it does not know, with the `--` that ends options."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Double the first `--`, of which the parser takes one away."""
        if "--" in args:
            args = [*args[: args.index("--")], "--", *args[args.index("--") :]]
        return super().parse_args(ctx, args)


def load_scan(files: list[Path] | None, sets: list[str] | None, **flags: Any) -> Loaded[ScanSettings]:
    """Settings of a scan from files, environment, `--set` and flags."""
    from jobs.config import load

    return load(files or (), os.environ, flags, sets or ())


def scan_settings(config: list[Path] | None, sets: list[str] | None, **flags: Any) -> ScanSettings:
    """Settings of a scan that can start, from the parameters of the command `scan`; False is not given.

    Raises:
        SettingsError: something in them is wrong, or it is not said what to scan or where results go.
    """
    flags = {name: None if value is False else value for name, value in flags.items()}
    flags["manifests"] = flags.pop("manifest")
    settings = load_scan(config, sets, **flags).settings
    given = {"inputs": settings.inputs or settings.manifests, "output": settings.output}
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise SettingsError(
            f"not given: {' and '.join(missing)}",
            hint="Example: deepfake-scan scan videos/ --output results/",
        )
    return settings


def print_json(content: object) -> None:
    """Print JSON on stdout that no terminal takes for anything else."""
    import json

    print(json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False))


def show_log(text: str) -> None:
    """Print a piece of a log at once.

    Raises:
        BrokenPipeError: nobody reads it any more.
        StorageError: it cannot be written, as on a full disk.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        raise StorageError(f"the log cannot be written: {error.strerror}") from error


def forget_stdout() -> None:
    """Drop what is still to be written to stdout; Python would fail over it once more in the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
