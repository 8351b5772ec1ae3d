"""Somebody on the upload page in a real browser, and a server that is watched for what it leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect

from tests.browser import complaints_of
from tests.reviewing import Served, served
from tests.waiting import wait_for

SLOW_BYTES_S = 60_000
JUDGED_MS = 60_000
RESULT = re.compile(
    "At least one face|A face in this video|No face that was looked at|This video has no score"
)

# Every text that the page says on the way, kept over the change of the page.
_LISTEN = """new MutationObserver(() => {
    const said = JSON.parse(sessionStorage.said || "[]");
    for (const element of document.querySelectorAll("#said, [aria-current]")) {
        const text = element.textContent.trim();
        if (text && text !== said.at(-1)) said.push(text);
    }
    sessionStorage.said = JSON.stringify(said);
}).observe(document, { subtree: true, childList: true, characterData: true });"""


@dataclass(frozen=True)
class Watched:
    """A server and the folder in which its temporary files would lie."""

    served: Served
    folder: Path

    def traces(self) -> list[str]:
        """What there is of uploads: open files without a name, files with one, processes that decode."""
        server = psutil.Process(self.served.process.pid)
        decoding = [str(child) for helper in server.children() for child in helper.children()]
        files = [link for one in (server, *server.children(recursive=True)) for link in _nameless(one.pid)]
        return [*decoding, *files, *map(str, self.folder.iterdir())]

    def idle(self) -> None:
        """Wait until nothing is left."""
        wait_for("an end of all traces", lambda: self.traces() == [], 30)


def _nameless(pid: int) -> list[str]:
    links = []
    with suppress(FileNotFoundError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                links.append(str(descriptor.readlink()))
    return [link for link in links if link.endswith("(deleted)") and not link.startswith("/memfd:")]


@contextmanager
def watched(output: Path, folder: Path, *words: str) -> Iterator[Watched]:
    temporary = folder / "temporary"
    temporary.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "torch"))  # importing torch makes it
        with served(output, folder / "log", *words) as running:
            yield Watched(running, temporary)


@dataclass
class Guest:
    """Somebody on the upload page, and all that the browser complained of."""

    page: Page
    context: BrowserContext
    base: str
    complaints: list[str]

    def opens(self) -> None:
        """Open the upload page afresh."""
        self.page.goto(f"{self.base}/upload")

    def chooses(self, file: Path | FilePayload) -> None:
        self.page.set_input_files("#file", file)

    def sends(self, file: Path | FilePayload, profile: str = "balanced") -> str:
        """Send a file; the address of its page."""
        self.opens()
        self.chooses(file)
        self.page.check(f"[name=profile][value={profile}]")
        self.page.click("#start")
        self.page.wait_for_url(re.compile(r"/uploads/[0-9a-f]{16}$"), timeout=JUDGED_MS)
        return self.page.url

    def result(self) -> None:
        """Wait for the verdict."""
        expect(self.page.get_by_text(RESULT).first).to_be_visible(timeout=JUDGED_MS)
        self.page.wait_for_load_state()  # without its style the page has another width

    def said(self) -> list[str]:
        """What the page said on the way, in order."""
        found: list[str] = json.loads(self.page.evaluate("sessionStorage.said || '[]'"))
        return found

    def tabs_to(self, selector: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(40):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"the keyboard does not reach {selector}")

    def slowly(self, bytes_s: int = SLOW_BYTES_S) -> None:
        """Send at so many bytes a second from now on; -1: at any speed."""
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        session.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_s},
        )

    def forgives(self, text: str) -> None:
        """Drop complaints that the test asked for; there has to be one."""
        kept = [one for one in self.complaints if text not in one]
        assert len(kept) < len(self.complaints), f"no complaint of {text}: {self.complaints}"
        self.complaints[:] = kept


@contextmanager
def guest(browser: Browser, running: Watched, **options: Any) -> Iterator[Guest]:
    """Somebody who opened the printed address, and went to the upload page."""
    context = browser.new_context(**options)
    context.add_init_script(_LISTEN)
    page = context.new_page()
    somebody = Guest(page, context, running.served.base, complaints_of(page))
    page.goto(running.served.url)
    somebody.opens()
    try:
        yield somebody
        assert somebody.complaints == []
    finally:
        context.close()


def text_file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "", "buffer": content}
