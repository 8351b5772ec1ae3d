"""Commands that show results as pages: evidence, the night's report, the review server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from jobs.cli_options import Json, Output, Policy, print_json


def report(
    output: Output,
    *,
    folder: Annotated[Path, typer.Option("--to", "-o", help="Folder for the pages.")] = Path("report"),
    video: Annotated[list[str] | None, typer.Option(help="A video_id or uri of the table.")] = None,
    flagged: Annotated[bool, typer.Option("--flagged", help="All videos that are flagged today.")] = False,
    scan: Annotated[str | None, typer.Option(help="A scan_id, or latest: its page, and its flagged.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many flagged videos.")] = 100,
    clear: Annotated[
        bool, typer.Option("--clear", help="Pictures as they are, not grey and blurred.")
    ] = False,
    pack: Annotated[bool, typer.Option("--zip", help="Also one archive with a manifest of hashes.")] = False,
    weights: Annotated[str | None, typer.Option(help="Weights of the scan, where they do not ship.")] = None,
    policy: Policy = None,
    no_sandbox: Annotated[bool, typer.Option("--no-sandbox", help="Decode in this very process.")] = False,
    as_json: Json = False,
) -> None:
    """Report: pages that show what verdicts rest on, one file per video, readable offline and without script.

    Example: deepfake-scan report results/ --scan latest -o report/

    Each video is read from its source, cut and scored once more with the settings of its scan; the page says
    whether the score came out the same. Nothing is kept but the pages. docs/evidence.md explains them.
    """
    from detector.errors import SettingsError

    if not (video or flagged or scan):
        raise SettingsError(
            "not given: --video, --flagged or --scan",
            hint="Example: deepfake-scan report results/ --scan latest -o report/",
        )
    from jobs import report as pages
    from jobs.schema import printable

    wish = pages.Wish(
        keys=video or (),
        flagged=flagged,
        scan=scan,
        limit=limit,
        clear=clear,
        pack=pack,
        weights=weights,
        policy=policy,
        sandboxed=not no_sandbox,
    )
    written = pages.write(output, folder, wish, lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        print_json({"files": [str(file) for file in written.files], "doubts": list(written.doubts)})
        return
    for file in written.files:
        print(printable(str(file)))
    if written.doubts:
        print(
            f"report: {len(written.doubts):,} could not be scored again, or came out otherwise; their pages "
            f"say why. The first: {printable(written.doubts[0])}",
            file=sys.stderr,
        )


class _ServesByDefault(typer.core.TyperGroup):
    """A group whose first word is what to serve where it is no command: `review OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `serve` in front of what begins with no command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["serve", *args]
        return super().parse_args(ctx, args)


review_app = typer.Typer(
    help="Look at what was flagged, and decide: `review OUT` serves a page on this machine.",
    no_args_is_help=True,
    cls=_ServesByDefault,
)


@review_app.command("serve")
def review_serve(
    output: Output,
    *,
    user: Annotated[str | None, typer.Option(help="Who decides; else each browser is asked.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    bind: Annotated[str, typer.Option(help="Address or name to listen on.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token of the address, for --bind; mode 0600.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for uploads; else they are deleted once they are judged.")
    ] = None,
) -> None:
    """Serve a page on which people look at flagged and uncertain videos, and decide.

    Example: deepfake-scan review serve results/ --user ann

    Shorter: deepfake-scan review results/. Prints the address, with a token that lets in, and runs until
    Ctrl-C. Decisions are rows of OUT/reviews. docs/review.md has the keys, and how to serve others.
    """
    from jobs.review.serve import serve

    serve(output, user=user, port=port, bind=bind, token_file=token_file, keep=keep)


@review_app.command("export")
def review_export(
    output: Output,
    *,
    file: Annotated[Path, typer.Option("--output", "-o", help="FILE.parquet or FILE.csv.")],
    labels: Annotated[
        bool, typer.Option("--labels", help="Only standing fake and real, as uri,label,group.")
    ] = False,
) -> None:
    """Write the decisions to one plain file, or the labels that `calibrate` and `evaluate` take.

    Example: deepfake-scan review export results/ --labels -o labels.csv
    """
    from jobs.review.decisions import export
    from jobs.schema import printable

    print(f"{export(output, file, labels=labels):,} rows: {printable(str(file))}")
