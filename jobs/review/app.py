"""The review server as one FastAPI app: its routes, its errors in words, its guard around them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from detector.errors import DeepfakeScanError, InputError, VideoError
from jobs.equipment import Equipment
from jobs.page import strings
from jobs.review import evidence_routes, playback, routes, upload_routes
from jobs.review.answers import onward
from jobs.review.evidence_routes import Films
from jobs.review.guard import Guard, refused
from jobs.review.site import ConflictError, Site
from jobs.review.uploads import Uploads
from jobs.schema import printable, shown

log = logging.getLogger(__name__)


@contextmanager
def open_app(site: Site, keep: Path | None = None) -> Iterator[FastAPI]:
    """The server's app, its guard included, and all that works behind it.

    Args:
        site: What it shows.
        keep: Folder in which uploads are kept; None: they are deleted once they are judged.
    """
    with (
        Equipment() as equipment,
        Equipment(networks=equipment.networks) as of_uploads,  # an upload that takes long holds up no other
        closing(Uploads(of_uploads, site.clock, keep)) as uploads,
        closing(Films(equipment)) as films,
    ):
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
        app.state.site, app.state.uploads, app.state.films = site, uploads, films
        app.state.equipment = (equipment, of_uploads)
        for router in (upload_routes.router, evidence_routes.router, routes.router):
            app.include_router(router)
        app.add_exception_handler(HTTPException, _http_error)
        app.add_exception_handler(RequestValidationError, _http_error)
        app.add_exception_handler(ConflictError, _http_error)
        app.add_exception_handler(DeepfakeScanError, _error)
        app.add_middleware(Guard, door=site.door, body_limit=_body_limit)
        yield app


def _body_limit(path: str) -> int | None:
    """Bytes that may be sent to a path, where these are not those of a form."""
    return upload_routes.MOST_BYTES if path == upload_routes.UPLOADS else None


def _http_error(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):  # only paths are validated so
        return refused(request.headers, HTTPStatus.NOT_FOUND)
    if isinstance(error, ConflictError):
        return refused(request.headers, HTTPStatus.CONFLICT, text=str(error))
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.SEE_OTHER:
        return onward(request, (error.headers or {})["location"])
    status = HTTPStatus(error.status_code)
    given = error.detail if error.detail != status.phrase else None
    answer = refused(request.headers, status, text=given)
    answer.headers.update(error.headers or {})
    return answer


def _error(request: Request, error: Exception) -> Response:
    """What cannot be had or written, in the words of the error."""
    if isinstance(error, VideoError):
        words = strings()["review"]["video"]
        status = HTTPStatus.GONE if playback.is_gone(error) else HTTPStatus.BAD_GATEWAY
        return refused(request.headers, status, text=words[status.name.lower()].format(why=shown(str(error))))
    log.warning("%s: %s", printable(request.url.path), shown(str(error)))
    unknown = isinstance(error, InputError)
    status = HTTPStatus.NOT_FOUND if unknown else HTTPStatus.SERVICE_UNAVAILABLE
    return refused(request.headers, status, text=shown(str(error)))
