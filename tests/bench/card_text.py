"""Model cards and the README's claim, written from `weights/figures.json` and the texts in `docs/cards/`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from detector.evaluation.calibration import reals_needed
from detector.evaluation.intervals import rate_at_threshold
from detector.weights import bundled, manifest

ROOT = Path(__file__).resolve().parents[2]
_TEMPLATES = ROOT / "docs" / "cards"
_CLAIM = re.compile(r"(<!-- claim -->\n).*?(<!-- /claim -->)", re.DOTALL)
_ARITHMETIC = re.compile(r"(<!-- arithmetic -->\n).*?(<!-- /arithmetic -->)", re.DOTALL)
_RATES, _VIDEOS = (0.05, 0.01, 0.001), (100, 300, 1000, 3000, 10_000)
_PREVALENCES = (2, 100, 10_000)
_ASKED = 1_000_000


def write(found: Mapping[str, Any]) -> None:
    """Write every text that holds figures."""
    for path, text in texts(found).items():
        path.write_text(text)


def texts(found: Mapping[str, Any]) -> dict[Path, str]:
    """Path -> text of the cards, the README and the manifest, as these figures have them."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # Markdown, from our own numbers
    )
    environment.filters |= {"d": decimals, "ci": interval, "pct": percent, "pci": percent_interval}
    shipped = manifest()
    written = {}
    measured = found["weights"]
    for name, figures in measured.items():
        judged = figures.get("test", figures["val"])
        written[bundled() / f"{name}.md"] = environment.get_template(f"{name}.md.j2").render(
            f=figures,
            name=name,
            tested="test" in figures,
            base_rates=base_rates(judged["frame"]),
            peers=found["peers"],
        )
        frame, split = judged["frame"], "test" if "test" in figures else "validation"
        shipped["files"][f"{name}.safetensors"]["figures"] = (
            f"AUC {decimals(frame['auc'])} ({interval(frame['intervals']['auc'])}) on {split} crops"
        )
    written[bundled() / "manifest.json"] = json.dumps(shipped, indent=2) + "\n"
    default = shipped["default"].removesuffix(".safetensors")
    claim = environment.get_template("claim.md.j2").render(
        f=measured[default], name=default, tested="test" in measured[default]
    )
    readme = ROOT / "README.md"
    written[readme] = _CLAIM.sub(lambda held: held[1] + claim + held[2], readme.read_text())
    calibration = ROOT / "docs" / "calibration.md"
    table = arithmetic()
    written[calibration] = _ARITHMETIC.sub(lambda held: held[1] + table + held[2], calibration.read_text())
    return written


def arithmetic() -> str:
    """How sharply so many real videos fix a false-positive rate, as a table."""
    lines = [
        "| rate | at least | " + " | ".join(f"{videos:,} videos" for videos in _VIDEOS) + " |",
        "|---" * (len(_VIDEOS) + 2) + "|",
    ]
    for rate in _RATES:
        cells = [f"{rate:.1%}".replace("%", " %"), f"{reals_needed(rate):,}"]
        for videos in _VIDEOS:
            flagged = math.floor(rate * (videos + 1) - 1 + 1e-9)
            ends = rate_at_threshold(flagged, videos) if flagged >= 0 else None
            cells.append("-" if ends is None else f"{100 * ends[0]:.2f}-{100 * ends[1]:.2f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def base_rates(frame: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a flag means where one in so many is a fake: flags among a million, right and wrong."""
    rows = []
    for one_in in _PREVALENCES:
        fakes = _ASKED / one_in
        right = fakes * frame["recall"]
        wrong = (_ASKED - fakes) * frame["false_positive_rate"]
        rows.append(
            {"one_in": one_in, "right": right, "wrong": wrong, "precision": right / max(1e-9, right + wrong)}
        )
    return rows


def decimals(value: float | None) -> str:
    """`.875`; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}".replace("0.", ".", 1)


def interval(ends: Sequence[float] | None) -> str:
    """`.836-.906`; a dash where there is none."""
    return "-" if ends is None else "-".join(map(decimals, ends))


def percent(value: float | None) -> str:
    """`39.8 %`; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f} %"


def percent_interval(ends: Sequence[float] | None) -> str:
    """`33.3-46.6 %`; a dash where there is none."""
    return "-" if ends is None else f"{100 * ends[0]:.1f}-{100 * ends[1]:.1f} %"
