"""What the review page shows of a film: boxes on the faces, a small film of an old one, the evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from detector.faces import load
from tests.browser import complaints_of
from tests.e2e.test_review import Visitor, row, visitor
from tests.pages import pictures
from tests.reviewing import HOSTILE, Served, make_output, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, seeded: Path) -> Path:
    return make_output(tmp_path_factory.mktemp("films"), seeded)


@pytest.fixture(scope="module")
def server(output: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(output, tmp_path_factory.mktemp("server") / "log") as running:
        yield running


def test_boxes_lie_on_faces(browser: Browser, server: Served, output: Path) -> None:
    found = row(output, "blended.mp4")
    times = sorted({box["t_s"] for track in found["tracks"] for box in track["boxes"]})
    assert len(times) >= 10
    look, away = load("yunet"), []
    with visitor(browser, server, "ann", viewport={"width": 1280, "height": 900}) as ann:
        ann.page.goto(f"{server.base}/videos/{found['video_id']}")
        ann.ready()
        ann.press("b", "g")
        for t_s in times:
            ann.at(t_s + 0.001)
            (x, y, w, h) = ann.boxes()[0]
            faces = look(_picture(ann), True)
            assert len(faces) == 1, f"YuNet sees {len(faces)} faces in the player at {t_s} s"
            width, height = _size(ann)
            face = faces[0]
            across = abs(x + w / 2 - (face.x + face.w / 2) / width)
            along = abs(y + h / 2 - (face.y + face.h / 2) / height) * height / width
            away.append(float(np.hypot(across, along)))
    print(f"box to face, shares of the width at {len(away)} times: {[round(one, 4) for one in away]}")
    assert sum(one <= 0.1 for one in away) >= 0.9 * len(away), away


def _picture(ann: Visitor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The player as it is on the screen, without boxes and controls, RGB."""
    ann.page.evaluate("""() => {
        document.getElementById("boxes").style.visibility = "hidden";
        document.querySelector("video").controls = false;
    }""")
    png = ann.page.locator("#screen").screenshot()
    ann.page.evaluate("document.getElementById('boxes').style.visibility = ''")
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _size(ann: Visitor) -> tuple[float, float]:
    place = ann.page.locator("#screen").bounding_box()
    assert place is not None
    return place["width"], place["height"]


def test_a_film_that_no_browser_plays_is_shown_small_with_its_boxes(
    browser: Browser, server: Served, output: Path
) -> None:
    found = row(output, "old.avi")
    with visitor(browser, server, "ann") as ann:
        ann.page.goto(f"{server.base}/videos/{found['video_id']}")
        expect(ann.page.locator("#trouble")).to_contain_text("A small preview of it is shown", timeout=30_000)
        ann.ready()
        assert ann.video("videoWidth") > 0, "the preview does not play"
        assert ann.video("duration") == pytest.approx(found["duration_s"], abs=0.2)
        look, checked = load("yunet"), 0
        ann.press("b", "g")
        # The small film has 12 pictures a second: the one that is shown may be that much older, and its box.
        for track in found["tracks"]:
            for box in track["boxes"][1::3]:
                ann.at(box["t_s"] + 0.001)
                wanted = [box[side] for side in ("x", "y", "w", "h")]
                drawn = ann.boxes()
                assert drawn == [pytest.approx(wanted, abs=0.04)], f"at {box['t_s']} s: {drawn}, not {wanted}"
                [face] = look(_picture(ann), True)
                centre = (face.x + face.w / 2) / _size(ann)[0]
                assert centre == pytest.approx(drawn[0][0] + drawn[0][2] / 2, abs=0.04), f"at {box['t_s']} s"
                checked += 1
        assert checked >= 6
        ann.complaints[:] = [text for text in ann.complaints if "Failed to load resource" not in text]


def test_evidence_of_a_video_of_the_table_veiled_and_clear(
    browser: Browser, output: Path, tmp_path: Path
) -> None:
    scanned = output.parent / "scanned"  # whose scores are those of its weights
    found = row(scanned, HOSTILE)
    with served(scanned, tmp_path / "log", "--user", "ann") as server:
        page = browser.new_page()
        complaints = complaints_of(page)
        page.goto(server.url)
        page.goto(f"{server.base}/videos/{found['video_id']}")
        page.get_by_role("link", name="Evidence page").click()
        page.wait_for_url(re.compile(r"/evidence$"), timeout=60_000)
        text = page.inner_text("main")
        for known in (found["video_id"], f"p_fake {found['p_fake']:.3f}", "The score came out the same"):
            assert known in text, f"the page lacks {known}"
        veiled = pictures(page.content())
        page.click("[href$='?clear=true']")
        page.wait_for_url(re.compile(r"clear=true$"), timeout=60_000)
        clear = pictures(page.content())
        assert len(clear) == len(veiled) >= 40, "two people, two windows of ten frames each"
        colour = [[np.ptp(one.astype(int), axis=2).max() for one in some[:20]] for some in (veiled, clear)]
        assert max(colour[0]) <= 2, "a veiled picture has colour"
        assert min(colour[1]) > 20, "a clear picture is grey"
        page.click("nav a")
        expect(page.locator("h1")).to_contain_text("two <b>faces")
        page.context.close()
    assert complaints == []
