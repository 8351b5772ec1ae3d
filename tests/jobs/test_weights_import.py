"""A checkpoint of the reference application, made from a seed, becomes a weights file that scores alike."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs
from typer.testing import CliRunner

from detector.errors import WeightsError
from detector.model import Model
from detector.reference import frames_of
from detector.types import Clips, ClipScore
from detector.verdict import calibrated
from detector.weights import WeightsFile, parse, read
from jobs import cli
from jobs.config import load
from tests.jobs.conftest import Command
from tests.media import moving_face, write_video
from tests.scans import read_rows
from tests.theirs import SIZE, Theirs, seeded_theirs

pytestmark = pytest.mark.xdist_group("reference")

FRAMES = 4
CHECKPOINT = "model_93_acc_10_frames_celeb_FF_data.pt"


@dataclass(frozen=True)
class Imported:
    path: Path
    said: str
    weights: WeightsFile
    model: Model


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    return seeded_theirs()


@pytest.fixture(scope="module")
def checkpoint(theirs: Theirs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("checkpoint") / CHECKPOINT
    torch.save(theirs.state_dict(), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def both(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Imported]]:
    folder = tmp_path_factory.mktemp("imported")
    found = {}
    for mode in ("last", "mean"):
        path = folder / f"{mode}.safetensors"
        done = CliRunner().invoke(
            cli.app, ["weights", "import", str(checkpoint), "-o", str(path), "--mode", mode]
        )
        assert done.exit_code == 0, done.exception
        weights = read(path)
        found[mode] = Imported(path, done.output, weights, Model(weights))
    yield found
    for imported in found.values():
        imported.path.unlink()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """`[4, 112, 112, 3] uint8 RGB`, of different light."""
    return np.stack(moving_face(FRAMES, (SIZE, SIZE), 10, face_px=80, seed=1, light=1))


def score(imported: Imported, crops: np.ndarray, held: int = FRAMES) -> ClipScore:
    return imported.model.score(Clips(crops[None], np.arange(FRAMES)[None] < held))[0]


# --- the forward pass ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["last", "mean"])
def test_an_imported_file_gives_the_numbers_of_the_described_network(
    both: dict[str, Imported], theirs: Theirs, crops: np.ndarray, mode: str
) -> None:
    assert len(theirs.state_dict()) == 322, "the checkpoint is not one like those that are published"
    with torch.inference_mode():
        fake, real = theirs.logits(crops, mode)
        p_fake = torch.stack([fake, real]).softmax(0)[0]
        first = theirs.logits(crops[:1], mode)
    found = score(both[mode], crops)

    assert abs(float(fake - real - first[0] + first[1])) > 1e-3, "all frames score alike: nothing is shown"
    assert found.logit == pytest.approx(float(fake - real), abs=1e-5)
    assert calibrated(found.logit, both[mode].weights.header.policy) == pytest.approx(float(p_fake), abs=1e-5)
    assert found.frame_logits[0] == pytest.approx(float(first[0] - first[1]), abs=1e-5)


def test_where_the_last_frame_decides_no_other_has_a_say(
    both: dict[str, Imported], crops: np.ndarray
) -> None:
    others, last = crops.copy(), crops.copy()
    others[:-1] = 255 - others[:-1]
    last[-1] = 255 - last[-1]

    assert score(both["last"], others).logit == score(both["last"], crops).logit
    assert abs(score(both["last"], last).logit - score(both["last"], crops).logit) > 1e-3


def test_the_last_frame_is_the_last_in_which_the_face_is_seen(
    both: dict[str, Imported], crops: np.ndarray
) -> None:
    short = score(both["last"], crops, held=2)

    assert (
        short.logit
        == short.frame_logits[1]
        == pytest.approx(score(both["last"], crops).frame_logits[1], 1e-5)
    )
    assert np.isnan(short.frame_logits[2:]).all()


def test_where_the_mean_decides_order_is_nothing_and_every_frame_counts(
    both: dict[str, Imported], crops: np.ndarray
) -> None:
    usual = score(both["mean"], crops).logit

    assert score(both["mean"], crops[::-1].copy()).logit == pytest.approx(usual, abs=1e-5)
    assert score(both["mean"], crops, held=2).logit == pytest.approx(
        np.mean(score(both["mean"], crops).frame_logits[:2]), abs=1e-5
    )
    for frame in range(FRAMES):
        changed = crops.copy()
        changed[frame] = 255 - changed[frame]
        assert abs(score(both["mean"], changed).logit - usual) > 1e-4, f"frame {frame} does not count"


# --- the file -----------------------------------------------------------------------------------------------


def test_the_header_says_how_the_application_looks_at_videos(both: dict[str, Imported]) -> None:
    header = both["last"].weights.header
    options = load().settings.extract_options(header)

    assert header.name == CHECKPOINT.removesuffix(".pt")
    assert (options.sampling.policy, options.sampling.frames) == ("first", 10)
    assert (options.detector, options.detector_bgr, header.input.colour) == ("hog", True, "bgr")
    assert (options.crop.size, options.crop.scale, options.crop.shift_y, options.crop.square) == (
        112,
        1,
        0,
        False,
    )
    assert (header.policy.slope, header.policy.bias, header.policy.flag, header.policy.level) == (
        1,
        0,
        0.5,
        "none",
    )


def test_the_command_says_what_it_made_and_under_which_terms(both: dict[str, Imported]) -> None:
    for mode, said in (("last", "the last in which it is seen decides"), ("mean", "their mean decides")):
        made = both[mode]
        assert f"{made.path}: weights_id {made.weights.weights_id}, sha256 {made.weights.sha256}" in made.said
        assert f"the first 10 frames, faces boxed by HOG and squashed to 112 px, BGR; {said}" in made.said
        assert "not measured" in made.said
        assert "GPL-3.0" in made.said
    assert both["last"].weights.weights_id != both["mean"].weights.weights_id


def test_what_has_no_effect_is_left_out(both: dict[str, Imported]) -> None:
    assert both["last"].path.stat().st_size < 143e6


def test_an_imported_file_is_verified_and_one_flipped_bit_is_found(
    both: dict[str, Imported], command: Command
) -> None:
    made = both["last"]
    assert "whole" in command("weights", "verify", made.path).out

    flipped = bytearray(made.weights.data)
    for place in (len(flipped) // 2, len(flipped) - 4):  # the lowest bits, which hardly move a number
        flipped[place] ^= 1
        with pytest.raises(WeightsError, match="not those that were written"):
            parse(bytes(flipped), "flipped", "")
        flipped[place] ^= 1


def test_the_golden_clip_finds_another_answer(both: dict[str, Imported]) -> None:
    weights = both["last"].weights
    other = structs.replace(weights.header, golden_logit=weights.header.golden_logit + 0.01)
    with pytest.raises(WeightsError, match="golden clip"):
        Model(replace(weights, header=other))


@pytest.mark.slow
def test_an_import_takes_less_than_1500_mb(checkpoint: Path, tmp_path: Path) -> None:
    code = (
        "import atexit, pathlib, sys; from jobs.cli import main; "
        "atexit.register(lambda: print(pathlib.Path('/proc/self/status').read_text())); main()"
    )
    words = ["weights", "import", str(checkpoint), "-o", str(tmp_path / "a.safetensors")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    peak = re.search(r"VmHWM:\s*(\d+) kB", done.stdout)  # not ru_maxrss, which begins with this process's

    assert peak
    assert 200e6 < int(peak[1]) * 1024 < 1500e6, peak[0]


@pytest.mark.parametrize(
    ("stem", "frames"),
    [
        ("model_93_acc_100_frames_celeb_FF_data", 100),
        ("model_84_acc_10_frames_final_data", 10),
        ("model_97_acc_0_frames_FF_data", 20),
        ("model_97_acc_900_frames_FF_data", 20),
        ("checkpoint_100_frames", 20),
        ("checkpoint", 20),
    ],
)
def test_the_name_of_a_published_file_says_how_many_frames(stem: str, frames: int) -> None:
    assert frames_of(stem) == frames


# --- a scan with it -----------------------------------------------------------------------------------------


def test_a_video_is_scanned_and_explained_by_its_first_frames(
    both: dict[str, Imported], command: Command, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "face.mp4", moving_face(30, (320, 240), face_px=110, seed=1, light=0.3))
    weights, out = both["last"].path, tmp_path / "out"
    scanned = command("scan", video, "-o", out, "--weights", weights, "--address", "in-process")
    explained = command("explain", video, "--weights", weights, "--no-sandbox")

    assert scanned.code == explained.code == 0, scanned.err + explained.err
    assert "thresholds of these weights were never measured" in scanned.err + scanned.out
    assert "thresholds of these weights were never measured" in explained.out
    assert "1 window looked at, 10 frames decoded" in explained.out
    [row] = read_rows(out)
    assert (row["status"], row["detector"], row["threshold_level"]) == ("scored", "hog", "none")
    assert f"p_fake {row['p_fake']:.3f}" in explained.out
    assert [len(track["boxes"]) for track in row["tracks"]] == [10]


def test_a_file_that_is_there_is_not_written_over(
    both: dict[str, Imported], checkpoint: Path, command: Command
) -> None:
    for target in (both["last"].path, checkpoint):
        before = target.stat()
        done = command("weights", "import", checkpoint, "-o", target)
        assert done.code == 2
        assert "there already" in done.err
        assert target.stat() == before
    away = checkpoint.with_name("missing") / "a.safetensors"
    assert "No such file" in command("weights", "import", checkpoint, "-o", away).err
