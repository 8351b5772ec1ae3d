"""The upload page over a real socket: received under limits, judged, shown to its browser, forgotten."""

from __future__ import annotations

import errno
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import httpx
import psutil
import pytest

from detector.errors import SettingsError
from detector.pipeline import extract, score
from detector.types import ExtractOptions
from jobs import evidence
from jobs.config import ScanSettings, load
from jobs.equipment import Equipment, StoppedError
from jobs.evidence import Stage
from jobs.explain import explain
from jobs.named_weights import open_weights
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


@contextmanager
def io_file(content: bytes) -> Iterator[IO[bytes]]:
    """An open file with that content."""
    with TemporaryFile() as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield file


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
        answer = client.post(f"{path}/cancel").text
        assert WORDS["gone"] in answer or WORDS["going"] in answer
    wait_for("the words", lambda: all(WORDS["gone"] in client.get(path).text for path in paths), 20)
    assert open_files() <= before, "the page says that the file was deleted, and it is open"
    assert "p_fake" in judged(client, send(client, video).json()["path"]), "the next file is not judged"


@pytest.mark.parametrize("stage", list(Stage))
def test_a_file_can_be_cancelled_in_every_stage(
    untouched: Shown, video: bytes, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is at work in a stage is held there; the page must not say that its file was deleted before."""
    at, on, done = threading.Event(), threading.Event(), []

    def held(work: Callable[..., Any], its: Stage) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            if its is stage:
                at.set()
                assert on.wait(60)
            found = work(*args)
            done.append(its)
            return found

        return step

    monkeypatch.setattr("jobs.evidence.extract", held(extract, Stage.DECODING))
    monkeypatch.setattr("jobs.evidence.score", held(score, Stage.SCORING))
    monkeypatch.setattr(evidence, "_strongest", held(evidence._strongest, Stage.DRAWING))
    client, before = untouched.browser(), open_files()
    path = send(client, video).json()["path"]
    assert at.wait(60), f"no file came to {stage}"
    cancelling = threading.Thread(target=client.post, args=(f"{path}/cancel",))
    cancelling.start()
    other = untouched.browser()
    other.cookies = client.cookies
    wait_for("the cancelling", lambda: WORDS["going"] in other.get(path).text, 10)
    assert open_files() > before
    on.set()
    cancelling.join()
    wait_for("the end of the file", lambda: WORDS["gone"] in client.get(path).text, 20)
    assert open_files() <= before
    assert done == list(Stage)[: list(Stage).index(stage) + 1], "it went on after it was cancelled"
    monkeypatch.undo()
    assert "p_fake" in judged(client, send(client, video).json()["path"]), "the next file is not judged"


def test_stopping_one_file_does_not_hit_another(video: bytes) -> None:
    options = ScanSettings().extract_options(open_weights("default").header)
    with Equipment() as equipment, io_file(video) as mine, io_file(video) as other:
        with equipment.decoding(other, options) as sandbox:
            assert sandbox is not None
            helper = sandbox.helper_pid
            equipment.stop_decoding(mine)
            assert sandbox.helper_pid == helper, "the process that decodes another file was ended"
            assert sandbox.extract(other, options).facts.failure is None
        equipment.stop_decoding(other)
        assert sandbox.helper_pid == helper, "it was ended after its file was done"


def test_an_equipment_that_was_closed_decodes_nothing(video: bytes) -> None:
    with Equipment() as equipment, io_file(video) as file:
        equipment.close()
        with pytest.raises(StoppedError), equipment.decoding(file, ExtractOptions()):
            pass


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

    def idle() -> bool:
        with suppress(httpx.TransportError):  # refused while it was sending
            return send(client, b"%PDF" + bytes(100)).status_code == 415
        return False

    wait_for("an idle server", idle, 90)


def test_pages_are_forgotten_after_half_an_hour(shown: Shown, video: bytes) -> None:
    client = shown.browser()
    path = send(client, video).json()["path"]
    assert judged(client, path)
    shown.seconds.append(shown.seconds.pop() + 1900)
    judged(client, send(client, video).json()["path"])
    answer = client.get(path)
    assert answer.status_code == 404
    assert "forgotten after half an hour" in answer.text


def test_with_keep_files_are_kept_under_their_hash(video: bytes, tmp_path: Path) -> None:
    other_video = video + b"\0\0\0\x08free"
    with made(tmp_path, tmp_path / "kept") as other:
        client = other.browser()
        judged(client, send(client, video, "../../etc/evil.mp4").json()["path"])
        judged(client, send(client, other_video).json()["path"])
    kept = {path.name: path for path in (tmp_path / "kept").iterdir()}
    assert set(kept) == {f"{hashlib.sha256(content).hexdigest()}.video" for content in (video, other_video)}
    for path in kept.values():
        assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest(), (
            "the name is not that of its content"
        )
        assert path.stat().st_mode & 0o777 == 0o600, "others may read it"
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_a_file_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(SettingsError, match="--keep"), made(tmp_path, tmp_path / "kept"):
        pass


def test_where_nothing_can_be_kept_any_more_the_result_says_so(
    video: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with made(tmp_path, tmp_path / "kept") as other:
        client = other.browser()
        monkeypatch.setattr("jobs.review.uploads.os.fdopen", lambda number, *_: _Full(number))
        page = judged(client, send(client, video).json()["path"])
    assert "No space left on device" in page
    assert "p_fake" in page, "the verdict is lost"
    assert list((tmp_path / "kept").iterdir()) == [], "a part of the file stays"


class _Full(FileIO):
    """A file on a disk that is full after the first bytes."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb")

    def write(self, data: Any) -> int:
        super().write(bytes(data[:1000]))
        raise OSError(errno.ENOSPC, "No space left on device")
