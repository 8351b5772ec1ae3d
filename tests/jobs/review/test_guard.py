"""Hostile requests are refused in words, and nothing is written; every answer carries the headers."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from detector.errors import DeepfakeScanError, InputError, StorageError
from jobs.review import connections, guard
from jobs.review.guard import HEADERS, MOST_BODY, Door
from tests.jobs.review.conftest import TOKEN, Shown

FORM = "application/x-www-form-urlencoded"


def raw(shown: Shown, request: bytes) -> str:
    """What the server answers to bytes that no client library would send; `PORT` and `ID` are filled in."""
    cookie = _cookie(shown)
    request = request.replace(b"PORT", str(shown.port).encode())
    request = request.replace(b"ID", str(shown.rows[0]["video_id"]).encode())
    head, _, body = request.partition(b"\r\n\r\n")
    sent = head + f"\r\nCookie: {cookie}".encode() + b"\r\n\r\n" + body
    with socket.create_connection(("127.0.0.1", shown.port), timeout=20) as connection:
        with suppress(OSError):  # refused before all of it was sent
            connection.sendall(sent)
        got = b""
        while piece := _received(connection):
            got += piece
    return got.decode("utf-8", "replace")


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def _cookie(shown: Shown) -> str:
    jar = shown.browser().cookies
    return "; ".join(f"{name}={value}" for name, value in jar.items())


LOCAL = b"Host: 127.0.0.1:PORT\r\n"
OWN = LOCAL + b"Sec-Fetch-Site: same-origin\r\nConnection: close\r\n"
POST = f"Content-Type: {FORM}\r\n".encode()
DECISION = b"decision=fake&seen=0123456789abcdef"


def posted(path: bytes, body: bytes = DECISION, headers: bytes = OWN + POST) -> bytes:
    return b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (path, headers, len(body), body)


def got(path: bytes, headers: bytes = OWN) -> bytes:
    return b"GET %s HTTP/1.1\r\n%s\r\n" % (path, headers)


DECIDE, MEDIA = b"/videos/ID/decision", b"/videos/ID/media"
# name -> request, status of the answer; 0 where the connection may just be closed
HOSTILE: dict[str, tuple[bytes, int]] = {
    "a foreign origin": (posted(DECIDE, headers=LOCAL + POST + b"Origin: http://evil.example\r\n"), 403),
    "a foreign origin that claims to be ours": (
        posted(DECIDE, headers=OWN + POST + b"Origin: http://127.0.0.1.evil.example:PORT\r\n"), 403,
    ),
    "another port of this machine": (
        posted(DECIDE, headers=LOCAL + POST + b"Sec-Fetch-Site: same-site\r\n"), 403,
    ),
    "an opaque origin": (posted(DECIDE, headers=LOCAL + POST + b"Origin: null\r\n"), 403),
    "no origin at all": (posted(DECIDE, headers=LOCAL + POST), 403),
    "cross-site": (posted(DECIDE, headers=LOCAL + POST + b"Sec-Fetch-Site: cross-site\r\n"), 403),
    "typed in, but changing": (posted(DECIDE, headers=LOCAL + POST + b"Sec-Fetch-Site: none\r\n"), 403),
    "an embedded video": (got(MEDIA, LOCAL + b"Sec-Fetch-Site: cross-site\r\n"), 403),
    "a rebound name": (got(b"/", b"Host: evil.example:PORT\r\n"), 421),
    "our name, another port": (got(b"/", b"Host: 127.0.0.1:1\r\n"), 421),
    "no port": (got(b"/", b"Host: 127.0.0.1\r\n"), 421),
    "a user in the name": (got(b"/", b"Host: 127.0.0.1:PORT@evil.example\r\n"), 421),
    "two names": (got(b"/", LOCAL + b"Host: evil.example\r\n"), 400),
    "no name": (got(b"/", b""), 400),
    "a name in the target": (got(b"http://evil.example/", OWN), 404),
    "up and out of static": (got(b"/static/../../english.toml"), 404),
    "encoded up and out": (got(b"/static/%2e%2e%2fenglish.toml"), 404),
    "twice encoded": (got(b"/static/%252e%252e%252fenglish.toml"), 404),
    "backslashes": (got(b"/static/..\\english.toml"), 404),
    "a NUL": (got(b"/static/style.css%00.js"), 404),
    "an absolute path": (got(b"/static//etc/passwd"), 404),
    "another site as a path": (got(b"//evil.example/%2f.."), 404),
    "an unknown video": (got(b"/videos/0123456789abcdef"), 404),
    "a quote": (got(b"/videos/%27%20OR%201=1%20--"), 404),
    "a path for a video": (got(b"/videos/..%2f..%2fetc%2fpasswd/media"), 404),
    "a header in the path": (got(b"/videos/a%0d%0aSet-Cookie:%20x=1/media"), 404),
    "a header in a name": (posted(b"/who", b"who=a%0d%0aSet-Cookie:%20x=1"), 400),
    "a name of nothing": (posted(b"/who", b"who=%20%20"), 400),
    "a name that turns text around": (posted(b"/who", b"who=%E2%80%AEgnp"), 400),
    "a long name": (posted(b"/who", b"who=" + b"a" * 65), 400),
    "no seen page": (posted(DECIDE, b"decision=fake"), 409),
    "another decision": (posted(DECIDE, b"decision=undone&seen=x"), 400),
    "a long note": (posted(DECIDE, DECISION + b"&note=" + b"n" * 2001), 400),
    "a lie of what was shown": (posted(DECIDE, DECISION + b"&shown=%7B%22x%22%3A1%7D"), 400),
    "a thousand fields": (posted(DECIDE, b"&".join([b"a=1"] * 1000)), 400),
    "JSON": (posted(DECIDE, b"{}", OWN + b"Content-Type: application/json\r\n"), 415),
    "a body above the limit": (posted(DECIDE, b"note=" + b"n" * MOST_BODY), 413),
    "a gigantic body, announced": (
        b"POST /who HTTP/1.1\r\n" + OWN + POST + b"Content-Length: 99999999999999999\r\n\r\nx", 413,
    ),
    "a gigantic body in chunks": (
        b"POST " + DECIDE + b" HTTP/1.1\r\n" + OWN + POST + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"10000\r\n" + b"n" * 65536 + b"\r\n10000\r\n" + b"n" * 65536 + b"\r\n0\r\n\r\n", 413,
    ),
    "a body with a question": (
        b"GET / HTTP/1.1\r\n" + OWN + b"Content-Length: 70000\r\n\r\n" + b"x" * 70000, 413,
    ),
    "two lengths": (
        b"POST /undo HTTP/1.1\r\n" + OWN + POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400,
    ),
    "a range of nonsense": (got(MEDIA, OWN + b"Range: bytes=zz-%s\r\n"), 200),
    "a range behind the end": (got(MEDIA, OWN + b"Range: bytes=999999999-\r\n"), 416),
    "a thousand ranges": (got(MEDIA, OWN + b"Range: bytes=" + b"0-,5-9," * 1000 + b"1-2\r\n"), 200),
    "a method of its own": (b"BREW / HTTP/1.1\r\n" + OWN + b"\r\n", 405),
    "a method that is not taken": (b"DELETE /undo HTTP/1.1\r\n" + OWN + b"\r\n", 405),
    "an upgrade": (
        got(b"/", OWN + b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"), 303,
    ),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a line without end": (b"GET /" + b"a" * 300_000, 400),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_and_changes_nothing(untouched: Shown, name: str) -> None:
    request, status = HOSTILE[name]
    before = sorted(path for path in untouched.output.rglob("*"))
    answer = raw(untouched, request)
    assert answer.startswith(f"HTTP/1.1 {status} "), f"{name}: {answer[:300]!r}"
    assert "\nset-cookie" not in answer.lower(), name
    assert "root:" not in answer
    assert "Traceback" not in answer
    assert untouched.written() == []
    assert sorted(path for path in untouched.output.rglob("*")) == before, "a file was made"
    assert untouched.browser().get("/").status_code in (200, 303), "the server goes on"


@pytest.mark.parametrize(
    "query",
    ["", "?token=", "?token=wrong", f"?token={TOKEN[:-1]}", f"?token={TOKEN}x", "?token=%FF", f"?x={TOKEN}"],
)
def test_without_the_token_nobody_sees_anything(untouched: Shown, query: str) -> None:
    client = httpx.Client(base_url=f"http://127.0.0.1:{untouched.port}")
    for path in (
        f"/{query}",
        "/who",
        untouched.page(),
        f"{untouched.page()}/media",
        "/static/style.css",
        "/nothing",
    ):
        answer = client.get(path)
        assert answer.status_code == 403, path
        assert (
            "Open the address that it printed" in answer.text
            or "open the address that it printed" in answer.text
        )
        assert "first.mp4" not in answer.text
    for cookie in ("x", f"{'a' * 22}.", f"{'a' * 22}.{'0' * 64}", '"', "a" * 4000):
        client.cookies.clear()
        answer = client.get("/who", headers={"cookie": f"{untouched.site.door.cookie}={cookie}"})
        assert answer.status_code == 403, cookie
    client.close()


def test_the_token_is_exchanged_for_a_cookie_that_no_script_and_no_site_gets(untouched: Shown) -> None:
    answer = httpx.get(f"http://127.0.0.1:{untouched.port}/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"deepfake_scan_{untouched.port}=")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    behind = httpx.get(
        f"http://127.0.0.1:{untouched.port}/?token={TOKEN}", headers={"x-forwarded-proto": "https"}
    )
    assert "Secure" in behind.headers["set-cookie"]


def test_a_cookie_of_another_start_lets_nobody_in(untouched: Shown) -> None:
    other = Door(frozenset(), untouched.port, "u" * 43).new_cookie()
    headers = {"cookie": f"{untouched.site.door.cookie}={other}"}
    assert httpx.get(f"http://127.0.0.1:{untouched.port}/who", headers=headers).status_code == 403


def test_every_answer_carries_the_headers(shown: Shown) -> None:
    client = shown.browser()
    answers = [
        client.get("/"),
        client.get(shown.page()),
        client.get("/static/review.js"),
        client.get(f"{shown.page()}/media", headers={"range": "bytes=0-1"}),
        client.get("/nothing"),
        client.get(f"{shown.page()}/preview"),
        client.post("/undo"),
        httpx.get(f"http://127.0.0.1:{shown.port}/"),
        httpx.get(f"http://127.0.0.1:{shown.port}/", headers={"host": "evil.example"}),
    ]
    assert [answer.status_code for answer in answers] == [303, 200, 200, 206, 404, 422, 409, 403, 421]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer.url
        assert "server" not in answer.headers


def test_a_failure_of_ours_is_told_with_the_headers_too(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = shown.browser()

    def fail(_: str) -> Any:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(shown.site.videos, "one", fail)
    answer = client.get(shown.page())
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    assert "its log says why" in answer.text
    assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]
    assert "a secret of the inside" in caplog.text


def test_a_body_that_stands_still_is_given_up(untouched: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_STALLS_S", 0.2)
    cookie = _cookie(untouched)
    head = f"POST /who HTTP/1.1\r\nHost: 127.0.0.1:{untouched.port}\r\nSec-Fetch-Site: same-origin\r\n"
    head += f"Cookie: {cookie}\r\nContent-Type: {FORM}\r\nContent-Length: 100\r\n\r\nwho="
    with socket.create_connection(("127.0.0.1", untouched.port), timeout=20) as connection:
        connection.sendall(head.encode())
        began = time.monotonic()
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 10


def test_logs_hold_no_token(untouched: Shown, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the browser's own
    with caplog.at_level("INFO"):
        untouched.browser().get(f"/?token={TOKEN}x")
        untouched.browser().get("/nothing%0aforged%20line?secret")
    assert "GET / 303" in caplog.text
    assert TOKEN not in caplog.text
    assert "secret" not in caplog.text
    assert "\nforged" not in caplog.text


def test_names_and_errors_are_text_on_every_page(shown: Shown) -> None:
    client = shown.browser("<img src=x onerror=alert(1)>")
    page = client.get(shown.page(1)).text
    assert "<img" not in page
    assert "<b>.mp4" not in page
    assert "it&#39;s &#34;second&#34; &lt;b&gt;.mp4" in page
    other = shown.browser("bob")
    refused = other.post(f"{shown.page(1)}/heartbeat", headers={"hx-request": "true"})
    assert refused.status_code == 409
    assert "<img" not in refused.text
    assert "&lt;img" in refused.text


def test_what_a_page_may_load_lies_in_the_package(untouched: Shown) -> None:
    client = untouched.browser()
    folder = Path(guard.__file__).parents[1] / "pages" / "static"
    kinds = {"css": "text/css", "js": "text/javascript"}
    for name in ("style.css", "review.css", "review.js", "htmx.min.js"):
        answer = client.get(f"/static/{name}")
        assert answer.content == (folder / name).read_bytes()
        assert answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
    assert client.get("/static/LICENSE-htmx.txt").status_code == 404


def test_a_cookie_full_of_backslashes_stops_nobody(untouched: Shown) -> None:
    cookie = 'a="' + "\\" * 60_000 + '"'
    began = time.monotonic()
    answer = httpx.get(f"http://127.0.0.1:{untouched.port}/", headers={"cookie": cookie}, timeout=30)
    assert answer.status_code == 403
    assert time.monotonic() - began < 2, "it was unquoted in a time that grows with its square"


def test_our_cookies_are_found_among_those_of_others() -> None:
    sent = Headers({"cookie": 'a="x;y\\"; ours=abc.def;b; =; who=Ann%3B'})
    assert {name: guard.cookies(sent).get(name) for name in ("ours", "who", "c")} == {
        "ours": "abc.def", "who": "Ann%3B", "c": None,
    }  # fmt: skip
    assert guard.cookies(Headers({"cookie": "ours=abc; a=" + "a" * guard.MOST_COOKIES})) == {}


def test_many_fields_beside_the_token_are_refused_in_words(
    untouched: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    fields = "&".join(f"a{number}=1" for number in range(12))
    answer = httpx.get(f"http://127.0.0.1:{untouched.port}/?token=x&{fields}")
    assert (answer.status_code, "That is not the token" in answer.text) == (403, True)
    assert "Traceback" not in caplog.text


def test_idle_connections_lock_nobody_out(untouched: Shown) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(_connection(untouched)) for _ in range(connections.MOST_CONNECTIONS + 5)]
        began = time.monotonic()
        assert untouched.browser().get("/who").status_code == 200
        assert time.monotonic() - began < 5
        assert _received(idle[0]) == b"", "the one that is idle longest made room"
        idle[-1].sendall(f"GET /who HTTP/1.1\r\nHost: 127.0.0.1:{untouched.port}\r\n\r\n".encode())
        assert _received(idle[-1]).startswith(b"HTTP/1.1 403 "), "the last ones live on"


@pytest.mark.parametrize("before", [b"", b"GET /who HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_whose_head_does_not_end_is_given_up(
    untouched: Shown, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    with _connection(untouched) as connection:
        connection.sendall(before)
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 10:  # a byte now and then prolongs nothing
                connection.sendall(b"a")
                time.sleep(0.1)
        assert 0.3 < time.monotonic() - began < 5


def test_an_answered_browser_has_a_deadline_for_its_next_request(
    untouched: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    head = f"GET /who HTTP/1.1\r\nHost: 127.0.0.1:{untouched.port}\r\nCookie: {_cookie(untouched)}\r\n"
    with _connection(untouched) as connection:
        for _ in range(3):
            time.sleep(0.3)  # each time anew
            connection.sendall(f"{head}\r\n".encode())
            answer = b""
            while b"</html>" not in answer:  # its head may come by itself
                answer += _received(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 10:
                connection.sendall(b"G")
                time.sleep(0.1)
        assert 0.3 < time.monotonic() - began < 5


def test_a_busy_server_says_so_with_the_headers(untouched: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client = untouched.browser()
    monkeypatch.setattr(guard, "MOST_UNDER_WAY", 0)
    answer = client.get("/who")
    assert (answer.status_code, "busy with other requests" in answer.text) == (503, True)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_errors_of_ours_are_told_line_by_line(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client = shown.browser()
    for error, status in ((InputError, 404), (StorageError, 503)):

        def fail(*_: object, error: type[DeepfakeScanError] = error, **__: object) -> Any:
            raise error("no <such> key", hint="Ask another.")

        monkeypatch.setattr(shown.site.videos, "one", fail)
        answer = client.get(shown.page())
        assert answer.status_code == status
        assert "<p>no &lt;such&gt; key</p>\n<p>Ask another.</p>" in answer.text
        part = client.get(shown.page(), headers={"hx-request": "true"})
        assert part.text == "no &lt;such&gt; key<br>Ask another."


def _connection(shown: Shown) -> socket.socket:
    return socket.create_connection(("127.0.0.1", shown.port), timeout=20)
