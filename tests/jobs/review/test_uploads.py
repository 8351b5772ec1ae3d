"""The upload page over a real socket: received under limits, judged, shown to its browser, forgotten."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from jobs.config import load
from jobs.explain import explain
from jobs.page import strings
from jobs.review import upload_routes, uploads
from tests.film import moving_face
from tests.jobs.review.conftest import Shown, made
from tests.media import write_video
from tests.waiting import wait_for

WORDS: dict[str, Any] = strings()["upload"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("upload") / "face.mp4"
    write_video(path, moving_face(30, (320, 240), face_px=90, seed=5))
    return path.read_bytes()


def send(client: httpx.Client, content: Any, name: str = "face.mp4", **choice: str) -> httpx.Response:
    headers = {"x-file-name": name, "hx-request": "true"}
    return client.post("/uploads", content=content, headers=headers, params=choice)


def judged(client: httpx.Client, path: str) -> str:
    """The page of a file once it is done."""
    wait_for("the verdict", lambda: client.get(f"{path}/state").status_code == 204, 60)
    return client.get(path).text


def open_files() -> int:
    """Files of this process that have no name any more, as uploads have none."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(str(descriptor.readlink()))
    return sum(link.endswith("(deleted)") and not link.startswith("/memfd:") for link in links)


def test_a_file_gets_the_verdict_that_explain_gives_it(
    untouched: Shown, video: bytes, tmp_path: Path
) -> None:
    client = untouched.browser()
    answer = send(client, video, "my holiday.mp4", profile="fast")
    assert answer.status_code == 201, answer.text
    page = judged(client, answer.json()["path"])
    (tmp_path / "same.mp4").write_bytes(video)
    row, _ = explain(
        str(tmp_path / "same.mp4"), load(overrides={"profile": "fast"}).settings, crops=None, sandboxed=True
    )
    assert row["status"] == "scored"
    assert f"p_fake {row['p_fake']:.3f}" in page
    assert "my holiday.mp4" in page
    assert "the very ones that were scored just now" in page
    assert page.count("data:image/jpeg") >= 10
    assert row["settings_id"] in page


def test_a_file_without_a_face_and_one_that_is_broken_get_a_page_too(untouched: Shown, video: bytes) -> None:
    client = untouched.browser()
    answer = send(client, video[: len(video) // 3])
    page = judged(client, answer.json()["path"])
    assert "not assessed" in page
    assert strings()["advice"]["incomplete"] in page


def test_nothing_is_left_of_a_file_once_it_is_judged(untouched: Shown, video: bytes) -> None:
    client = untouched.browser()
    before = open_files()
    judged(client, send(client, video).json()["path"])
    assert open_files() <= before, "a file that was judged is still open"


def test_another_browser_does_not_get_to_see_a_file(untouched: Shown, video: bytes) -> None:
    ann, bob = untouched.browser(), untouched.browser("bob")
    path = send(ann, video).json()["path"]
    for way in ("", "/state"):
        assert bob.get(f"{path}{way}").status_code == 404
    assert bob.post(f"{path}/cancel").status_code == 404
    assert judged(ann, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", WORDS["empty"]),
        (b"\x89PNG\r\n\x1a\n" + bytes(5000), "a PNG image"),
        (b"%PDF-1.7" + bytes(5000), "a PDF document"),
        (b"PK\x03\x04" + bytes(5000), "a ZIP archive"),
        (b"<html><script>alert(1)</script>" + bytes(100), "an HTML page"),
    ],
)
def test_what_is_no_video_is_refused_in_words(untouched: Shown, content: bytes, words: str) -> None:
    answer = send(untouched.browser(), content)
    assert answer.status_code in (400, 415)
    assert words in answer.text
    assert "<script" not in answer.text


def test_what_is_too_large_is_refused_before_it_is_sent(untouched: Shown) -> None:
    client = untouched.browser()
    request = client.build_request("POST", "/uploads", headers={"content-length": "6000000000"})
    with socket.create_connection(("127.0.0.1", untouched.port)) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        raw.sendall(f"POST /uploads HTTP/1.1\r\n{head}\r\n".encode())
        raw.settimeout(10)
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")


def test_what_turns_out_too_large_is_ended_while_it_comes(
    untouched: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_routes, "MOST_BYTES", 100_000)
    before = open_files()

    def endless() -> Iterator[bytes]:  # chunked: nothing is said of its length
        for _ in range(1000):
            yield bytes(range(256)) * 64

    client = untouched.browser()
    with suppress(httpx.TransportError):  # the server does not read the rest
        assert send(client, endless()).status_code == 413
    wait_for("the end of the file", lambda: open_files() <= before, 10)


@pytest.mark.parametrize(
    "choice",
    [{"profile": "slow"}, {"weights": "/etc/passwd"}, {"weights": "s3://b/k.safetensors#sha256=00"}],
)
def test_a_choice_that_is_not_on_the_page_is_refused(
    untouched: Shown, video: bytes, choice: dict[str, str]
) -> None:
    answer = send(untouched.browser(), video, **choice)
    assert answer.status_code == 400
    assert WORDS["wrong_choice"] in answer.text


def test_a_cancelled_file_is_gone(untouched: Shown, video: bytes) -> None:
    client = untouched.browser()
    before = open_files()
    paths = [send(client, video, profile="thorough").json()["path"] for _ in range(3)]
    for path in reversed(paths):
        assert WORDS["gone"] in client.post(f"{path}/cancel").text
    for path in paths:
        assert WORDS["gone"] in client.get(path).text
    wait_for("the end of the files", lambda: open_files() <= before, 20)
    assert "p_fake" in judged(client, send(client, video).json()["path"]), "the next file is not judged"


def test_a_browser_that_goes_away_leaves_nothing(untouched: Shown, video: bytes) -> None:
    before = open_files()
    client = untouched.browser()
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    with socket.create_connection(("127.0.0.1", untouched.port)) as raw:
        raw.sendall(
            f"POST /uploads HTTP/1.1\r\nHost: 127.0.0.1:{untouched.port}\r\nCookie: {cookies}\r\n"
            f"Sec-Fetch-Site: same-origin\r\nContent-Length: {len(video)}\r\n\r\n".encode()
            + video[:20_000]
        )
        wait_for("the file to be received", lambda: open_files() > before, 10)
    wait_for("its end", lambda: open_files() <= before, 10)


def test_200_uploads_at_once_are_answered_and_few_are_taken(untouched: Shown, video: bytes) -> None:
    client = untouched.browser()
    headers = {**client.headers, "cookie": "; ".join(f"{n}={v}" for n, v in client.cookies.items())}
    codes: list[int] = []
    before = psutil.Process().memory_info().rss

    def one() -> None:
        with httpx.Client(base_url=client.base_url, headers=headers, timeout=60) as browser:
            try:
                answer = send(browser, video)
            except httpx.TransportError:  # refused while it was sending
                codes.append(0)
                return
            codes.append(answer.status_code)
            if answer.status_code == 503 and "retry-after" in answer.headers:
                assert "busy" in answer.text

    threads = [threading.Thread(target=one) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grown = psutil.Process().memory_info().rss - before
    assert len(codes) == 200
    assert 0 < codes.count(201) <= uploads.MOST_RECEIVING + uploads.MOST_WAITING
    assert set(codes) <= {0, 201, 503}
    assert grown < 300e6, f"memory grew by {grown / 1e6:.0f} MB"
    wait_for("an idle server", lambda: send(untouched.browser(), b"%PDF" + bytes(100)).status_code == 415, 90)


def test_pages_are_forgotten_after_half_an_hour(shown: Shown, video: bytes) -> None:
    client = shown.browser()
    path = send(client, video).json()["path"]
    assert judged(client, path)
    shown.seconds.append(shown.seconds.pop() + 1900)
    judged(client, send(client, video).json()["path"])
    answer = client.get(path)
    assert answer.status_code == 404
    assert "forgotten after half an hour" in answer.text


def test_with_keep_a_file_is_kept_under_its_hash(video: bytes, tmp_path: Path) -> None:
    with made(tmp_path, tmp_path / "kept") as other:
        client = other.browser()
        judged(client, send(client, video, "../../etc/evil.mp4").json()["path"])
        wait_for("the file", lambda: any((tmp_path / "kept").glob("*.video")), 10)
    [kept] = (tmp_path / "kept").iterdir()
    assert kept.read_bytes() == video
    assert len(kept.stem) == 64
