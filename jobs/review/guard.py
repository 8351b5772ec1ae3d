"""What stands before every route: who may ask, how much may be sent, and what every answer says.

- `Host` has to be a name that was bound to: a page whose name was led here (DNS rebinding) has another.
- What another site, or another port of this machine, makes a browser send is refused.
- The token of the printed address is exchanged for a cookie; without that there is nothing but a refusal.
- A body is counted as it comes, and may not stand still.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from markupsafe import Markup
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.page import render, strings
from jobs.schema import printable

log = logging.getLogger(__name__)

MOST_BODY = 64 << 10
MOST_COOKIES = 32 << 10  # those of all other ports of this machine come along
MOST_UNDER_WAY = 200
BODY_STALLS_S = 30.0
SAFE_METHODS = frozenset(("GET", "HEAD"))
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Videos and names of strangers must not stay in a browser's cache on disk.
    "cache-control": "no-store",
}
_MOST_FIELDS = 10
_SESSION = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True)
class Door:
    """Who is let in.

    Attributes:
        hosts: Values of `Host` that are ours, in lower case.
        port: That is listened on; cookies do not tell ports apart, so their names do.
        token: Of the printed address.
    """

    hosts: frozenset[str]
    port: int
    token: str
    _key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", hashlib.sha256(self.token.encode()).digest())

    @property
    def cookie(self) -> str:
        """Name of the cookie that lets in."""
        return f"deepfake_scan_{self.port}"

    def is_token(self, given: str) -> bool:
        """Whether that is the token, in a time that does not tell how much of it is."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def new_cookie(self) -> str:
        """A cookie's value for one more browser: its session, and a signature by the token."""
        session = secrets.token_urlsafe(16)
        return f"{session}.{self._signature(session)}"

    def session(self, cookie: str) -> str | None:
        """The session of a cookie that was made by `new_cookie` under this token."""
        session, _, signature = cookie.partition(".")
        if not _SESSION.fullmatch(session):
            return None
        right = hmac.compare_digest(signature.encode(), self._signature(session).encode())
        return session if right else None

    def _signature(self, session: str) -> str:
        return hmac.new(self._key, session.encode(), "sha256").hexdigest()


class BodyCutError(Exception):
    """What was being sent cannot be sent to its end; the connection is cut, and nobody takes it for whole."""


class Guard:
    """ASGI middleware around everything else.

    Args:
        app: Answers what is let through; finds the browser's session in `scope["state"]["session"]`.
        door: Decides who is let through.
        body_limit: Bytes that a request to a path may carry; None stands for `MOST_BODY`.
    """

    def __init__(self, app: ASGIApp, door: Door, body_limit: Callable[[str], int | None]) -> None:
        self._app, self._door, self._body_limit = app, door, body_limit
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # no websockets here
            return
        answer = _Answer(scope, send)
        self._under_way += 1
        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, answer.send)
                return
            await self._app(scope, _counted(receive, self._limit(scope)), answer.send)
        except ClientDisconnect:
            log.info("%s: the browser went away", printable(scope["path"]))
        except BodyCutError as error:
            log.warning("%s: %s", printable(scope["path"]), printable(str(error)))
        except Exception:
            log.exception("%s failed", printable(scope["path"]))
            if answer.status is None:
                await refused(Headers(scope=scope), HTTPStatus.INTERNAL_SERVER_ERROR)(
                    scope, receive, answer.send
                )
        finally:
            self._under_way -= 1
            # Without the query, where the token stands.
            log.info("%s %s %s", scope["method"], printable(scope["path"]), answer.status)

    def _refusal(self, scope: Scope) -> Response | None:
        """Why a request goes no further, as an answer; also the exchange of the token."""
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._door.hosts:
            return refused(headers, HTTPStatus.MISDIRECTED_REQUEST)
        token = self._token(scope)
        if token is not None and self._door.is_token(token):
            return self._exchanged(headers)
        if _is_foreign(headers, safe=scope["method"] in SAFE_METHODS):
            return refused(headers, HTTPStatus.FORBIDDEN, "foreign")
        session = self._door.session(cookies(headers).get(self._door.cookie, ""))
        if session is None:
            return refused(headers, HTTPStatus.FORBIDDEN, "no_token" if token is None else "wrong_token")
        scope.setdefault("state", {})["session"] = session
        status = self._too_much(headers, self._limit(scope))
        return None if status is None else refused(headers, status)

    def _too_much(self, headers: Headers, limit: int) -> HTTPStatus | None:
        if self._under_way > MOST_UNDER_WAY:
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if _says_more(headers, limit) else None

    def _limit(self, scope: Scope) -> int:
        return self._body_limit(scope["path"]) or MOST_BODY

    def _token(self, scope: Scope) -> str | None:
        """The token of the printed address, where this is a visit to it."""
        if scope["method"] not in SAFE_METHODS or scope["path"] != "/" or not scope["query_string"]:
            return None
        try:
            fields = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=_MOST_FIELDS)
        except ValueError:  # the address that was printed has one field
            return ""
        given = fields.get("token")
        return given[0] if given else None

    def _exchanged(self, headers: Headers) -> Response:
        answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        keep(answer, headers, self._door.cookie, self._door.new_cookie())
        return answer


def keep(answer: Response, headers: Headers, name: str, value: str) -> None:
    """Set a cookie that goes to this server only, and that no script reads."""
    # A proxy that speaks TLS says so; a lie about it harms only the liar.
    secure = headers.get("x-forwarded-proto") == "https"
    answer.set_cookie(name, value, httponly=True, samesite="strict", secure=secure, path="/")


def cookies(headers: Headers) -> dict[str, str]:
    """The cookies of a request, as they stand there; none where they are too long.

    By hand: ours are never quoted, and what unquotes them in Python 3.11 takes seconds for many backslashes.
    """
    sent = headers.get("cookie", "")
    if len(sent) > MOST_COOKIES:
        return {}
    pairs = (pair.partition("=") for pair in sent.split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def refused(
    headers: Headers, status: HTTPStatus, why: str | None = None, text: str | None = None
) -> Response:
    """A refusal in words, as a page, or as the words alone where a part of a page asked.

    Args:
        headers: Of the request.
        status: Of the answer.
        why: Key of the words, where there are several for a status.
        text: Words of their own.
    """
    words = strings()["review"]["refused"]
    said = text or words.get(why or f"http_{status.value}") or words["other"]
    lines_said = [line.strip() for line in said.split("\n")]
    if "hx-request" in headers:
        lines = Markup("<br>").join(printable(line) for line in lines_said)
        return Response(lines, status, media_type="text/html")
    page = render("review_refused.html.j2", static_page=False, status=status.value, said=lines_said)
    return Response(page, status, media_type="text/html")


def _is_foreign(headers: Headers, *, safe: bool) -> bool:
    """Whether another site, or another port, made the browser ask.

    Where the browser says whence (`Sec-Fetch-Site`), no other is answered at all: what cannot be read could
    still be timed. Besides, `Origin` has to be ours on what changes something; our forms have the origin
    `null`, because no page of ours tells where it was.
    """
    whence, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if whence not in (None, "same-origin", "none"):
        return True
    if origin is None:
        return not safe and whence != "same-origin"
    if origin == "null":
        return whence != "same-origin"
    return origin.lower() not in {f"{scheme}://{headers['host'].lower()}" for scheme in ("http", "https")}


def _says_more(headers: Headers, limit: int) -> bool:
    """Whether a request announces more bytes than that; what announces nothing is counted."""
    length = headers.get("content-length", "")
    return length.isascii() and length.isdigit() and (len(length) > len(str(limit)) or int(length) > limit)


def _counted(receive: Receive, limit: int) -> Receive:
    """`receive` that ends a body which is too long or stands still, whatever its length was said to be."""
    got, ended = 0, False

    async def counted() -> Message:
        nonlocal got, ended
        if ended:  # whoever listens now waits for the end of the connection, for as long as it lasts
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), BODY_STALLS_S)
        except TimeoutError:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None
        got += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        if got > limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return message

    return counted


class _Answer:
    """`send` that puts the headers of every answer in place, and remembers the status."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self.status: int | None = None

    async def send(self, message: Message) -> Any:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if self.status >= HTTPStatus.BAD_REQUEST:
                # The rest of a body that was refused is not read.
                headers["connection"] = "close"
        await self._send(message)
