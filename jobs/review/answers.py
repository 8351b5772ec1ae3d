"""What routes answer with: a page, or where to go on."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from jobs.page import render


def page(template: str, **values: Any) -> Response:
    """A page of the server, or a part of one."""
    return Response(render(template, static_page=False, **values), media_type="text/html")


def onward(request: Request, path: str) -> Response:
    """Lead to another page, from a form or from a part of a page."""
    if "hx-request" in request.headers:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"hx-redirect": path})
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)
