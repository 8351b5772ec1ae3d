"""Evidence and films over a real socket: each made once, few in wait, and nobody else held up by them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from detector.errors import VideoError
from detector.faults import MARK
from detector.sandbox import TEST_FAULTS, Sandbox
from detector.types import Extraction, Reason
from jobs.evidence import Examiner
from jobs.page import strings
from jobs.review.bench import Bench, CrowdedError, Kept
from jobs.table import ResultsTable
from tests.film import moving_face
from tests.jobs.review.conftest import Shown, row_of, served_table
from tests.media import write_video
from tests.waiting import wait_for

HANGS = MARK + b"hang"
WORDS: dict[str, Any] = strings()["review"]["video"]


class Held:
    """Examining that goes on only when it is told to; counts who asked for it and who has left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self.on = threading.Event()
        self.asked = self.left = 0
        examine, made = Examiner.examine, Bench.made

        async def counted(bench: Bench, key: Hashable, make: Callable[[], bytes]) -> bytes:
            self.asked += 1
            try:
                return await made(bench, key, make)
            finally:
                self.left += 1

        def held(examiner: Examiner, row: Any) -> Any:
            self.begun.append(row["video_id"])
            assert self.on.wait(60)
            return examine(examiner, row)

        monkeypatch.setattr(Bench, "made", counted)
        monkeypatch.setattr(Examiner, "examine", held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    one = Held(monkeypatch)
    yield one
    one.on.set()


def ids(shown: Shown) -> list[str]:
    return [row["video_id"] for row in shown.rows]


def ask(shown: Shown, client: httpx.Client, number: int, what: str = "evidence") -> socket.socket:
    """A browser that asks for the evidence or the film of a video and has not read the answer yet."""
    raw = socket.create_connection(("127.0.0.1", shown.port))
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    raw.sendall(
        f"GET {shown.page(number)}/{what} HTTP/1.1\r\nHost: 127.0.0.1:{shown.port}\r\n"
        f"Cookie: {cookies}\r\nSec-Fetch-Site: same-origin\r\n\r\n".encode()
    )
    return raw


def test_50_who_wait_for_evidence_hold_up_nobody_and_share_it(shown: Shown, held: Held) -> None:
    client = shown.browser()
    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(client.get, f"{shown.page()}/evidence") for _ in range(50)]
        wait_for("the first to begin", lambda: held.begun, 10)
        began = time.monotonic()
        assert shown.browser().get("/static/style.css").status_code == 200
        took_s = time.monotonic() - began
        held.on.set()
        answers = [one.result() for one in asked]
    assert took_s < 5, f"a style sheet took {took_s:.1f} s while others waited for evidence"
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert held.begun == ids(shown)[:1], "evidence of one video was made more than once"
    for way in ("", "?clear=true"):
        assert client.get(f"{shown.page()}/evidence{way}").status_code == 200
    assert held.begun == ids(shown)[:1], "it was made anew within a minute"


def test_who_comes_when_two_wait_is_refused_at_once(shown: Shown, held: Held) -> None:
    client = shown.browser()
    raws = [ask(shown, client, 0)]
    wait_for("the first to begin", lambda: held.begun, 10)
    raws += [ask(shown, client, number) for number in (1, 2)]
    wait_for("both to be in wait", lambda: held.asked == 3, 10)
    began = time.monotonic()
    answer = shown.browser().get(f"{shown.page(3)}/evidence")
    assert time.monotonic() - began < 5
    assert answer.status_code == 503
    assert WORDS["crowded"] in answer.text
    assert int(answer.headers["retry-after"]) > 0
    held.on.set()
    for raw in raws:
        assert raw.recv(100).startswith(b"HTTP/1.1 200")
        raw.close()
    # Which of two connections comes first is not ours to say.
    assert held.begun[0] == ids(shown)[0]
    assert sorted(held.begun) == sorted(ids(shown)[:3])


def test_what_a_browser_gave_up_before_it_began_is_not_made(shown: Shown, held: Held) -> None:
    client = shown.browser()
    first = ask(shown, client, 0)
    wait_for("the first to begin", lambda: held.begun, 10)
    gone = [ask(shown, client, number) for number in (1, 2)]
    wait_for("both to be in wait", lambda: held.asked == 3, 10)
    for raw in gone:
        raw.close()
    wait_for("both to be given up", lambda: held.left == 2, 10)
    last = ask(shown, client, 3)
    wait_for("the last to be in wait", lambda: held.asked == 4, 10)
    held.on.set()
    assert last.recv(100).startswith(b"HTTP/1.1 200"), "those who went away keep their place"
    assert held.begun == [ids(shown)[0], ids(shown)[3]]
    first.close()
    last.close()


@contextmanager
def real(root: Path) -> Iterator[Shown]:
    """A server over a table of a video with a face, and of one that takes hours to decode."""
    write_video(root / "face.mp4", moving_face(30, (320, 240), face_px=90, seed=5))
    (root / "hangs.mp4").write_bytes(HANGS)
    rows = [row_of(root / name, 0.97, "flagged") for name in ("face.mp4", "hangs.mp4")]
    with ResultsTable.create(str(root / "out")).claim("one") as table:
        table.append(rows)
    with served_table(root / "out", rows) as one:
        yield one


def test_six_who_ask_for_a_film_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films: list[bytes] = []
    preview = Sandbox.preview

    def counted(*args: Any) -> Extraction:
        made = preview(*args)
        films.append(made.film)
        return made

    monkeypatch.setattr(Sandbox, "preview", counted)
    with real(tmp_path) as shown:
        client = shown.browser()
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: client.get(f"{shown.page()}/preview"), range(6)))
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    assert [answer.content for answer in answers] == 6 * films, "not one film for all"


def test_a_video_and_an_upload_do_not_wait_for_each_other_and_the_server_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decodes for hours is in the way of nothing but its like, and ends when the server does."""
    monkeypatch.setenv(TEST_FAULTS, "1")
    with real(tmp_path) as shown:
        client = shown.browser()
        headers = {"x-file-name": "a.mp4", "hx-request": "true"}
        upload = client.post("/uploads", content=HANGS, headers=headers).json()["path"]
        wait_for("it to be decoded", lambda: _is_current(client.get(upload).text, "decoding"), 20)
        assert client.get(f"{shown.page()}/preview").status_code == 200, "an upload held up a film"

        client.post(f"{upload}/cancel")
        wait_for("its end", lambda: strings()["upload"]["gone"] in client.get(upload).text, 10)
        hanging = ask(shown, client, 1, "preview")
        time.sleep(0.5)
        face = (tmp_path / "face.mp4").read_bytes()
        path = client.post("/uploads", content=face, headers=headers).json()["path"]
        wait_for("the verdict", lambda: client.get(f"{path}/state").status_code == 204, 60)
        assert "p_fake" in client.get(path).text, "a film held up an upload"
        client.post("/uploads", content=HANGS, headers=headers)
        asked = ask(shown, client, 0, "evidence")
        began = time.monotonic()
    took_s = time.monotonic() - began
    assert took_s < 10, f"the server took {took_s:.1f} s to end while something was decoded"
    hanging.close()
    asked.close()


def test_a_piece_fails_for_all_who_wait_for_it_and_is_tried_again() -> None:
    tried: list[int] = []

    def fails() -> bytes:
        tried.append(len(tried))
        raise VideoError(Reason.NOT_FOUND, "gone")

    async def several(bench: Bench) -> list[bytes | BaseException]:
        return await asyncio.gather(*(bench.made("key", fails) for _ in range(3)), return_exceptions=True)

    bench = Bench(lambda: None)
    for turn in (1, 2):
        found = asyncio.run(several(bench))
        assert [type(one) for one in found] == 3 * [VideoError]
        assert len(tried) == turn
    bench.close(lambda: None)
    with pytest.raises(CrowdedError):
        asyncio.run(bench.made("key", lambda: b"late"))


def test_what_is_kept_goes_after_its_time_and_when_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: Kept[int] = Kept(2, 60.0)
    for number in range(3):
        kept.put(number, number)
    assert [kept.get(number) for number in range(3)] == [None, 1, 2]
    later = time.monotonic() + 61
    monkeypatch.setattr("jobs.review.bench.time.monotonic", lambda: later)
    kept.forget()
    assert [kept.get(number) for number in range(3)] == [None, None, None]


def _is_current(page: str, stage: str) -> bool:
    return f'aria-current="step">{strings()["upload"]["stages"][stage]}' in page
