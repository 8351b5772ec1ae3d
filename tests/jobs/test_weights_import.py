"""A checkpoint of the reference application, made from a seed, becomes a weights file that scores alike."""

import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from torch import Tensor, nn
from torchvision.models import resnext50_32x4d
from torchvision.transforms.functional import normalize, to_tensor
from typer.testing import CliRunner

from detector import checkpoints
from detector.checkpoints import state_dict
from detector.errors import WeightsError
from detector.model import Model
from detector.reference import convert, frames_of
from detector.types import Clips, ClipScore
from detector.verdict import calibrated
from detector.weights import WeightsFile, parse, read
from jobs import cli
from jobs.config import load
from tests.jobs.conftest import Command
from tests.media import moving_face, write_video
from tests.scans import read_rows

pytestmark = pytest.mark.xdist_group("reference")

FRAMES, SIZE = 4, 112
CHECKPOINT = "model_93_acc_10_frames_celeb_FF_data.pt"


class Theirs(nn.Module):
    """The network as its description has it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(*list(resnext50_32x4d(weights=None).children())[:-2])
        self.lstm = nn.LSTM(2048, 2048, bias=False)
        self.linear1 = nn.Linear(2048, 2)

    def logits(self, frames: np.ndarray, mode: str) -> Tensor:
        """`[T, 112, 112, 3] uint8 RGB` -> logits [2] of fake and real."""
        states = []
        for rgb in frames:
            blue_first = to_tensor(rgb[..., ::-1].copy())
            shown = normalize(blue_first, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            feature = self.model(shown.unsqueeze(0)).mean((2, 3))
            states.append(self.lstm(feature.unsqueeze(0))[0][0, 0])
        decides = states[-1] if mode == "last" else torch.stack(states).mean(0)
        logits: Tensor = self.linear1(decides)
        return logits


@dataclass(frozen=True)
class Imported:
    path: Path
    said: str
    weights: WeightsFile
    model: Model


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    torch.manual_seed(7)
    net = Theirs()
    with torch.inference_mode():
        net.model.train()(torch.randn(8, 3, SIZE, SIZE))  # statistics that are not all 0 and 1
        net.linear1.weight *= 20
    return net.eval()


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


# --- what is refused ----------------------------------------------------------------------------------------


def hollow(theirs: Theirs) -> dict[str, Tensor]:
    """All tensors of a checkpoint, of their shapes and types, but on disk each is a single zero."""
    return {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for name, value in theirs.state_dict().items()
    }


def refused(state: object, tmp_path: Path) -> WeightsError:
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(WeightsError) as caught:
        convert(tmp_path / "other.pt", tmp_path / "made.safetensors", mode="last", frames=20)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt"], "something was written"
    assert "other.pt" in caught.value.message
    return caught.value


Change = Callable[[dict[str, Any]], object]
Save = Callable[[object, Path], object]


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (lambda s: s.pop("lstm.weight_hh_l0"), ["missing: lstm.weight_hh_l0, float32 [8192, 2048]"]),
        (
            lambda s: s.pop("model.1.num_batches_tracked"),
            ["missing: model.1.num_batches_tracked, int64 []"],
        ),
        (
            lambda s: s.update({"lstm.bias_ih_l0": torch.zeros(8192), "fc.bias": torch.zeros(2)}),
            ["surplus: lstm.bias_ih_l0, float32 [8192]", "surplus: fc.bias, float32 [2]"],
        ),
        (
            lambda s: s.update({"linear1.weight": torch.zeros(1, 2048), "linear1.bias": torch.zeros(1)}),
            [
                "linear1.weight: float32 [1, 2048], not float32 [2, 2048]",
                "linear1.bias: float32 [1], not float32 [2]",
            ],
        ),
        (
            lambda s: s.update({"model.0.weight": s["model.0.weight"].half()}),
            ["model.0.weight: float16 [64, 3, 7, 7], not float32 [64, 3, 7, 7]"],
        ),
        (
            lambda s: s.update({"linear1.bias": torch.tensor([0.0, float("nan")])}),
            ["linear1.bias: has numbers that are not finite"],
        ),
        (
            lambda s: s.update({"model.7.2.bn3.running_var": torch.full((2048,), float("inf"))}),
            ["model.7.2.bn3.running_var: has numbers that are not finite"],
        ),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_named_one_by_one(
    theirs: Theirs, tmp_path: Path, change: Change, faults: list[str]
) -> None:
    state = hollow(theirs)
    change(state)
    _, *lines = refused(state, tmp_path).message.split("\n")

    assert [line.strip() for line in lines] == faults


def test_of_many_faults_twenty_are_named_and_the_rest_is_counted(tmp_path: Path) -> None:
    _, *lines = refused({"conv1.weight": torch.zeros(1)}, tmp_path).message.split("\n")

    assert len(lines) == 21
    assert lines[0].strip() == "missing: model.0.weight, float32 [64, 3, 7, 7]"
    assert lines[-1].strip() == "and 303 more"


def test_a_network_that_answers_with_no_number_is_refused(theirs: Theirs, tmp_path: Path) -> None:
    state = hollow(theirs)
    state["model.1.running_var"] = torch.full((64,), -1.0)  # finite, and its root is not

    assert "golden clip is nan" in refused(state, tmp_path).message


@pytest.mark.parametrize(
    "state", [[torch.zeros(1)], {}, {"a": 3}, {3: torch.zeros(1)}, {"a": torch.zeros(3).to_sparse()}, "text"]
)
def test_what_is_not_tensors_by_name_is_refused(tmp_path: Path, state: object) -> None:
    assert "something else than plain tensors" in refused(state, tmp_path).message


class Canary:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def save_old(made: object, path: Path) -> None:
    torch.save(made, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("save", "why"),
    [
        (torch.save, "it asks for "),
        (save_old, "it asks for "),
        (lambda made, path: path.write_bytes(pickle.dumps(made)), "damaged, or of another kind"),
    ],
)
def test_code_in_a_checkpoint_is_never_run(
    save: Save, why: str, theirs: Theirs, command: Command, tmp_path: Path
) -> None:
    canary = Canary(tmp_path / "it was run")
    save({"more": canary} | hollow(theirs), tmp_path / "stranger.pt")
    done = command("weights", "import", tmp_path / "stranger.pt")

    assert done.code == 2
    assert "not a checkpoint that can be loaded: " + why in done.err
    assert "nothing in it was run" in done.err
    assert "weights_only" not in done.err, "PyTorch's advice to run it all the same is handed on"
    assert [path.name for path in tmp_path.iterdir()] == ["stranger.pt"]
    pickle.loads(pickle.dumps(canary))
    assert (tmp_path / "it was run").exists(), "the canary is mute: nothing was shown"


def broken_files(folder: Path) -> dict[str, Path]:
    torch.save({"a": torch.zeros(300)}, folder / "new.pt")
    save_old({"a": torch.zeros(300)}, folder / "old.pt")
    made = {
        "text": b"This is no checkpoint.\n" * 40,
        "picture": b"\x89PNG\r\n\x1a\n" * 40,
        "empty": b"",
        "zip-cut-off": (folder / "new.pt").read_bytes()[:-60],
        "old-cut-off": (folder / "old.pt").read_bytes()[:-60],
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "another-zip", "w") as archive:
        archive.writestr("notes.txt", "hi")
    return {name: folder / name for name in [*made, "another-zip"]}


def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for name, path in broken_files(tmp_path).items():
        with pytest.raises(WeightsError, match=f"{name} is not a checkpoint that can be loaded: damaged"):
            state_dict(path)
    with pytest.raises(WeightsError, match="not a regular file"):
        state_dict(tmp_path)
    with pytest.raises(WeightsError, match="No such file"):
        state_dict(tmp_path / "missing.pt")


def test_a_file_that_is_too_large_or_unpacks_to_too_much_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_BYTES", 100_000)
    save_old({"a": torch.zeros(50_000)}, tmp_path / "large.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(200_000))
    assert (tmp_path / "bomb.pt").stat().st_size < 1_000
    for name in ("large.pt", "bomb.pt"):
        with pytest.raises(WeightsError, match="larger than any checkpoint"):
            state_dict(tmp_path / name)


@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("save", [torch.save, save_old])
def test_the_usual_wrappings_of_a_state_dict_are_taken_off(
    tmp_path: Path, nest: str, prefix: str, save: Save
) -> None:
    inner = {f"{prefix}model.0.weight": torch.ones(3), f"{prefix}linear1.bias": torch.zeros(2)}
    save({nest: inner, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "nested.pt")

    assert list(state_dict(tmp_path / "nested.pt")) == ["model.0.weight", "linear1.bias"]


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
