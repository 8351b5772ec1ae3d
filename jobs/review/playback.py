"""The video itself, by HTTP Range: from disk or S3, the very version that was scored, a piece at a time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from detector.errors import StorageError, VideoError
from detector.types import Reason
from jobs.local import open_version, scheme_of
from jobs.review.guard import BodyCutError
from jobs.s3 import client, of_version, parse
from jobs.s3_errors import error_code, is_about_us, is_outage

_CHUNK = 256 << 10
_ANY_SIZE = (1 << 63) - 1
# By FFmpeg's name of the container: a name is whatever somebody chose.
_TYPES = {
    "3gp": "video/mp4",
    "avi": "video/x-msvideo",
    "m4a": "video/mp4",
    "matroska": "video/x-matroska",
    "mov": "video/mp4",
    "mp4": "video/mp4",
    "mpegts": "video/mp2t",
    "ogg": "video/ogg",
    "webm": "video/webm",
}
_RANGE = re.compile(r"bytes=\s*(\d{1,18})?\s*-\s*(\d{1,18})?\s*", re.ASCII | re.IGNORECASE)
_GONE = frozenset((Reason.NOT_FOUND, Reason.CHANGED_DURING_READ, Reason.NOT_VIDEO))


class Span(NamedTuple):
    """Bytes from `start` up to, not including, `end`."""

    start: int
    end: int


class UnsatisfiableError(Exception):
    """A range that begins behind the end."""


def span_of(header: str | None, size: int) -> Span | None:
    """What a `Range` asks for of so many bytes; None for all of them, as where it is no single range.

    Raises:
        UnsatisfiableError: nothing of it is there.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or found[1] is found[2] is None:
        return None
    if found[1] is None:
        span = Span(max(0, size - int(found[2])), size)
    else:
        last = size - 1 if found[2] is None else int(found[2])
        if last < int(found[1]) <= size - 1:  # written backwards: no range at all
            return None
        span = Span(int(found[1]), min(last + 1, size))
    if span.start >= span.end:
        raise UnsatisfiableError
    return span


def content_type(container: str | None) -> str:
    """What a browser is told that a container is."""
    names = (container or "").split(",")
    return next((_TYPES[name] for name in names if name in _TYPES), "application/octet-stream")


@dataclass(frozen=True, slots=True)
class _Body:
    """A piece of a video that is open."""

    read: Callable[[int], bytes]
    close: Callable[[], None]
    """Raises VideoError where it is no longer what was opened."""


async def answer(video: Mapping[str, Any], method: str, headers: Mapping[str, str]) -> Response:
    """The answer to a request for a video.

    Args:
        video: Its row: video_id, uri, version, version_id, size_bytes, container.
        method: GET or HEAD.
        headers: Of the request.

    Raises:
        VideoError: it is gone, changed, or cannot be had.
        StorageError: its store cannot be used.
    """
    size, tag = int(video["size_bytes"] or 0), f'"{video["video_id"]}"'
    status, told, span = _promised(size, tag, content_type(video["container"]), headers)
    if span is None:
        return Response(status_code=status, headers=told)
    first = Span(span.start, span.start + 1) if method == "HEAD" else span
    body = await run_in_threadpool(_opened, video, first)
    if method == "HEAD":
        await run_in_threadpool(body.close)
        return Response(status_code=status, headers=told)
    return StreamingResponse(_chunks(body, span.end - span.start), status, told)


def part_of(data: bytes, tag: str, kind: str, request: Request) -> Response:
    """The answer to a request for bytes that are in memory."""
    status, told, span = _promised(len(data), f'"{tag}"', kind, request.headers)
    held = data[span.start : span.end] if span is not None and request.method != "HEAD" else b""
    return Response(held, status, told)


def _promised(
    size: int, tag: str, kind: str, headers: Mapping[str, str]
) -> tuple[HTTPStatus, dict[str, str], Span | None]:
    """Status, headers and which bytes; None where there are no such."""
    told = {"accept-ranges": "bytes", "etag": tag, "content-type": kind}
    asked = headers.get("range") if headers.get("if-range", tag) == tag else None
    try:
        part = span_of(asked, size)
    except UnsatisfiableError:
        told |= {"content-range": f"bytes */{size}"}
        return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, told, None
    span = part or Span(0, size)
    told["content-length"] = str(span.end - span.start)
    if part is not None:
        told["content-range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    return (HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT), told, span


def _opened(video: Mapping[str, Any], span: Span) -> _Body:
    return _object(video, span) if scheme_of(video["uri"]) == "s3" else _file(video, span)


def _file(video: Mapping[str, Any], span: Span) -> _Body:
    stack = ExitStack()
    file = stack.enter_context(open_version(video["uri"], video["version"], _ANY_SIZE))
    file.seek(span.start)
    return _Body(file.read, stack.close)


def _object(video: Mapping[str, Any], span: Span) -> _Body:
    from botocore.exceptions import BotoCoreError, ClientError

    where = parse(video["uri"])
    asked: dict[str, Any] = of_version(video.get("version_id"))
    if span.end > span.start:
        asked["Range"] = f"bytes={span.start}-{span.end - 1}"
    try:
        found: Any = client(bodies=True).get_object(
            Bucket=where.bucket,
            Key=where.key,
            IfMatch=f'"{video["version"]}"',
            **asked,
        )
    except (BotoCoreError, ClientError) as error:
        raise _told(error, video["uri"]) from error
    body = found["Body"]
    return _Body(body.read, body.close)


def _told(error: Exception, uri: str) -> VideoError | StorageError:
    """What a failure of the store means for the one who wants to look."""
    if is_outage(error) or is_about_us(error):
        return StorageError(f"{uri}: the store does not answer: {error_code(error) or type(error).__name__}")
    code = error_code(error)
    if code in ("PreconditionFailed", "412"):
        return VideoError(Reason.CHANGED_DURING_READ, "the object is not the one that was scanned")
    if code in ("NoSuchKey", "NoSuchVersion", "404"):
        return VideoError(Reason.NOT_FOUND, "there is no such object any more")
    if code in ("AccessDenied", "403"):
        return VideoError(Reason.ACCESS_DENIED, "the store refuses to hand it out")
    if code == "InvalidObjectState":
        return VideoError(Reason.ARCHIVED, "it must be restored first")
    return VideoError(Reason.FETCH_FAILED, code or type(error).__name__)


async def _chunks(body: _Body, left: int) -> AsyncIterator[bytes]:
    """The bytes of a body, so that at most a chunk is in memory."""
    from urllib3.exceptions import HTTPError

    try:
        while left:
            chunk = await run_in_threadpool(body.read, min(left, _CHUNK))
            if not chunk:
                raise BodyCutError("the video ended before its end")
            left -= len(chunk)
            yield chunk
    except (OSError, HTTPError) as error:
        raise BodyCutError(f"the video cannot be read: {error}") from error
    finally:
        try:
            body.close()
        except VideoError as error:
            raise BodyCutError(str(error)) from error


def is_gone(error: VideoError) -> bool:
    """Whether what was scanned is no longer there."""
    return error.reason in _GONE
