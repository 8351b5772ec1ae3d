"""Commands that show results as pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from jobs.cli_options import Output


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
) -> None:
    """Serve a page on which people look at flagged and uncertain videos, and decide.

    Example: deepfake-scan review serve results/ --user ann

    Shorter: deepfake-scan review results/. Prints the address, with a token that lets in, and runs until
    Ctrl-C. Decisions are rows of OUT/reviews. docs/review.md has the keys, and how to serve others.
    """
    from jobs.review.serve import serve

    serve(output, user=user, port=port, bind=bind, token_file=token_file)


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
