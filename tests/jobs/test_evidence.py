"""Evidence: the source looked at once more, and the page that says what a verdict rests on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, Request

from detector.errors import InputError, StorageError
from detector.evaluation.calibration import named
from detector.types import Reason
from jobs import policies, query, report
from jobs.config import options_of, settings_id, settings_words
from jobs.equipment import Equipment
from jobs.evidence import Evidence, Examiner
from jobs.evidence_page import page
from jobs.page import strings
from jobs.scan import run
from jobs.table import ResultsTable
from tests.browser import chromium, faults
from tests.conftest import Scanned
from tests.film import Actor, film, moving_face
from tests.hostile_names import HOSTILE, gets_through
from tests.jobs.conftest import Command
from tests.media import write_video
from tests.scans import read_rows, scan_settings
from tests.seeded import POLICY

pytestmark = pytest.mark.xdist_group("scans")


@pytest.fixture(scope="module")
def examined(scanned: Scanned) -> Iterator[dict[str, Evidence]]:
    """Every video of the scan, looked at once more, by name."""
    with query.connect(str(scanned.output)) as connection, Equipment() as equipment:
        examiner = Examiner(connection, equipment)
        rows = [examiner.find(row["video_id"]) for row in read_rows(scanned.output)]
        yield {Path(row["uri"]).name: examiner.examine(row) for row in rows}


def text_of(html: str) -> str:
    """What a person reads, in one line."""

    class Reader(HTMLParser):
        found = ""

        def handle_data(self, data: str) -> None:
            self.found += data + " "

    reader = Reader()
    reader.feed(re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))
    return " ".join(reader.found.split())


def pictures(html: str) -> list[NDArray[np.uint8]]:
    """All pictures of a page, BGR."""
    data = [base64.b64decode(text) for text in re.findall(r"data:image/jpeg;base64,([^\"]+)", html)]
    decoded = [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR) for one in data]
    return [np.asarray(picture, np.uint8) for picture in decoded]


# --- the source once more ---------------------------------------------------------------------------------


def test_every_video_comes_out_as_it_stands_in_the_table(examined: Mapping[str, Evidence]) -> None:
    scored = [e for e in examined.values() if e.row["status"] == "scored"]
    assert len(scored) >= 6, "the scan scored too few videos to say anything"
    for name, evidence in examined.items():
        assert evidence.agrees, f"{name}: {evidence.row['status']}, again {evidence.again}"
        assert evidence.source.state == "same"
    for evidence in scored:
        assert evidence.difference is not None
        assert evidence.difference <= 1e-4


def test_the_hash_is_that_of_the_file(scanned: Scanned, examined: Mapping[str, Evidence]) -> None:
    for name, evidence in examined.items():
        assert evidence.source.sha256 == hashlib.sha256((scanned.videos / name).read_bytes()).hexdigest()


def test_options_come_back_out_of_the_settings_of_a_scan(examined: Mapping[str, Evidence]) -> None:
    for evidence in examined.values():
        words = evidence.settings["scored_by"]
        options = options_of(words)
        assert settings_words(options, evidence.row["weights_id"]) == words
        assert settings_id(options, evidence.row["weights_id"]) == evidence.row["settings_id"]


@pytest.fixture
def small(tmp_path: Path, seeded: Path) -> tuple[Path, Path]:
    """One video and the table of its scan."""
    (tmp_path / "videos").mkdir()
    video = tmp_path / "videos" / "face.mp4"
    write_video(video, moving_face(20, (320, 240), face_px=90, seed=5))
    run(scan_settings(tmp_path / "videos", tmp_path / "out", seeded), quiet=True)
    return video, tmp_path / "out"


def examine(output: Path, key: str, weights: str | None = None) -> Evidence:
    with query.connect(str(output)) as connection, Equipment() as equipment:
        examiner = Examiner(connection, equipment, weights=weights)
        return examiner.examine(examiner.find(key))


def test_a_source_that_was_replaced_is_not_taken_for_the_one_that_was_scored(
    small: tuple[Path, Path],
) -> None:
    video, output = small
    write_video(video, moving_face(20, (320, 240), face_px=90, seed=6))
    evidence = examine(output, str(video))
    assert evidence.source.state == "changed"
    assert evidence.again is None, "pictures of another file would stand for the one that was scored"
    assert "no longer the file that was scanned" in text_of(page(evidence, clear=True))


def test_a_source_that_is_gone_is_said_to_be(small: tuple[Path, Path]) -> None:
    video, output = small
    video.unlink()
    evidence = examine(output, str(video))
    html = page(evidence, clear=True)
    assert evidence.source.state == "gone"
    assert "The source is gone" in text_of(html)
    assert not pictures(html)
    assert "p_fake" in text_of(html), "what the table holds is shown all the same"


def test_without_its_weights_a_page_says_what_is_missing(small: tuple[Path, Path], seeded: Path) -> None:
    video, output = small
    away = seeded.with_suffix(".away")
    seeded.rename(away)
    try:
        evidence = examine(output, str(video))
        assert "Name their file with --weights" in text_of(page(evidence, clear=True))
        assert examine(output, str(video), str(away)).agrees
    finally:
        away.rename(seeded)


def test_a_key_that_is_not_in_the_table_is_an_error_in_words(scanned: Scanned) -> None:
    with pytest.raises(InputError, match="no video_id and no uri"):
        examine(scanned.output, "' OR 1=1 --")


# --- the page ---------------------------------------------------------------------------------------------


def test_a_page_says_verdict_score_and_thresholds(examined: Mapping[str, Evidence]) -> None:
    for name, evidence in examined.items():
        row, text = evidence.row, text_of(page(evidence, clear=False))
        assert name in text
        assert strings()["verdict"][row["verdict_today"]] in text
        assert str(evidence.source.sha256) in text
        for known in ("settings_id", "policy_today", "scan_id", "video_id"):
            assert row[known] in text, f"{name}: its page lacks {known}"
        if row["status"] == "scored":
            assert f"p_fake {row['p_fake_today']:.3f}" in text
            assert f"Flagged from {row['flag_today']:.3f}" in text
            assert "The score came out the same" in text
            for person in row["persons"]:
                assert f"Person {person['person_id']}" in text
        if row["status"] == "failed":
            assert Reason(row["reason"]).meaning in text
            assert strings()["advice"][row["reason"]] in text


def test_every_reason_has_words_for_what_to_do() -> None:
    assert set(strings()["advice"]) == {*Reason, "no_face", "not_scorable"}


def test_pictures_are_grey_and_blurred_unless_clear_ones_are_asked_for(
    examined: Mapping[str, Evidence],
) -> None:
    evidence = examined["two-faces.mp4"]
    veiled, clear = (pictures(page(evidence, clear=wanted)) for wanted in (False, True))
    assert len(veiled) == len(clear) > 40
    crops = [i for i, picture in enumerate(clear) if picture.shape == (64, 64, 3)]
    assert len(crops) == 40, "two persons with two windows of ten frames"
    for i in crops:
        assert np.ptp(veiled[i].astype(int), axis=2).max() <= 2, "a veiled crop has colour"
        sharp, soft = (cv2.Laplacian(one[i], cv2.CV_64F).var() for one in (clear, veiled))
        assert soft < sharp / 20, "a veiled crop is not blurred"


def test_the_crops_are_those_that_were_scored(examined: Mapping[str, Evidence]) -> None:
    evidence = examined["face-2.mp4"]
    assert evidence.again
    shown = [p for p in pictures(page(evidence, clear=True)) if p.shape == (64, 64, 3)]
    scored = evidence.again.extraction.clips.pixels.reshape(-1, 64, 64, 3)[..., ::-1]
    assert len(shown) == len(scored)
    for mine, given in zip(shown, scored, strict=True):
        away = np.abs(mine.astype(int) - given.astype(int)).mean()
        assert away < 4, f"a crop differs by {away:.1f} grey levels from what was scored"


def test_boxes_of_whole_frames_lie_where_the_row_says(examined: Mapping[str, Evidence]) -> None:
    evidence = examined["face-2.mp4"]
    assert evidence.again
    stills = evidence.again.extraction.stills
    times = [box["t_s"] for track in evidence.row["tracks"] for box in track["boxes"]]
    assert set(np.round(times, 3)) <= set(np.round(stills.times_s, 3)), "a box without the frame it lies in"


def test_a_page_has_no_script_and_asks_for_nothing(examined: Mapping[str, Evidence]) -> None:
    for evidence in examined.values():
        html = page(evidence, clear=True)
        assert "<script" not in html
        assert not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,|#)", html)
        assert " style=" not in html


def test_a_page_of_three_people_stays_small(tmp_path: Path, seeded: Path) -> None:
    (tmp_path / "videos").mkdir()
    actors = [Actor(face_px=130, seed=i, motion=0.3, centre=(0.2 + 0.3 * i, 0.5)) for i in range(3)]
    write_video(tmp_path / "videos" / "three.mp4", film(75, (1280, 720), 25, actors))
    run(scan_settings(tmp_path / "videos", tmp_path / "out", Path("default")), quiet=True)
    evidence = examine(tmp_path / "out", str(tmp_path / "videos" / "three.mp4"))
    assert len(evidence.row["persons"]) == 3
    size = len(page(evidence, clear=True).encode())
    assert size <= 3e6, f"the page has {size / 1e6:.1f} MB"


def test_hostile_names_and_messages_are_text(scanned: Scanned, examined: Mapping[str, Evidence]) -> None:
    for evidence in (examined["face-2.mp4"], examined["text.mp4"]):
        for hostile in HOSTILE:
            row = dict(evidence.row) | {
                "uri": f"/videos/{hostile}", "message": hostile, "codec": hostile, "container": hostile,
                "version": hostile, "extra": [(hostile, hostile)],
            }  # fmt: skip
            made = Evidence(
                row=row, policy=evidence.policy, settings=evidence.settings, versions=evidence.versions,
                weights=evidence.weights, source=evidence.source, again=None, lacking="weights",
            )  # fmt: skip
            html = page(made, clear=False)
            assert not gets_through(html), f"{hostile!r}"


def test_another_policy_judges_the_page_anew(small: tuple[Path, Path], tmp_path: Path) -> None:
    _, output = small
    row = read_rows(output)[0]
    strict = named(replace(POLICY, flag=row["p_fake"] / 2, uncertain=row["p_fake"] / 4, level="video"))
    path = tmp_path / "policy.json"
    policies.write(path, strict, "seeded", row["weights_id"], row["settings_id"])
    wish = report.Wish(keys=[row["video_id"]], policy=str(path))
    written = report.write(str(output), tmp_path / "pages", wish)
    text = text_of(written.files[0].read_text("utf-8"))
    assert "flagged At least one face" in text
    assert strict.policy_id in text
    assert not written.doubts


# --- the command ------------------------------------------------------------------------------------------


def test_report_writes_a_night_its_pages_and_an_archive(
    scanned: Scanned, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    key = str(scanned.videos / "text.mp4")
    done = command(
        "report", scanned.output, "--scan", "latest", "--video", key, "-o", folder, "--zip", "--json"
    )
    assert done.code == 0, done.err
    files = [Path(name) for name in json.loads(done.out)["files"]]
    assert files[0] == folder / "index.html"
    assert files[-1] == tmp_path / "pages.zip"
    pages = {file.name for file in files[1:-1]}
    links = set(re.findall(r'href="([^"#]+)"', files[0].read_text("utf-8")))
    assert links <= pages, "the page of the scan leads to pages that are not there"
    with zipfile.ZipFile(files[-1]) as archive:
        lines = [line.split("  ") for line in archive.read("manifest.sha256").decode().splitlines()]
        listed = {name: digest for digest, name in lines}
        assert set(archive.namelist()) == {*listed, "manifest.sha256"}
        for name, digest in listed.items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
            assert (folder / name).read_bytes() == archive.read(name)


def test_flagged_videos_get_pages_that_the_night_links_to(
    scanned: Scanned, command: Command, tmp_path: Path
) -> None:
    flagged = {r["video_id"] for r in read_rows(scanned.output) if r["verdict"] == "flagged"}
    done = command("report", scanned.output, "--flagged", "-o", tmp_path)
    if not flagged:
        assert done.code == 2
        assert "no video is flagged" in done.err
        return
    assert {Path(line).stem for line in done.out.splitlines()} == flagged


def test_report_says_what_it_wants(scanned: Scanned, command: Command) -> None:
    done = command("report", scanned.output)
    assert done.code == 2
    assert "not given: --video, --flagged or --scan" in done.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s3://bucket/pages", "a folder of this machine"),
        ("{out}", "that is the folder of the table"),
        ("{out}/results/pages", "that is the folder of the table"),
        ("{file}", "is a file"),
        ("{file}/below", "is a file"),
    ],
)
def test_pages_lie_in_a_folder_of_their_own(
    scanned: Scanned, command: Command, tmp_path: Path, name: str, words: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    where = name.format(out=scanned.output, file=file)
    before = sorted(scanned.output.rglob("*"))
    done = command("report", scanned.output, "--scan", "latest", "-o", where)
    assert done.code == 2
    assert words in done.err
    assert sorted(scanned.output.rglob("*")) == before


def test_an_archive_of_the_current_folder_lies_beside_it(
    scanned: Scanned, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    key = str(scanned.videos / "text.mp4")
    assert command("report", scanned.output, "--video", key, "-o", ".", "--zip").code == 0
    assert (tmp_path / "here.zip").is_file()


def test_a_video_is_found_by_the_path_that_the_shell_has(
    scanned: Scanned, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scanned.videos)
    done = command("report", scanned.output, "--video", "text.mp4", "-o", tmp_path)
    assert done.code == 0, done.err


def test_a_disk_that_is_full_leaves_no_parts_and_the_archive_of_before(
    scanned: Scanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pages.zip").write_bytes(b"of before")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    wish = report.Wish(keys=[str(scanned.videos / "text.mp4")], pack=True)
    with pytest.raises(StorageError, match="No space left"):
        report.write(str(scanned.output), tmp_path / "pages", wish)
    assert not list((tmp_path / "pages").iterdir())
    monkeypatch.undo()
    assert (tmp_path / "pages.zip").read_bytes() == b"of before"


NOTHING: dict[str, Any] = dict.fromkeys(
    (
        *("persons", "tracks", "segments", "warnings", "extra", "fps", "width", "duration_s", "rotation"),
        *("container", "policy_today", "weights_id", "windows_planned", "windows_scored", "modified_at"),
        *("p_fake_today", "flag_today", "uncertain_today", "threshold_level", "detector", "engine", "dtype"),
    )
)


@pytest.mark.parametrize(
    "odd",
    [
        NOTHING,
        *({name: None} for name in NOTHING),
        {"persons": [None], "tracks": [None], "segments": [None], "warnings": [None]},
        {"verdict_today": "suspicious", "verdict": "<b>", "status": "half_scored"},
        {"status": "failed", "reason": "\u202enot-known", "message": None},
        {"p_fake_today": float("nan"), "duration_s": float("inf"), "fps": float("nan")},
    ],
    ids=lambda odd: ", ".join(odd)[:40],
)
def test_a_row_that_lacks_something_or_is_of_a_newer_release_has_a_page(
    examined: Mapping[str, Evidence], odd: dict[str, Any]
) -> None:
    for again in (True, False):
        given = examined["two-faces.mp4"]
        made = replace(given, row=dict(given.row) | odd, again=given.again if again else None, policy=None)
        html = page(made, clear=False)
        assert "None" not in text_of(html)
        assert "nan" not in text_of(html).split()
        assert not gets_through(html)


@pytest.mark.parametrize(
    "settings",
    [
        {"all": [1]},
        {"all": "x", "scored_by": "y"},
        {"scored_by": [1, 2]},
        {"scored_by": {"sampling": 3}},
        {"scored_by": {"crop.size": "big", "sampling.frames": None}},
        {"all": {"weights": [1], "max_bytes": {"a": 1}, "price_per_hour": "much"}, "policy": [3]},
    ],
)
def test_settings_that_somebody_else_recorded_end_nothing(
    small: tuple[Path, Path], settings: dict[str, Any], command: Command, tmp_path: Path
) -> None:
    _, output = small
    table = ResultsTable.open(str(output))
    with table.claim("strangers") as claimed:
        row = read_rows(output)[0]
        claimed.append([row | {"scan_id": "strangers", "attempt": 2}])
        started = {"started_at": row["scanned_at"], "settings": json.dumps(settings)}
        claimed.record_scan("start", started | {"weights_id": row["weights_id"]})
    done = command("report", output, "--scan", "strangers", "--video", row["video_id"], "-o", tmp_path / "p")
    assert done.code == 0, done.err


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_browser_finds_nothing_wrong_with_pages_of_evidence(
    examined: Mapping[str, Evidence], tmp_path: Path
) -> None:
    with chromium() as browser:
        for name in ("two-faces.mp4", "text.mp4", "face-too-small.mp4", "no-face.mp4"):
            file = tmp_path / f"{name}.html"
            file.write_text(page(examined[name], clear=True), "utf-8")
            for scheme in ("light", "dark"):
                tab = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
                asked = _asked(tab)
                tab.goto(file.as_uri())
                assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
                for width in (360, 1280, 3840):
                    tab.set_viewport_size({"width": width, "height": 740})
                    assert tab.evaluate("document.documentElement.scrollWidth") <= width, f"{name} at {width}"
                assert faults(tab) == [], name


def _asked(tab: Page) -> list[str]:
    found: list[str] = []

    def note(request: Request) -> None:
        found.append(request.url)

    tab.on("request", note)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_labelled_video_is_scored_again_to_a_ten_thousandth(shared_data: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for kind in ("faces", "fake"):
        shutil.copytree(shared_data / "videos" / kind, videos / kind, copy_function=os.symlink)
    settings = scan_settings(videos, tmp_path / "out", Path("default"))
    run(settings, quiet=True)
    differences: dict[str, float] = {}
    with query.connect(settings.output or "") as connection, Equipment() as equipment:
        examiner = Examiner(connection, equipment)
        for row in read_rows(tmp_path / "out"):
            if row["status"] == "scored":
                evidence: Any = examiner.examine(examiner.find(row["video_id"]))
                differences[Path(row["uri"]).name] = evidence.difference
    print(f"{len(differences)} videos, the largest difference {max(differences.values()):.1e}")
    assert len(differences) >= 50
    assert max(differences.values()) <= 1e-4, differences
