"""What is no checkpoint of the reference application is refused in words, and nothing in it is run."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detector import checkpoints
from detector.checkpoints import state_dict
from detector.errors import WeightsError
from detector.reference import convert
from tests.jobs.conftest import Command
from tests.theirs import Theirs, seeded_theirs

pytestmark = pytest.mark.xdist_group("reference")


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    return seeded_theirs()


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
