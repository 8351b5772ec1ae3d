"""Routes of a video of the table that cost work: its evidence, and a film that any browser plays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from detector.types import ExtractOptions
from jobs import query
from jobs.config import ScanSettings
from jobs.equipment import Equipment
from jobs.evidence import Evidence, Examiner
from jobs.evidence_page import Served, page
from jobs.page import strings
from jobs.reading import open_planned
from jobs.review.asked import RowHere, SiteHere
from jobs.review.bench import Bench, CrowdedError, Kept
from jobs.review.decisions import Row
from jobs.review.playback import part_of

# A player asks for one film again and again; a page is opened again by F5 or without the veil.
_FILMS, _FILM_S = 4, 600.0
_EVIDENCE, _PAGES, _PAGE_S = 2, 4, 60.0
_RETRY_S = 15

router = APIRouter()


class Films:
    """Films and evidence of the videos that were looked at last, and the one equipment that makes them."""

    def __init__(self, equipment: Equipment) -> None:
        self.equipment = equipment
        self._films: Kept[bytes] = Kept(_FILMS, _FILM_S)
        self._pages: Kept[bytes] = Kept(_PAGES, _PAGE_S)
        self._evidence: Kept[Evidence] = Kept(_EVIDENCE, _PAGE_S)
        self._bench = Bench(self._forget)

    def close(self) -> None:
        """Drop who waits, and end what is being decoded."""
        self._bench.close(self.equipment.close)

    async def film(self, row: Row, request: Request) -> bytes:
        """H.264 in MP4.

        Raises:
            VideoError: the video cannot be had.
            HTTPException: it cannot be decoded, too many wait, or the browser went away.
        """
        return await self._had(self._films, ("film", row["video_id"]), lambda: self._film(row), request)

    async def page(self, output: str, row: Row, request: Request, *, clear: bool) -> bytes:
        """The HTML of a video's evidence.

        Raises:
            HTTPException: too many wait, or the browser went away.
        """
        key = ("page", row["video_id"], row["scan_id"], clear)
        return await self._had(self._pages, key, lambda: self._page(output, row, clear=clear), request)

    async def _had(
        self, kept: Kept[bytes], key: Hashable, make: Callable[[], bytes], request: Request
    ) -> bytes:
        if (found := kept.get(key)) is not None:
            return found

        def made() -> bytes:
            if (meanwhile := kept.get(key)) is not None:
                return meanwhile
            new = make()
            kept.put(key, new)
            return new

        try:
            return await _while_there(request, self._bench.made(key, made))
        except CrowdedError:
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE,
                strings()["review"]["video"]["crowded"],
                {"retry-after": str(_RETRY_S)},
            ) from None

    def _film(self, row: Row) -> bytes:
        planned = row | {"size": row["size_bytes"]}
        options = ExtractOptions()
        with (
            open_planned(planned, ScanSettings().max_bytes) as body,
            self.equipment.decoding(body.file, options) as sandbox,
        ):
            made = sandbox.preview(body.file, options) if sandbox else None
        if made is None or not made.film:
            why = made.facts.message if made else ""
            words = strings()["review"]["video"]["no_preview"]
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, words.format(why=why))
        return made.film

    def _page(self, output: str, row: Row, *, clear: bool) -> bytes:
        key = (row["video_id"], row["scan_id"])
        found = self._evidence.get(key)
        if found is None:
            with query.connect(output) as connection:
                examiner = Examiner(connection, self.equipment)
                found = examiner.examine(examiner.find(row["video_id"]))
            self._evidence.put(key, found)
        path = f"/videos/{row['video_id']}"
        return page(found, clear=clear, served=Served(back=path, own=f"{path}/evidence")).encode()

    def _forget(self) -> None:
        for kept in (self._films, self._pages, self._evidence):
            kept.forget()


async def _while_there(request: Request, work: Coroutine[Any, Any, bytes]) -> bytes:
    """What `work` returns, unless the browser goes away before: nobody would read it."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def the_films(request: Request) -> Films:
    """Films of this server."""
    films: Films = request.app.state.films
    return films


FilmsHere = Annotated[Films, Depends(the_films)]


@router.api_route("/videos/{video_id}/preview", methods=["GET", "HEAD"])
async def preview(request: Request, row: RowHere, films: FilmsHere) -> Response:
    """A small film of the video, made in the sandbox."""
    try:
        film = await films.film(row, request)
    except asyncio.CancelledError:
        return _ending()
    return part_of(film, f"{row['video_id']}-film", "video/mp4", request)


@router.get("/videos/{video_id}/evidence")
async def evidence(
    request: Request, site: SiteHere, row: RowHere, films: FilmsHere, *, clear: bool = False
) -> Response:
    """What the verdict on a video rests on."""
    try:
        return Response(await films.page(site.output, row, request, clear=clear), media_type="text/html")
    except asyncio.CancelledError:
        return _ending()


def _ending() -> Response:
    """For who still waits when uvicorn ends and cancels, in place of a traceback on the terminal for each."""
    words = strings()["review"]["video"]["ending"]
    return Response(words, HTTPStatus.SERVICE_UNAVAILABLE, media_type="text/plain")
