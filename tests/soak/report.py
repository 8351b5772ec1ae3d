"""Reports of the bars: written by the program that measured, committed under `docs/soak/`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "docs" / "soak"
_LIBRARIES = ("ray", "torch", "av", "opencv-python-headless", "deltalake", "pyarrow")


def write_report(bar: str, holds: bool, figures: Mapping[str, object], notes: Sequence[str] = ()) -> None:
    """Write `docs/soak/<bar>.md` and print it; of `races-s3`, `s3` is the argument of the bar `races`."""
    name, _, argument = bar.partition("-")
    argument = argument and f" ARGS={argument}"
    lines = [
        f"# {bar}: {'holds' if holds else 'DOES NOT HOLD'}",
        "",
        f"`make soak BAR={name}{argument}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, "
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in figures.items()),
        *(["", *(f"- {note}" for note in notes)] if notes else []),
    ]
    text = "\n".join(lines) + "\n"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    (_FOLDER / f"{bar}.md").write_text(text)
    print(text)
