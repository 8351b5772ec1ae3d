"""The upload page in a real browser: sent, watched, cancelled, killed, refused in words, and nothing left."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect

from jobs.page import strings
from jobs.schema import printable
from jobs.table import ResultsTable
from tests.browser import chromium, faults
from tests.film import Actor, film, moving_face
from tests.jobs.samples import sample_row
from tests.jobs.test_evidence import pictures
from tests.jobs.test_night import HOSTILE
from tests.media import cut_off, write_video
from tests.reviewing import Served, served
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WORDS: dict[str, Any] = strings()["upload"]
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of a face in 720p."""
    frames = film(250, (1280, 720), 25, [Actor(face_px=220, seed=4)])
    return write_video(tmp_path_factory.mktemp("clip") / "my holiday.mp4", frames)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = moving_face(30, (320, 240), face_px=90, seed=5)
    return write_video(tmp_path_factory.mktemp("small") / "face.mp4", frames)


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
        with served(output, folder / "log", *words) as running:
            yield Watched(running, temporary)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in which nothing waits."""
    path = tmp_path_factory.mktemp("table") / "out"
    with ResultsTable.create(str(path)).claim("one") as table:
        table.append([sample_row() | {"p_fake": 0.1, "verdict": "not_flagged"}])
    return path


@pytest.fixture(scope="module")
def server(output: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(output, tmp_path_factory.mktemp("server")) as running:
        yield running


@dataclass
class Guest:
    """Somebody on the upload page, and all that the browser complained of."""

    page: Page
    context: BrowserContext
    base: str
    complaints: list[str] = field(default_factory=list)

    def opens(self) -> None:
        """Open the upload page afresh."""
        self.page.goto(f"{self.base}/upload")

    def chooses(self, *files: Path | FilePayload) -> None:
        self.page.set_input_files("#file", files)  # type: ignore[arg-type]

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
    somebody = Guest(page, context, running.served.base)
    page.on("console", lambda message: somebody.complaints.append(message.text))
    page.on("pageerror", lambda error: somebody.complaints.append(str(error)))
    page.on("dialog", lambda dialog: somebody.complaints.append(f"dialog: {dialog.message}"))
    page.goto(running.served.url)
    somebody.opens()
    try:
        yield somebody
        assert somebody.complaints == []
    finally:
        context.close()


def text_file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "", "buffer": content}


def test_from_a_file_to_its_verdict_by_keyboard_alone(browser: Browser, server: Watched, clip: Path) -> None:
    with guest(browser, server) as ann:
        page = ann.page
        ann.tabs_to("#file")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(clip)
        expect(page.locator("#chosen")).to_contain_text("my holiday.mp4")
        expect(page.locator("#preview")).to_be_visible()
        page.evaluate("document.getElementById('player').play()")
        wait_for(
            "the preview to play", lambda: page.evaluate("document.getElementById('player').currentTime")
        )
        ann.tabs_to("[name=profile]")
        page.keyboard.press("ArrowDown")
        assert page.is_checked("[value=thorough]")
        page.keyboard.press("ArrowUp")
        assert page.is_checked("[value=balanced]")
        ann.tabs_to("#start")
        ann.slowly(200_000)
        page.keyboard.press("Enter")
        expect(page.locator("#progress")).to_be_visible()
        ann.result()
        said = ann.said()
        percents = [int(number) for text in said for number in re.findall(r"^Sending: (\d+) %", text)]
        assert len(set(percents)) >= 2, f"no progress while sending: {said}"
        assert percents == sorted(percents)
        stages = [stage for stage in WORDS["stages"].values() if any(one.startswith(stage) for one in said)]
        assert WORDS["stages"]["decoding"] in stages, f"no progress by stage: {said}"
        veiled = pictures(page.content())
        assert len(veiled) >= 20
        assert all(np.ptp(one.astype(int), axis=2).max() <= 2 for one in veiled[:10]), "a picture has colour"
        ann.tabs_to("[href$='?clear=true']")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"clear=true$"))
        clear = pictures(page.content())
        assert len(clear) == len(veiled)
        assert all(np.ptp(one.astype(int), axis=2).max() > 20 for one in clear[:10]), "no picture is clear"
    server.idle()


def test_a_file_that_is_dropped_is_sent(browser: Browser, server: Watched, small: Path) -> None:
    with guest(browser, server) as ann:
        ann.page.evaluate(
            """bytes => {
                const held = new DataTransfer();
                held.items.add(new File([new Uint8Array(bytes)], "dropped.mp4", { type: "video/mp4" }));
                for (const kind of ["dragover", "drop"]) {
                    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: held, bubbles: true }));
                }
            }""",
            list(small.read_bytes()),
        )
        expect(ann.page.locator("#chosen")).to_contain_text("dropped.mp4")
        assert ann.page.get_attribute("#upload", "class") == "panel", "it still looks as if something hovered"
        ann.page.click("#start")
        ann.result()
        assert ann.page.inner_text("h1") == "dropped.mp4"


def test_what_the_browser_can_tell_is_said_before_anything_is_sent(browser: Browser, server: Watched) -> None:
    with guest(browser, server) as ann:
        page, sent = ann.page, []
        page.on("request", lambda request: sent.append(request.url))
        wrong = page.locator("#wrong")
        page.click("#start")
        expect(wrong).to_have_text(WORDS["nothing"])
        ann.chooses(text_file("nothing.mp4", b""))
        expect(wrong).to_have_text(WORDS["empty_file"])
        page.click("#start")
        page.evaluate(
            """() => {
                const file = new File(["x"], "huge.mp4", { type: "video/mp4" });
                Object.defineProperty(file, "size", { value: 6e9 });
                const event = new DragEvent("drop", { bubbles: true });
                Object.defineProperty(event, "dataTransfer", { value: { files: [file] } });
                document.body.dispatchEvent(event);
            }"""
        )
        expect(wrong).to_contain_text("This file has 6.0 GB; at most")
        page.click("#start")
        ann.chooses(text_file("letter.docx", b"PK\x03\x04"))
        expect(page.locator("#said")).to_have_text(WORDS["doubtful"])
        expect(wrong).to_have_text("")
        expect(page.locator("#preview-words")).to_have_text(WORDS["no_preview"])
        assert [url for url in sent if "/uploads" in url] == [], "it was sent all the same"


def test_what_is_no_good_video_is_told_in_words(
    browser: Browser, server: Watched, small: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(small.read_bytes())
    cut_off(broken, 0.6)
    with guest(browser, server) as ann:
        ann.chooses(text_file("picture.mp4", b"\x89PNG\r\n\x1a\n" + bytes(5000)))
        ann.page.click("#start")
        expect(ann.page.locator("#wrong")).to_contain_text("a PNG image, not a video")
        assert ann.page.is_enabled("#start"), "another file can be chosen"
        ann.forgives("415")
        for file, reason in (
            (broken, "incomplete"),
            (text_file("note.mp4", b"Dear all,\n" * 99), "not_video"),
        ):
            ann.sends(file)
            ann.result()
            text = ann.page.inner_text("main")
            assert "not assessed" in text
            assert strings()["advice"][reason] in text, text[:800]
    server.idle()


def test_cancelled_while_it_is_sent(browser: Browser, server: Watched, clip: Path) -> None:
    with guest(browser, server) as ann:
        ann.chooses(clip)
        ann.slowly()
        ann.page.focus("#start")
        ann.page.keyboard.press("Enter")
        wait_for("the file to arrive", server.traces)
        ann.tabs_to("#cancel")
        ann.page.keyboard.press("Enter")
        expect(ann.page.locator("#said")).to_have_text(WORDS["cancelled"])
        server.idle()
        assert ann.page.is_enabled("#start"), "it can be sent again"


def test_cancelled_while_it_is_at_work(browser: Browser, server: Watched, clip: Path) -> None:
    with guest(browser, server) as ann:
        ann.sends(clip, "thorough")
        expect(ann.page.locator("[aria-current]")).to_contain_text(
            WORDS["stages"]["decoding"], timeout=20_000
        )
        ann.tabs_to("#state button")
        ann.page.wait_for_timeout(1000)
        focused = ann.page.evaluate("document.activeElement.closest('#state') !== null")
        assert focused, "the keyboard loses the button while the page looks how far it is"
        ann.page.keyboard.press("Enter")
        expect(ann.page.locator("#state")).to_have_text(WORDS["gone"])
        server.idle()


def restartable(folder: Path) -> list[str]:
    """Options by which a server comes back at the same address."""
    token = folder / "token"
    token.write_text("t" * 43)
    token.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        return ["--port", str(free.getsockname()[1]), "--token-file", str(token)]


def test_killed_while_a_file_is_received(browser: Browser, output: Path, clip: Path, tmp_path: Path) -> None:
    with watched(output, tmp_path) as server, guest(browser, server) as ann:
        ann.chooses(clip)
        ann.slowly()
        ann.page.click("#start")
        wait_for("the file to arrive", server.traces)
        _kill(server)
        expect(ann.page.locator("#wrong")).to_have_text(WORDS["lost"], timeout=20_000)
        ann.forgives("Failed to load resource")


def test_killed_while_a_file_is_decoded(browser: Browser, output: Path, clip: Path, tmp_path: Path) -> None:
    again = restartable(tmp_path)
    with watched(output, tmp_path, *again) as server, guest(browser, server) as ann:
        address = ann.sends(clip, "thorough")
        expect(ann.page.locator("[aria-current]")).to_contain_text(
            WORDS["stages"]["decoding"], timeout=20_000
        )
        _kill(server)
        expect(ann.page.locator("main")).to_contain_text(WORDS["no_answer"])
        with watched(output, tmp_path, *again):
            expect(ann.page.locator("main")).to_contain_text(WORDS["forgotten"], timeout=20_000)
            ann.page.goto(address)
            expect(ann.page.locator("main")).to_contain_text(WORDS["forgotten"])
        ann.complaints[:] = [one for one in ann.complaints if not re.search("404|ERR_CONNECTION|htmx:", one)]


def _kill(server: Watched) -> None:
    """SIGKILL; everything that belonged to it has to end by itself."""
    process = psutil.Process(server.served.process.pid)
    family = [process, *process.children(recursive=True)]
    assert len(family) >= 2, "no helper to decode in"
    server.served.process.kill()
    server.served.process.wait()
    wait_for("the end of its processes", lambda: not any(one.is_running() for one in family), 20)
    assert list(server.folder.iterdir()) == [], "a file is left"


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
