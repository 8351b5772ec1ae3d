"""Cards, the README's claim and the manifest say what was measured, of the very files that ship."""

import json
from typing import Any

import pytest

from detector.weights import bundled, manifest, read
from tests.bench.card_text import ROOT, base_rates, decimals, interval, texts
from tests.bench.cards import FIGURES

HOW = "run `make cards`"


@pytest.fixture(scope="module")
def found() -> Any:
    return json.loads(FIGURES.read_text())


def test_figures_are_those_of_the_shipped_files(found: Any) -> None:
    shipped = {name for name in manifest()["files"] if name.endswith(".safetensors")}
    assert {f"{name}.safetensors" for name in found["weights"]} == shipped, HOW
    for name, figures in found["weights"].items():
        weights = read(bundled() / f"{name}.safetensors")
        assert (figures["weights_id"], figures["sha256"]) == (weights.weights_id, weights.sha256), HOW


def test_every_text_with_figures_is_as_they_make_it(found: Any) -> None:
    written = texts(found)
    assert {path.relative_to(ROOT).as_posix() for path in written} >= {
        "README.md",
        "docs/calibration.md",
        "weights/efficientnet_lite0_lstm.md",
        "weights/manifest.json",
    }
    for path, text in written.items():
        assert path.read_text() == text, f"{path.name} differs from the figures: {HOW}"


def test_what_a_flag_means_follows_from_how_rare_fakes_are() -> None:
    even, rare, rarest = base_rates({"recall": 0.4, "false_positive_rate": 0.01})
    assert even["precision"] == pytest.approx(0.4 / 0.41)
    assert rare["right"] == pytest.approx(4000)
    assert rare["wrong"] == pytest.approx(9900)
    assert rarest["precision"] < 0.01


def test_numbers_are_written_as_the_field_writes_them() -> None:
    assert decimals(0.8749) == ".875"
    assert decimals(1.0) == "1.000"
    assert decimals(None) == "-"
    assert interval([0.8361, 0.9059]) == ".836-.906"
