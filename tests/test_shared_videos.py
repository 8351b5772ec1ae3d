"""Real videos: faces are found where they are, and no file stops the scan. Slow; prints a report."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from detector import faces
from detector.sandbox import Sandbox
from detector.tracks import iou
from detector.types import Extraction, ExtractOptions, FaceBox, Facts, Reason, VideoInfo
from detector.video import Video, plan_windows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

OPTIONS = ExtractOptions()
PERSONS = {"ani_cxk.mp4": 2, "ani_lyl.mp4": 2, "ani_solo.mp4": 2, "fomm_fox_julio.mp4": 3}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Boxes of the row, one per scored face and sampled frame, and those that a full-size look confirms."""

    boxes: int
    confirmed: int


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture(scope="module")
def look() -> faces.Look:
    return faces.load("yunet")


def listed(folder: Path) -> list[Path]:
    with (folder / "index.csv").open() as file:
        return [folder / row["file"] for row in csv.DictReader(file)]


def extract(path: Path, sandbox: Sandbox) -> Extraction:
    with path.open("rb") as file:
        return sandbox.extract(file, OPTIONS)


def agreement(path: Path, facts: Facts, look: faces.Look) -> Agreement:
    """Of the scored faces' boxes, how many overlap a detection at full size in the same frame."""
    assert facts.info is not None
    boxes: dict[float, list[FaceBox]] = {}
    for track in facts.tracks:
        if track.reason is None:
            for box in track.boxes:
                boxes.setdefault(box.t_s, []).append(_in_px(box.x, box.y, box.w, box.h, facts.info))
    confirmed = 0
    with path.open("rb") as file, Video(file, OPTIONS.limits) as video:
        for window in video.sample(plan_windows(video.info.duration_s, OPTIONS.sampling)):
            for frame in window:
                here = boxes.get(frame.t_s, [])
                full = look(frame.picture.whole(), True) if here else []
                confirmed += sum(any(iou(a, b) >= 0.3 for b in full) for a in here)
    return Agreement(sum(map(len, boxes.values())), confirmed)


def _in_px(x: float, y: float, w: float, h: float, info: VideoInfo) -> FaceBox:
    return FaceBox(x * info.width, y * info.height, w * info.width, h * info.height, 1.0)


def complaints(name: str, facts: Facts, agreed: Agreement) -> Iterator[str]:
    persons = len({track.person_id for track in facts.tracks if track.reason is None})
    if not any(track.reason is None for track in facts.tracks):
        yield f"{name}: no scored track ({facts.failure} {facts.message})"
    if agreed.confirmed < 0.9 * agreed.boxes:
        yield f"{name}: a full-size look confirms {agreed.confirmed} of {agreed.boxes} boxes"
    if persons != PERSONS.get(name, persons):
        yield f"{name}: {persons} persons where {PERSONS[name]} are to be seen"


@pytest.mark.parametrize("folder", ["faces", "fake"])
def test_every_video_with_faces_is_scored_where_its_faces_are(
    shared_data: Path, folder: str, sandbox: Sandbox, look: faces.Look, capsys: pytest.CaptureFixture[str]
) -> None:
    report: list[str] = []
    wrong: list[str] = []
    for path in listed(shared_data / "videos" / folder):
        extraction = extract(path, sandbox)
        facts = extraction.facts
        agreed = agreement(path, facts, look) if facts.info else Agreement(0, 0)
        persons = {track.person_id for track in facts.tracks if track.reason is None}
        size = f"{facts.info.width}x{facts.info.height}" if facts.info else ""
        report.append(
            f"{path.name:36}{size:>10}{len(extraction.clips):>6}{len(facts.tracks):>7}{len(persons):>8}"
            f"{agreed.confirmed:>6} of {agreed.boxes:<4}"
            f"{extraction.peak_bytes >> 20:>5}{extraction.cpu_s:>7.2f}"
        )
        wrong += complaints(path.name, facts, agreed)
    with capsys.disabled():
        titles = f"{'size':>10}{'clips':>6}{'tracks':>7}{'persons':>8}{'confirmed':>13}{'MB':>5}{'CPU s':>7}"
        print("\n".join(["", f"{folder:36}{titles}", *report]))
    assert not wrong, "\n".join(wrong)


def test_every_odd_file_gives_an_answer_and_none_is_a_bug(
    shared_data: Path, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    report, wrong = [], []
    for path in listed(shared_data / "videos" / "odd"):
        helper = sandbox.helper_pid
        extraction = extract(path, sandbox)
        facts = extraction.facts
        scored = f"{len(extraction.clips)} clips of {len(facts.tracks)} tracks"
        report.append(f"{path.name:52} {facts.failure or scored} {', '.join(facts.warnings)} {facts.message}")
        if facts.failure in {Reason.INTERNAL_ERROR, Reason.DECODER_CRASH, Reason.DECODE_TIMEOUT}:
            wrong.append(report[-1])
        if sandbox.helper_pid != helper:
            wrong.append(f"{path.name}: the helper did not survive it")
    with capsys.disabled():
        print("\n" + "\n".join(report))
    assert not wrong, "\n".join(wrong)
