"""The review page in a real browser: keys, boxes, bands, decisions, two people, a server that is killed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from jobs import query
from jobs.review.decisions import Decision, Reviews
from tests.browser import complaints_of, faults
from tests.reviewing import HOSTILE, Served, make_output, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTLED_MS = 700
SAME = 1.5  # px on the screen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, seeded: Path) -> Path:
    return make_output(tmp_path_factory.mktemp("review"), seeded)


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy of the tables, in which nothing is decided; the videos lie where they were scanned."""
    return shutil.copytree(made, tmp_path / "out")


@pytest.fixture
def server(output: Path, tmp_path: Path) -> Iterator[Served]:
    with served(output, tmp_path / "log") as running:
        yield running


@dataclass
class Visitor:
    """Somebody at a browser of their own, and all that the browser complained of."""

    page: Page
    context: BrowserContext
    complaints: list[str]

    def ready(self) -> None:
        """Wait until the page of a video answers keys, decisions too."""
        expect(self.page.locator("#time")).to_have_text(
            re.compile(r"^0\.0 s / [\d.:]+( s)?$"), timeout=20_000
        )
        self.page.wait_for_timeout(SETTLED_MS)

    def arrives(self, title: str) -> None:
        """Wait for the page of another video."""
        expect(self.page.locator("h1")).to_contain_text(title, timeout=20_000)

    def title(self) -> str:
        return self.page.inner_text("h1")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def at(self, seconds: float) -> None:
        """Go to a time of the video, and wait for its picture."""
        self.page.evaluate(
            """t => new Promise(done => {
                const video = document.querySelector("video");
                video.addEventListener("seeked", () => setTimeout(done, 100), { once: true });
                video.currentTime = t;
            })""",
            seconds,
        )

    def boxes(self) -> list[list[float]]:
        """Boxes that are drawn, as fractions of the picture, in the order of the row's tracks."""
        found: list[list[float]] = self.page.evaluate(
            """() => {
                const video = document.querySelector("video"), frame = video.getBoundingClientRect();
                const scale = Math.min(frame.width / video.videoWidth, frame.height / video.videoHeight);
                const w = video.videoWidth * scale, h = video.videoHeight * scale;
                const left = frame.left + (frame.width - w) / 2, top = frame.top + (frame.height - h) / 2;
                return [...document.querySelectorAll("#boxes .box")].map(box => {
                    const at = box.getBoundingClientRect();
                    return [(at.left - left) / w, (at.top - top) / h, at.width / w, at.height / h];
                });
            }"""
        )
        return found

    def video(self, name: str) -> Any:
        return self.page.evaluate(f"document.querySelector('video').{name}")


@contextmanager
def visitor(browser: Browser, server: Served, name: str, **options: Any) -> Iterator[Visitor]:
    """Somebody who opened the printed address and gave a name."""
    context = browser.new_context(**options)
    page = context.new_page()
    somebody = Visitor(page, context, complaints_of(page))
    page.goto(server.url)
    assert page.url == f"{server.base}/who", "the token is gone from the address"
    page.fill("#who", name)
    page.keyboard.press("Enter")
    somebody.ready()
    try:
        yield somebody
        assert somebody.complaints == []
    finally:
        context.close()


def row(output: Path, name: str) -> dict[str, Any]:
    with query.connect(str(output)) as connection:
        rows = query.sql(connection, "SELECT * FROM latest").to_pylist()
    return next(found for found in rows if Path(found["uri"]).name == name)


def test_boxes_lie_where_the_row_says_and_nowhere_else(
    browser: Browser, server: Served, output: Path
) -> None:
    checked = 0
    with visitor(browser, server, "ann") as ann:
        for name in (HOSTILE, "blended.mp4", "upright.mp4"):
            found = row(output, name)
            ann.page.goto(f"{server.base}/videos/{found['video_id']}")
            ann.ready()
            tracks = found["tracks"]
            for track in tracks[: 2 * len(found["persons"])]:
                for box in track["boxes"][::4]:
                    ann.at(box["t_s"] + 0.001)
                    wanted = [[box[side] for side in ("x", "y", "w", "h")]]
                    drawn = ann.boxes()
                    near = [d for d in drawn if d == pytest.approx(wanted[0], abs=0.01)]
                    assert len(near) == 1, f"{name} at {box['t_s']} s: {drawn}, not {wanted[0]}"
                    checked += 1
            one = tracks[0]
            first, second = one["boxes"][:2]
            ann.at((first["t_s"] + second["t_s"]) / 2)
            low, high = sorted((first["x"], second["x"]))
            assert any(low - 0.01 <= drawn[0] <= high + 0.01 for drawn in ann.boxes()), "between two samples"
            ends = [track["end_s"] for track in tracks]
            starts = [track["start_s"] for track in tracks]
            for seconds in (min(starts) - 0.2, max(ends) + 0.2):
                ann.at(seconds)
                assert ann.boxes() == [], f"{name} at {seconds} s, where nothing was looked at"
                assert "not looked at" in ann.page.inner_text("#here")
    assert checked >= 12


def test_every_key_does_what_its_button_says(browser: Browser, server: Served, output: Path) -> None:
    segments = sorted(segment["start_s"] for segment in row(output, HOSTILE)["segments"])
    with visitor(browser, server, "ann") as ann:
        page = ann.page
        assert ann.title().startswith("two <b>faces<script>alert(1)&\"quotes' \\u202egpj.mp4")
        assert ann.video("paused"), "playback never starts by itself"
        assert ann.video("muted")
        assert page.get_attribute("#screen", "class") == "blurred grey"
        ann.press("b")
        assert page.get_attribute("#screen", "class") == "grey"
        ann.press("g", "m")
        assert (page.get_attribute("#screen", "class"), ann.video("muted")) == ("", False)
        ann.press("b", "g", "m")
        assert page.get_attribute("#screen", "class") == "blurred grey"
        ann.press("Space")
        expect(page.locator("#time")).not_to_have_text(re.compile(r"^0\.0 s"), timeout=10_000)
        ann.press("Space")
        assert ann.video("paused")
        ann.at(0)
        for target in (*segments, segments[-1]):
            ann.press("]")
            page.wait_for_timeout(150)
            assert ann.video("currentTime") == pytest.approx(target, abs=0.05)
        ann.press("[")
        page.wait_for_timeout(150)
        assert ann.video("currentTime") == pytest.approx(segments[-2], abs=0.05)
        ann.press(">", ">", "<")
        assert (ann.video("playbackRate"), page.inner_text("#speed")) == (1.25, "1.25\u00d7")


def test_keys_are_left_alone_where_they_mean_something_else(
    browser: Browser, server: Served, output: Path
) -> None:
    with visitor(browser, server, "ann") as ann:
        page = ann.page
        ann.press("Control+b", "Alt+f", "Meta+r")
        assert page.get_attribute("#screen", "class") == "blurred grey", "keys with modifiers are not ours"
        page.focus("#note")
        page.keyboard.type("fuzzy jaw")
        assert (page.input_value("#note"), page.url.endswith("/")) == ("fuzzy jaw", False)
        page.evaluate("document.activeElement.blur()")
        ann.press("?")
        expect(page.locator("#help")).to_be_visible()
        assert page.locator("#help tr").count() == 16
        ann.press("f")  # not while the help is open
        ann.press("Escape")
        expect(page.locator("#help")).to_be_hidden()
        visible = {key.get_attribute("data-key") for key in page.locator("[data-key]:visible").all()}
        listed = set(page.locator("#help kbd").all_text_contents())
        assert visible == listed, "every key has a button, and the help lists it"
    assert Reviews(str(output)).rows() == []


def test_keys_lead_from_video_to_video(browser: Browser, server: Served, output: Path) -> None:
    with visitor(browser, server, "ann") as ann:
        ann.press("f")
        ann.arrives("blended.mp4")
        ann.press("f")  # held too long, or pressed twice: not meant for this video
        ann.ready()
        assert ann.title() == "blended.mp4"
        ann.press("z")
        ann.arrives("two")
        ann.ready()
        ann.press("j")
        ann.arrives("blended.mp4")
        ann.ready()
        ann.press("k")
        ann.arrives("two")
        ann.ready()
        ann.press("s")
        ann.arrives("blended.mp4")
    assert [one["decision"] for one in Reviews(str(output)).rows()] == ["fake", "undone"]


def test_a_click_on_the_band_or_an_arrow_seeks(browser: Browser, server: Served) -> None:
    with visitor(browser, server, "ann") as ann:
        band = ann.page.locator(".seek svg").first
        place, length = band.bounding_box(), float(band.get_attribute("data-length-s") or 0)
        assert place is not None
        band.click(position={"x": place["width"] * 0.6, "y": 10})
        ann.page.wait_for_timeout(200)
        assert ann.video("currentTime") == pytest.approx(0.6 * length, abs=0.05)
        slider = ann.page.locator(".seek").first
        slider.focus()
        ann.press("ArrowLeft", "Shift+ArrowLeft")
        ann.page.wait_for_timeout(200)
        assert ann.video("currentTime") == pytest.approx(0.6 * length - 1.1, abs=0.1)
        assert float(slider.get_attribute("aria-valuenow") or 0) == pytest.approx(0.6 * length - 1.1, abs=0.1)
        ann.press("Home")
        ann.page.wait_for_timeout(200)
        assert ann.video("currentTime") == 0


def test_a_decision_its_undo_and_a_server_that_is_killed(
    browser: Browser, output: Path, tmp_path: Path
) -> None:
    with served(output, tmp_path / "log") as server, visitor(browser, server, "ann") as ann:
        ann.press("]", "b", "Space")
        ann.page.wait_for_timeout(1200)
        ann.press("Space")
        ann.page.fill("#note", "the jaw flickers")
        ann.page.evaluate("document.activeElement.blur()")
        ann.press("f")
        ann.arrives("blended.mp4")
        [decided] = Reviews(str(output)).rows()
        assert (decided["decision"], decided["note"], decided["who"]) == ("fake", "the jaw flickers", "ann")
        seen = json.loads(decided["shown"])
        assert (seen["blurred"], seen["grey"], seen["muted"], seen["preview"]) == (False, True, True, False)
        assert seen["segments"][0] == 0
        assert 0.5 < seen["played_s"] < 2.5
        assert 0.5 < seen["clear_s"] <= seen["played_s"]
        ann.ready()
        ann.press("r")
        ann.arrives("upright.mp4")
        ann.ready()
        ann.press("z")
        ann.arrives("blended.mp4")
        server.process.kill()
    with served(output, tmp_path / "log") as server, visitor(browser, server, "ann") as ann:
        assert ann.title() == "blended.mp4", "what was decided stays decided, and what was undone waits"
        ann.press("u")
        ann.arrives("upright.mp4")
    found = [(one["decision"], Path(one["uri"]).name) for one in Reviews(str(output)).rows()]
    assert found == [
        ("fake", HOSTILE),
        ("real", "blended.mp4"),
        ("undone", "blended.mp4"),
        ("unsure", "blended.mp4"),
    ]


def test_a_second_browser_does_not_get_what_the_first_holds(browser: Browser, server: Served) -> None:
    with visitor(browser, server, "ann") as ann:
        with visitor(browser, server, "bob") as bob:
            assert (ann.title()[:3], bob.title()) == ("two", "blended.mp4")
            bob.page.goto(ann.page.url)
            bob.ready()
            assert "ann is looking at this video now" in bob.page.inner_text("#lease")
            bob.press("f")
            bob.page.wait_for_timeout(300)
            assert bob.title() == ann.title(), "nothing was decided"
            bob.page.close()
        with visitor(browser, server, "eve") as eve:
            assert eve.title() == "blended.mp4", "bob left it"


def test_what_is_refused_is_told_beside_the_note(browser: Browser, server: Served, output: Path) -> None:
    with visitor(browser, server, "ann") as ann:
        ann.page.fill("#note", "mine")
        Reviews(str(output)).add(row(output, HOSTILE), "bob", Decision.REAL)
        ann.page.click("[data-key=f]")
        expect(ann.page.locator("#said")).to_contain_text("decided or scored anew")
        assert ann.page.input_value("#note") == "mine"
        ann.complaints[:] = [text for text in ann.complaints if "409" not in text]
    assert [one["who"] for one in Reviews(str(output)).rows()] == ["bob"]


def test_it_blurs_again_when_the_page_is_out_of_sight(browser: Browser, server: Served) -> None:
    with visitor(browser, server, "ann") as ann:
        ann.press("b", "g", "m", "Space")
        ann.page.evaluate(
            """() => {
                Object.defineProperty(document, "hidden", { value: true, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }"""
        )
        assert ann.page.get_attribute("#screen", "class").split() == ["blurred", "grey"]  # type: ignore[union-attr]
        assert (ann.video("muted"), ann.video("paused")) == (True, True)


def test_what_the_browser_cannot_play_is_asked_for_as_a_preview(
    browser: Browser, server: Served, output: Path
) -> None:
    with visitor(browser, server, "ann") as ann:
        ann.page.goto(f"{server.base}/videos/{row(output, 'old.avi')['video_id']}")
        trouble = ann.page.locator("#trouble")
        expect(trouble).to_contain_text(re.compile("preview", re.IGNORECASE), timeout=10_000)
        Path(row(output, "calm.mp4")["uri"]).touch()
        ann.page.goto(f"{server.base}/videos/{row(output, 'calm.mp4')['video_id']}")
        expect(trouble).to_contain_text("no longer there", timeout=10_000)
        ann.complaints[:] = [text for text in ann.complaints if "Failed to load resource" not in text]


@pytest.mark.parametrize("options", [
    {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
    {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    {"viewport": {"width": 3840, "height": 2160}, "color_scheme": "dark"},
], ids=["phone", "laptop", "4k"])  # fmt: skip
def test_pages_are_fit_for_everybody(browser: Browser, server: Served, options: Any) -> None:
    with visitor(browser, server, "ann", **options) as ann:
        page = ann.page
        pages: dict[str, Callable[[], Any]] = {
            "video": lambda: None,
            "help": lambda: ann.press("?"),
            "who": lambda: page.goto(f"{server.base}/who"),
            "refused": lambda: page.goto(f"{server.base}/nothing"),
        }
        for name, go in pages.items():
            go()
            assert faults(page) == [], name
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= options["viewport"]["width"], f"{name} is wider than the screen"
        ann.complaints[:] = [text for text in ann.complaints if "404" not in text]


def test_without_script_a_decision_can_be_made(browser: Browser, server: Served, output: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(server.url)
    page.fill("#who", "ann")
    page.click("button")
    page.click("button[value=unsure]")
    assert page.inner_text("h1") == "blended.mp4"
    context.close()
    [decided] = Reviews(str(output)).rows()
    assert (decided["decision"], decided["shown"]) == ("unsure", None)
