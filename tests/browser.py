"""A real browser for the tests of pages: Debian's Chromium through Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, sync_playwright

_GRAVE = ("serious", "critical")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, without a window; tests that use it are `slow`."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        # Without its own sandbox, because tests may run as root in a container; they open pages of ours only.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def complaints_of(page: Page) -> list[str]:
    """Grows by what the browser says on the console, by errors of scripts, and by dialogs."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("dialog", lambda dialog: found.append(f"dialog: {dialog.message}"))
    return found


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical on the page as it is now: rule, places, what to do."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}): {node['target']}: {node['failureSummary']}"
        for fault in found
        if fault["impact"] in _GRAVE
        for node in fault["nodes"]
    ]
