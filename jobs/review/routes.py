"""The routes of the review page. Whoever gets here was let in by `guard`."""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobs.local import local_path
from jobs.page import strings
from jobs.review import playback
from jobs.review.answers import onward, page
from jobs.review.asked import Form, PersonHere, RowHere, SiteHere, VideoId, is_name, who_cookie
from jobs.review.decisions import NOTE_CHARS, WHO_CHARS, Decision, Row, shown_from
from jobs.review.guard import keep
from jobs.review.queue import Item

_STATIC = {
    "htmx.min.js": "text/javascript",
    "review.css": "text/css",
    "review.js": "text/javascript",
    "style.css": "text/css",
    "upload.js": "text/javascript",
    "wait.js": "text/javascript",
}

router = APIRouter()


def _path(item: Item | None) -> str:
    return "/" if item is None else f"/videos/{item.video_id}"


@router.get("/")
def first(site: SiteHere, person: PersonHere) -> Response:
    """The first video that waits, or that none does."""
    item = site.next(person)
    if item is not None:
        return RedirectResponse(_path(item), HTTPStatus.SEE_OTHER)
    return page("review_empty.html.j2", person=person, held=len(site.queue.items()))


@router.get("/who")
def ask_who(site: SiteHere) -> Response:
    """Ask for a name."""
    return page("review_who.html.j2", most=WHO_CHARS, fixed=site.user)


@router.post("/who")
def set_who(request: Request, site: SiteHere, form: Form) -> Response:
    """Keep a name in the browser."""
    name = form.get("who", "").strip()
    if not is_name(name):
        raise HTTPException(HTTPStatus.BAD_REQUEST, strings()["review"]["wrong_name"].format(most=WHO_CHARS))
    answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    keep(answer, request.headers, who_cookie(site), quote(name, safe=""))
    return answer


@router.get("/videos/{video_id}")
def show(site: SiteHere, person: PersonHere, row: RowHere) -> Response:
    """One video; whoever opens it first holds it."""
    lease, opened = site.open(person, row["video_id"])
    stands, items = site.stands(row), site.queue.items()
    places = [place for place, item in enumerate(items, 1) if item.video_id == row["video_id"]]
    return page(
        "review_video.html.j2",
        row=row,
        title=PurePosixPath(local_path(row["uri"]) or row["uri"]).name,
        people=_people(row),
        player=_player(row),
        person=person,
        page=opened,
        holder=None if lease.holder == person.session else lease.name,
        stands=stands,
        seen=site.seen(row, stands),
        place=places[0] if places else None,
        waiting=len(items),
        note_chars=NOTE_CHARS,
    )


@router.get("/videos/{video_id}/next")
def go_on(site: SiteHere, person: PersonHere, row: RowHere) -> Response:
    """The video after this one."""
    return RedirectResponse(_path(site.next(person, row["video_id"])), HTTPStatus.SEE_OTHER)


@router.get("/videos/{video_id}/previous")
def go_back(site: SiteHere, person: PersonHere, row: RowHere) -> Response:
    """The video before this one."""
    return RedirectResponse(_path(site.next(person, row["video_id"], -1)), HTTPStatus.SEE_OTHER)


def _people(row: Row) -> list[dict[str, Any]]:
    """Everybody who was seen in a video: number, score and faces; scored ones first."""
    scored = {person["person_id"]: person for person in row["persons"]}
    tracks: dict[int, list[dict[str, Any]]] = {}
    for track in row["tracks"]:
        tracks.setdefault(track["person_id"], []).append(track)
    order = sorted(tracks, key=lambda number: (-scored[number]["p_fake"] if number in scored else 1, number))
    return [{"number": number, "score": scored.get(number), "tracks": tracks[number]} for number in order]


def _player(row: Row) -> dict[str, Any]:
    """What the script needs: times in seconds, boxes as fractions of the displayed frame."""
    return {
        "id": row["video_id"],
        "width": row["width"] or 16,
        "height": row["height"] or 9,
        "frame_s": 1 / row["fps"] if row["fps"] else 0.04,
        "segments": sorted([segment["start_s"], segment["end_s"]] for segment in row["segments"]),
        "tracks": [
            {
                "person": track["person_id"],
                "start": track["start_s"],
                "end": track["end_s"],
                "boxes": [
                    [round(box[side], 5) for side in ("t_s", "x", "y", "w", "h")] for box in track["boxes"]
                ],
            }
            for track in row["tracks"]
        ],
    }


# --- what changes something -------------------------------------------------------------------------------


@router.post("/videos/{video_id}/decision")
def decide(request: Request, site: SiteHere, person: PersonHere, video_id: VideoId, form: Form) -> Response:
    """Record a decision, and lead to the next video."""
    words = strings()["review"]
    note = form.get("note", "").replace("\r\n", "\n").strip()
    if len(note) > NOTE_CHARS:
        raise HTTPException(HTTPStatus.BAD_REQUEST, words["long_note"].format(most=NOTE_CHARS))
    if form.get("decision") not in (Decision.FAKE, Decision.REAL, Decision.UNSURE):
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    try:
        was_shown = shown_from(form.get("shown", ""))
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None
    decision, seen = Decision(form["decision"]), form.get("seen", "")
    following = site.decide(person, video_id, decision, seen, note=note, shown=was_shown)
    return onward(request, _path(following))


@router.post("/undo")
def undo(request: Request, site: SiteHere, person: PersonHere) -> Response:
    """Take back one's newest decision, and lead back to its video."""
    return onward(request, f"/videos/{site.undo(person)['video_id']}")


@router.post("/videos/{video_id}/skip")
def skip(request: Request, site: SiteHere, person: PersonHere, row: RowHere) -> Response:
    """Leave a video to others, and lead to the next."""
    site.leases.release(row["video_id"], person.session)
    return onward(request, _path(site.next(person, row["video_id"])))


@router.post("/videos/{video_id}/heartbeat")
def renew(site: SiteHere, person: PersonHere, row: RowHere) -> Response:
    """Go on holding a video; says who does where it is somebody else."""
    site.take(person, row["video_id"])
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/videos/{video_id}/leave")
def leave(site: SiteHere, person: PersonHere, video_id: VideoId, page: str = "") -> Response:
    """Give a video back, as its page is closed: all in the address, for a body might not get here."""
    site.leases.release(video_id, person.session, page)
    return Response(status_code=HTTPStatus.NO_CONTENT)


# --- bytes ------------------------------------------------------------------------------------------------


@router.api_route("/videos/{video_id}/media", methods=["GET", "HEAD"])
async def media(request: Request, row: RowHere) -> Response:
    """The video itself."""
    return await playback.answer(row, request.method, request.headers)


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
def static(name: str) -> Response:
    """A file of the package; the list is fixed, so that no name leads anywhere else."""
    if name not in _STATIC:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return Response((files("jobs") / "pages" / "static" / name).read_bytes(), media_type=_STATIC[name])
