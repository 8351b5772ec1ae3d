"""The upload page in a real browser: sent, watched, cancelled, killed, refused in words, and nothing left."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from playwright.sync_api import Browser, expect

from jobs.page import strings
from tests.e2e.guests import Watched, guest, text_file, watched
from tests.media import cut_off
from tests.pages import pictures
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORDS: dict[str, Any] = strings()["upload"]


def test_from_a_file_to_its_verdict_by_keyboard_alone(browser: Browser, server: Watched, clip: Path) -> None:
    with guest(browser, server) as ann:
        page = ann.page
        page.on("filechooser", lambda _: None)  # or the browser may show one of its own, seen by nobody
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


def test_killed_while_a_file_is_received(browser: Browser, decided: Path, clip: Path, tmp_path: Path) -> None:
    with watched(decided, tmp_path) as server, guest(browser, server) as ann:
        ann.chooses(clip)
        ann.slowly()
        ann.page.click("#start")
        wait_for("the file to arrive", server.traces)
        _kill(server)
        expect(ann.page.locator("#wrong")).to_have_text(WORDS["lost"], timeout=20_000)
        ann.forgives("Failed to load resource")


def test_killed_while_a_file_is_decoded(browser: Browser, decided: Path, clip: Path, tmp_path: Path) -> None:
    again = restartable(tmp_path)
    with watched(decided, tmp_path, *again) as server, guest(browser, server) as ann:
        address = ann.sends(clip, "thorough")
        expect(ann.page.locator("[aria-current]")).to_contain_text(
            WORDS["stages"]["decoding"], timeout=20_000
        )
        _kill(server)
        expect(ann.page.locator("main")).to_contain_text(WORDS["no_answer"])
        with watched(decided, tmp_path, *again):
            expect(ann.page.locator("main")).to_contain_text(WORDS["forgotten"], timeout=20_000)
            ann.page.goto(address)
            expect(ann.page.locator("main")).to_contain_text(WORDS["forgotten"])
        ann.complaints[:] = [one for one in ann.complaints if not re.search("404|ERR_CONNECTION|htmx:", one)]


def _kill(server: Watched) -> None:
    """SIGKILL; everything that belonged to it has to end by itself."""
    process = psutil.Process(server.served.process.pid)
    wait_for("a helper to decode in", process.children, 20)
    family = [process, *process.children(recursive=True)]
    server.served.process.kill()
    server.served.process.wait()
    wait_for("the end of its processes", lambda: not any(one.is_running() for one in family), 20)
    assert list(server.folder.iterdir()) == [], "a file is left"
