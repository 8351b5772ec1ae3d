"""Evidence: the source looked at once more, and the page that says what a verdict rests on."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, Request

from detector.errors import InputError
from detector.evaluation.calibration import named
from detector.types import Reason
from jobs import policies, query, report
from jobs.config import options_of, settings_id, settings_words
from jobs.equipment import Equipment
from jobs.evidence import Evidence, Examiner
from jobs.evidence_page import page
from jobs.page import strings
from jobs.scan import run
from tests.browser import chromium, faults
from tests.conftest import Scanned
from tests.film import Actor, film, moving_face
from tests.hostile_names import HOSTILE, gets_through
from tests.media import write_video
from tests.pages import pictures, text_of
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


def test_a_page_of_many_people_begins_with_a_list_of_them(examined: Mapping[str, Evidence]) -> None:
    evidence = examined["two-faces.mp4"]
    first = evidence.row["persons"][0]
    several = [first | {"person_id": number, "p_fake": number / 10} for number in range(5)]
    html = page(replace(evidence, row=evidence.row | {"persons": several}), clear=True)
    assert re.findall(r'href="#person-(\d)"', html) == list("43210"), "all of them, the highest score first"
    assert re.findall(r'id="person-(\d)"', html) == list("43210")
    assert "#person-" not in page(evidence, clear=True), "two need no list"


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
