"""Routes of a video of the table that cost work: its evidence, and a film that any browser plays."""

from __future__ import annotations

import threading
from collections import OrderedDict
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from detector.types import ExtractOptions
from jobs import query
from jobs.config import ScanSettings
from jobs.equipment import Equipment
from jobs.evidence import Examiner
from jobs.evidence_page import page
from jobs.page import strings
from jobs.reading import open_planned
from jobs.review.asked import RowHere, SiteHere
from jobs.review.playback import part_of

_KEPT_FILMS = 4

router = APIRouter()


class Films:
    """Films of the videos that were looked at last, and the one equipment that makes them."""

    def __init__(self, equipment: Equipment) -> None:
        self.equipment = equipment
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, row: RowHere) -> bytes:
        """H.264 in MP4.

        Raises:
            VideoError: the video cannot be had.
            HTTPException: it cannot be decoded.
        """
        with self._lock:
            if row["video_id"] in self._kept:
                self._kept.move_to_end(row["video_id"])
                return self._kept[row["video_id"]]
        film = self._made(row)
        with self._lock:
            self._kept[row["video_id"]] = film
            while len(self._kept) > _KEPT_FILMS:
                self._kept.popitem(last=False)
        return film

    def _made(self, row: RowHere) -> bytes:
        planned = row | {"size": row["size_bytes"]}
        options = ExtractOptions()
        with self.equipment.lock, open_planned(planned, ScanSettings().max_bytes) as body:
            sandbox = self.equipment.sandbox(options)
            made = sandbox.preview(body.file, options) if sandbox else None
        if made is None or not made.film:
            why = made.facts.message if made else ""
            words = strings()["review"]["video"]["no_preview"]
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, words.format(why=why))
        return made.film


def the_films(request: Request) -> Films:
    """Films of this server."""
    films: Films = request.app.state.films
    return films


FilmsHere = Annotated[Films, Depends(the_films)]


@router.api_route("/videos/{video_id}/preview", methods=["GET", "HEAD"])
def preview(request: Request, row: RowHere, films: FilmsHere) -> Response:
    """A small film of the video, made in the sandbox."""
    return part_of(films.of(row), f"{row['video_id']}-film", "video/mp4", request)


@router.get("/videos/{video_id}/evidence")
def evidence(site: SiteHere, row: RowHere, films: FilmsHere, *, clear: bool = False) -> Response:
    """What the verdict on a video rests on."""
    path = f"/videos/{row['video_id']}"
    with query.connect(site.output) as connection:
        examiner = Examiner(connection, films.equipment)
        found = examiner.examine(examiner.find(row["video_id"]))
    shown = page(found, clear=clear, static_page=False, back=path, own=f"{path}/evidence")
    return Response(shown, media_type="text/html")
