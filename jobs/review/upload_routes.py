"""Routes of the upload page: choose, receive, wait, look."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import IO, Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from detector.sniff import what_else
from detector.weights import manifest
from jobs.config import PROFILE_WINDOWS, ScanSettings
from jobs.evidence_page import Served
from jobs.evidence_page import page as evidence_page
from jobs.live import Given
from jobs.page import strings
from jobs.review.answers import page
from jobs.review.uploads import BusyError, State, Upload, Uploads

UPLOADS = "/uploads"
MOST_BYTES = ScanSettings().max_bytes
_NAME_CHARS = 1024
_HEAD_BYTES = 4096
# Below this after a while somebody only holds the place.
_LEAST_BYTES_S, _PATIENCE_S = 16_000, 30.0
_SPARE_BYTES = 1 << 30

router = APIRouter()


def the_uploads(request: Request) -> Uploads:
    """What this server received."""
    uploads: Uploads = request.app.state.uploads
    return uploads


UploadsHere = Annotated[Uploads, Depends(the_uploads)]
UploadId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


def the_upload(request: Request, upload_id: UploadId, uploads: UploadsHere) -> Upload:
    """The file in the path, of this browser.

    Raises:
        HTTPException: there is none, or no longer.
    """
    found = uploads.find(upload_id, request.state.session)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, strings()["upload"]["forgotten"])
    return found


UploadHere = Annotated[Upload, Depends(the_upload)]


@router.get("/upload")
def choose() -> Response:
    """The page on which a file is chosen."""
    files = [name.removesuffix(".safetensors") for name in manifest()["files"] if ".safetensors" in name]
    default = manifest()["default"].removesuffix(".safetensors")
    return page(
        "upload.html.j2",
        profiles=PROFILE_WINDOWS,
        weights=sorted(files, key=lambda name: name != default),
        figures={name: manifest()["files"][f"{name}.safetensors"]["figures"] for name in files},
        most=MOST_BYTES,
    )


@router.post(UPLOADS)
async def receive(
    request: Request,
    uploads: UploadsHere,
    profile: Annotated[str, Query(max_length=20)] = "balanced",
    weights: Annotated[str, Query(max_length=100)] = "default",
) -> Response:
    """Receive a file as the body of the request, and put it in the queue."""
    words = strings()["upload"]
    settings = _settings(profile, weights)
    told = int(request.headers.get("content-length") or 0)
    if shutil.disk_usage(tempfile.gettempdir()).free < told + _SPARE_BYTES:
        raise HTTPException(HTTPStatus.INSUFFICIENT_STORAGE, words["no_room"])
    try:
        with uploads.receiving():
            file = _unnamed()
            try:
                size, sha256 = await _received(request.stream(), file)
                given = Given(file=file, name=_name(request), size=size, sha256=sha256)
                upload = uploads.add(request.state.session, given, settings)
            except BaseException:
                file.close()
                raise
    except BusyError:
        ahead = uploads.ahead()
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE, words["busy"].format(ahead=ahead), {"retry-after": "30"}
        ) from None
    return JSONResponse({"path": f"{UPLOADS}/{upload.upload_id}"}, HTTPStatus.CREATED)


@router.get(f"{UPLOADS}/{{upload_id}}")
def show(upload: UploadHere, uploads: UploadsHere, *, clear: bool = False) -> Response:
    """How far it is; once it is done, the evidence."""
    if upload.state is State.DONE and upload.evidence is not None:
        served = Served(back="/upload", own=f"{UPLOADS}/{upload.upload_id}", note=_note(upload))
        shown = evidence_page(upload.evidence, clear=clear, served=served)
        return Response(shown, media_type="text/html")
    ahead = uploads.ahead(upload)
    return page("upload_wait.html.j2", upload=upload, ahead=ahead, seen=_seen(upload, ahead))


@router.get(f"{UPLOADS}/{{upload_id}}/state")
def state(upload: UploadHere, uploads: UploadsHere, seen: str = "") -> Response:
    """The part of the page that is asked for again and again; nothing where that is what was `seen`.

    What is put in anew takes the focus from its button, and is read out again.
    """
    if upload.state is State.DONE:
        path = f"{UPLOADS}/{upload.upload_id}"
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"hx-redirect": path})
    ahead = uploads.ahead(upload)
    now = _seen(upload, ahead)
    if now == seen:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return page("upload_state.html.j2", upload=upload, ahead=ahead, seen=now)


@router.post(f"{UPLOADS}/{{upload_id}}/cancel")
def cancel(upload: UploadHere, uploads: UploadsHere) -> Response:
    """Stop, and delete the file."""
    uploads.cancel(upload)
    return page("upload_state.html.j2", upload=upload, ahead=0, seen="")


def _seen(upload: Upload, ahead: int) -> str:
    """What the page says of a file, in short."""
    return f"{upload.state}-{upload.stage or ''}-{ahead}-{upload.given.file.closed}"


def _note(upload: Upload) -> str:
    """What the page of a result says beside the evidence."""
    words: str = strings()["upload"]["not_kept"]
    return words.format(why=upload.not_kept) if upload.not_kept else ""


def _settings(profile: str, weights: str) -> ScanSettings:
    shipped = {name.removesuffix(".safetensors") for name in manifest()["files"]} | {"default"}
    if weights not in shipped:  # a setting names files and buckets as well, which are not for browsers
        raise HTTPException(HTTPStatus.BAD_REQUEST, strings()["upload"]["wrong_choice"])
    try:
        return ScanSettings.model_validate({"profile": profile, "weights": weights})
    except ValidationError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, strings()["upload"]["wrong_choice"]) from None


def _name(request: Request) -> str:
    given = unquote(request.headers.get("x-file-name", ""), errors="replace")[:_NAME_CHARS]
    return given or strings()["upload"]["nameless"]


def _unnamed() -> IO[bytes]:
    # The name of a temporary file exists for no moment, so nothing stays when this process is killed.
    return tempfile.TemporaryFile(prefix="deepfake-scan-")


async def _received(chunks: AsyncIterator[bytes], file: IO[bytes]) -> tuple[int, str]:
    """Write what comes; the number of bytes and their sha256.

    The guard ends what is larger than allowed or stands still.

    Raises:
        HTTPException: it is no video, is empty, comes too slowly, or does not come to its end.
    """
    words = strings()["upload"]
    size, head, began, sha256 = 0, b"", time.monotonic(), hashlib.sha256()
    try:
        async for chunk in chunks:
            size += len(chunk)
            if len(head) < _HEAD_BYTES:
                head += chunk[:_HEAD_BYTES]
                if (kind := what_else(head)) is not None:
                    raise HTTPException(
                        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, words["not_video"].format(kind=kind)
                    )
            file.write(chunk)
            sha256.update(chunk)
            took_s = time.monotonic() - began
            if took_s > _PATIENCE_S and size < _LEAST_BYTES_S * took_s:
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, words["slow"])
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, words["broke_off"]) from None
    except OSError:
        raise HTTPException(HTTPStatus.INSUFFICIENT_STORAGE, words["no_room"]) from None
    if size == 0:
        raise HTTPException(HTTPStatus.BAD_REQUEST, words["empty"])
    file.flush()
    file.seek(0)
    return size, sha256.hexdigest()
