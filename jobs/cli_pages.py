"""Commands that show: pages of evidence, the night's report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

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
