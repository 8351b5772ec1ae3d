"""The review server as one FastAPI app: its routes, its errors in words, its guard around them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from detector.errors import DeepfakeScanError, VideoError
from jobs.page import strings
from jobs.review import playback
from jobs.review.guard import Guard, refused
from jobs.review.routes import onward, router
from jobs.review.site import ConflictError, Site
from jobs.schema import printable, shown

log = logging.getLogger(__name__)


def create_app(
    site: Site, routers: Sequence[APIRouter] = (), body_limits: Mapping[str, int] | None = None
) -> FastAPI:
    """The server's app, its guard included.

    Args:
        site: What it shows.
        routers: Of further pages. They find `site` in `request.app.state.site`, and come first.
        body_limits: Bytes that may be sent to paths that begin so, where these are not those of a form.
    """

    def body_limit(path: str) -> int | None:
        found = [limit for start, limit in (body_limits or {}).items() if path.startswith(start)]
        return max(found, default=None)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.site = site
    for one in (*routers, router):
        app.include_router(one)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _http_error)
    app.add_exception_handler(ConflictError, _http_error)
    app.add_exception_handler(DeepfakeScanError, _error)
    app.add_middleware(Guard, door=site.door, body_limit=body_limit)
    return app


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
    return refused(request.headers, HTTPStatus.SERVICE_UNAVAILABLE, text=shown(str(error)))
