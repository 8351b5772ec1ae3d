"""What routes are told of a request: which site, who asks, the fields of a form, the row of a video."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qsl, unquote

from fastapi import Depends, Path, Request
from starlette.exceptions import HTTPException

from jobs.review.decisions import WHO_CHARS, Row
from jobs.review.guard import cookies
from jobs.review.site import Person, Site

_MOST_FIELDS = 20

VideoId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


def the_site(request: Request) -> Site:
    """What this server shows."""
    site: Site = request.app.state.site
    return site


def the_person(request: Request) -> Person:
    """Who asks.

    Raises:
        HTTPException: no name was given yet; leads to where it is asked for.
    """
    site = the_site(request)
    given = unquote(cookies(request.headers).get(who_cookie(site), ""))
    name = site.user or (given if is_name(given) else None)
    if name is None:
        raise HTTPException(HTTPStatus.SEE_OTHER, headers={"location": "/who"})
    return Person(request.state.session, name)


async def the_form(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        HTTPException: it is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    text = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None


def the_row(video_id: VideoId, site: Annotated[Site, Depends(the_site)]) -> Row:
    """The row of the video in the path.

    Raises:
        HTTPException: there is none.
    """
    row = site.videos.one(video_id)
    if row is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return row


SiteHere = Annotated[Site, Depends(the_site)]
PersonHere = Annotated[Person, Depends(the_person)]
Form = Annotated[dict[str, str], Depends(the_form)]
RowHere = Annotated[Row, Depends(the_row)]


def who_cookie(site: Site) -> str:
    """Name of the cookie that keeps a browser's name."""
    return f"{site.door.cookie}_who"


def is_name(name: str) -> bool:
    """Whether somebody may be called so."""
    return 1 <= len(name) <= WHO_CHARS and name == name.strip() and name.isprintable()
