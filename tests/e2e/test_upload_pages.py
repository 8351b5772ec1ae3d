"""Pages of an upload in a real browser: hostile names, every screen, whose result it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from jobs.page import strings
from jobs.schema import printable
from tests.browser import faults
from tests.e2e.guests import Watched, guest, text_file
from tests.hostile_names import HOSTILE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORDS: dict[str, Any] = strings()["upload"]


def test_hostile_names_are_text_everywhere(
    browser: Browser, server: Watched, clip: Path, small: Path
) -> None:
    content = small.read_bytes()
    with guest(browser, server, viewport={"width": 360, "height": 740}) as ann:
        for start in range(0, len(HOSTILE), 6):
            blocker, pages = ann.sends(clip, "thorough"), []
            for name in HOSTILE[start : start + 6]:
                pages.append((name, ann.sends(text_file(name, content), "fast")))
                _is_text(ann.page, "h1", name)
                ann.opens()
                ann.chooses(text_file(name, content))
                _is_text(ann.page, "#chosen", name)
            ann.page.goto(blocker)
            if ann.page.locator("#state button").count():
                ann.page.click("#state button")
            for name, address in pages:
                ann.page.goto(address)
                ann.result()
                _is_text(ann.page, "h1", name.rsplit("/", 1)[-1])
    server.idle()


def _is_text(page: Page, selector: str, name: str) -> None:
    """A name stands there as it is, spelled out, and nothing of it ran or broke the page."""
    shown = " ".join(page.inner_text(selector).split())
    wanted = " ".join(printable(name)[:1000].split())
    assert wanted in shown, f"{wanted[:80]!r} is shown as {shown[:80]!r}"
    assert page.title() not in ("owned", "1"), f"{name[:80]!r} ran"
    assert page.locator("main script, main img[src=x], main svg[onload], h1 h1").count() == 0, name[:80]
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, f"{name[:80]!r} makes the page {width} px wide"


SCREENS: Sequence[Any] = [
    pytest.param({"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}, id="phone"),
    pytest.param({"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}, id="laptop"),
    pytest.param({"viewport": {"width": 3840, "height": 2160}, "color_scheme": "dark"}, id="4k"),
]


@pytest.mark.parametrize("options", SCREENS)
def test_pages_are_fit_for_everybody(
    browser: Browser, server: Watched, clip: Path, small: Path, options: Any
) -> None:
    with guest(browser, server, **options) as ann:
        page = ann.page

        def waiting() -> None:
            for _ in range(4):  # before it, so that the page stands still
                ann.sends(clip, "thorough")
            expect(page.locator(".stages")).to_be_visible()

        def cancelled() -> None:
            page.click("#state button")
            expect(page.locator("#state")).to_have_text(WORDS["gone"])

        def result(file: Path | FilePayload) -> None:
            ann.sends(file)
            ann.result()

        def queue() -> None:
            page.fill("#who", "ann")
            page.keyboard.press("Enter")
            expect(page.locator("h1")).to_have_text(strings()["review"]["no_video"])

        pages: dict[str, Callable[[], Any]] = {
            "chosen": lambda: ann.chooses(clip),
            "waiting": waiting,
            "cancelled": cancelled,
            "result": lambda: result(small),
            "clear result": lambda: page.goto(f"{page.url}?clear=true"),
            "failed": lambda: result(text_file("note.mp4", b"Dear all,\n" * 99)),
            "refused": lambda: page.goto(f"{ann.base}/uploads/{'0' * 16}"),
            "who": lambda: page.goto(f"{ann.base}/who"),
            "empty queue": queue,
        }
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert faults(page) == [], f"upload page, {scheme}"
        for name, go in pages.items():
            go()
            assert faults(page) == [], name
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= options["viewport"]["width"], f"{name} is wider than the screen"
        ann.forgives("404")


def test_another_browser_does_not_see_the_result(browser: Browser, server: Watched, small: Path) -> None:
    with guest(browser, server) as ann, guest(browser, server) as bob:
        address = ann.sends(small)
        ann.result()
        bob.page.goto(address)
        expect(bob.page.locator("main")).to_contain_text(WORDS["forgotten"])
        assert "p_fake" not in bob.page.inner_text("main")
        bob.forgives("404")
        ann.page.reload()
        ann.result()
