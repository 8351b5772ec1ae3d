"""One video from file to answer, and a watch over the numbers: scores must not move unnoticed.

`python -m tests.detector.test_pipeline` writes the golden file anew, after PIPELINE_VERSION was raised.
"""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detector.model import Model, golden_logit
from detector.network import ResNeXtLSTM
from detector.pipeline import decide, extract, scan_video, score
from detector.sandbox import Sandbox
from detector.types import PIPELINE_VERSION, ExtractOptions, Reason, Status, Verdict, VideoResult
from detector.verdict import calibrated
from detector.weights import WeightsFile, write
from tests.media import no_face, two_faces, write_video
from tests.seeded import POLICY, seeded_weights

GOLDEN = Path(__file__).parent.parent / "golden" / "scores.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(sensitive_weights(tmp_path_factory.mktemp("weights") / "seeded.safetensors"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_video(tmp_path_factory.mktemp("video"))


def golden_video(folder: Path) -> Path:
    """Two people side by side, 3 s; as good as lossless, so that an encoder's release hardly counts."""
    return write_video(folder / "golden.mp4", two_faces(30, fps=10, seed=1), fps=10, options={"crf": "4"})


def options(model: Model) -> ExtractOptions:
    return ExtractOptions(sampling=model.header.sampling, crop=model.header.crop)


def scan(path: Path, model: Model, sandbox: Sandbox | None = None) -> VideoResult:
    with path.open("rb") as file:
        return scan_video(file, options(model), model, POLICY, sandbox)[0]


def sensitive_weights(path: Path) -> WeightsFile:
    """Seeded weights with heads a hundred times as steep: a crop that moves by one px moves the logits."""
    seeded = seeded_weights(path)
    tensors = seeded.tensors()
    for name in ("sequence_head.weight", "frame_head.weight"):
        tensors[name] *= 100
    net = ResNeXtLSTM(seeded.header.architecture).eval()
    net.load_state_dict(tensors)
    header = msgspec.structs.replace(
        seeded.header, storage="float32", golden_logit=golden_logit(net, seeded.header)
    )
    return write(path, header, tensors)


def golden_scores(path: Path, model: Model) -> dict[str, Any]:
    return {
        "pipeline_version": PIPELINE_VERSION,
        "weights_id": model.weights_id,
        "logits": [round(track.logit or math.nan, 5) for track in scan(path, model).tracks],
    }


def test_a_video_is_scored_person_by_person(video: Path, model: Model) -> None:
    result = scan(video, model)

    assert result.status is Status.SCORED
    assert len(result.persons) == 2
    assert [person.windows for person in result.persons] == [2, 2]
    assert result.windows_scored == 2
    assert result.logit == max(person.logit for person in result.persons)
    assert result.p_fake == calibrated(result.logit, POLICY)
    assert result.verdict is not Verdict.NOT_ASSESSED


def test_the_three_steps_one_by_one_give_the_same_answer(video: Path, model: Model) -> None:
    with video.open("rb") as file:
        extraction = extract(file, options(model), None)

    assert decide(extraction.facts, score(extraction.clips, model), POLICY) == scan(video, model)


def test_the_sandbox_gives_the_same_answer(video: Path, model: Model) -> None:
    with Sandbox() as sandbox:
        assert scan(video, model, sandbox) == scan(video, model)


def test_a_video_without_faces_is_not_assessed(tmp_path: Path, model: Model) -> None:
    result = scan(write_video(tmp_path / "a.mp4", no_face(20)), model)

    assert (result.status, result.verdict) == (Status.NO_FACE, Verdict.NOT_ASSESSED)
    assert result.p_fake is None


def test_what_is_no_video_fails_with_its_reason(tmp_path: Path, model: Model) -> None:
    (tmp_path / "a.mp4").touch()
    result = scan(tmp_path / "a.mp4", model)

    assert (result.status, result.facts.failure) == (Status.FAILED, Reason.EMPTY_FILE)
    assert result.p_fake is None


def test_scores_have_not_moved(video: Path, model: Model) -> None:
    golden = json.loads(GOLDEN.read_text())
    now = golden_scores(video, model)
    if now["weights_id"] != golden["weights_id"]:
        pytest.fail(
            "the seeded network is another one: torch draws other numbers; write the golden file anew"
        )
    assert now["pipeline_version"] == golden["pipeline_version"], "write the golden file anew"
    moved = [abs(a - b) for a, b in zip(now["logits"], golden["logits"], strict=True)]
    assert max(moved) <= 1e-3, (
        f"scores moved: raise PIPELINE_VERSION in detector/types.py and write the golden file anew "
        f"(python -m {__name__}); logits {golden['logits']} became {now['logits']}"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        network = Model(sensitive_weights(Path(name) / "seeded.safetensors"))
        scores = golden_scores(golden_video(Path(name)), network)
    GOLDEN.write_text(json.dumps(scores, indent=1) + "\n")
