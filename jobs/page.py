"""HTML pages: one style, one file of strings, nothing from a video taken for markup.

Static pages (`render` with `static_page=True`) carry their style and pictures in them: readable without
script, without network, from disk. Those of the review server link to both.
"""

from __future__ import annotations

import base64
import math
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detector.verdict import verdict_at
from jobs.schema import printable
from jobs.units import rounded_size


def render(template: str, *, static_page: bool, **values: Any) -> str:
    """The HTML of a template below `jobs/pages`. `values` may come from strangers: all of it is escaped."""
    return environment().get_template(template).render(static_page=static_page, **values)


@cache
def environment() -> Environment:
    """Templates; a name that is missing is an error, not a gap."""
    made = Environment(
        loader=PackageLoader("jobs", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"t": strings(), "verdict_at": verdict_at, "style": Markup(style())}  # noqa: S704  # ours
    made.filters |= {
        "band_words": band_words,
        "count": lambda number: f"{number:,}",
        "name": name,
        "score": score,
        "seconds": seconds,
        "rate": lambda rate: f"{rate:.2f}" if rate and math.isfinite(rate) else "",
        "segment_words": segment_words,
        "share": share,
        "size": lambda size: "" if size is None else rounded_size(size),
        "warning_words": lambda warning: strings()["warning"].get(warning, name(warning)),
        "when": when,
    }
    return made


@cache
def strings() -> dict[str, Any]:
    """What pages say, by page."""
    return tomllib.loads((files("jobs") / "pages" / "english.toml").read_text("utf-8"))


@cache
def style() -> str:
    """The style sheet."""
    return (files("jobs") / "pages" / "static" / "style.css").read_text("utf-8")


def name(text: str | None) -> str:
    """A name or message of a stranger: what hides, or turns text around, is spelled out."""
    return "" if text is None else printable(text)


def score(value: float | None) -> str:
    """A score or threshold, to three digits."""
    return "" if value is None or not math.isfinite(value) else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """A time within a video: `12.3 s`; from a minute on `1:02.3`, from an hour on `1:02:03.4`."""
    if value is None or not math.isfinite(value):
        return ""
    tenths = round(value * 10)
    if tenths < 600:
        return f"{tenths / 10:.1f} s"
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{rest / 10:04.1f}"


def share(value: float | None) -> str:
    """A share as a percentage, with two digits that mean something."""
    return "" if value is None else f"{100 * value:.3g} %"


def when(moment: datetime | date | None) -> str:
    """ISO 8601 with its zone, to the second; a day as it is."""
    if moment is None:
        return ""
    if not isinstance(moment, datetime):
        return moment.isoformat()
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def segment_words(segment: Mapping[str, Any]) -> str:
    """A segment in words."""
    start, end = seconds(segment["start_s"]), seconds(segment["end_s"])
    text: str = strings()["evidence"]["segment"].format(
        start=start, end=end, score=f"{segment['p_fake']:.3f}"
    )
    return text


def band_words(person: Any, row: Mapping[str, Any]) -> str:
    """What a band of scores shows, for whoever cannot see it. `person` has `person_id` and `tracks`."""
    words = strings()["evidence"]
    bars = [
        words["band_bar"].format(score=f"{track['p_fake']:.3f}", start=seconds(track["start_s"]))
        for track in person.tracks
        if track["p_fake"] is not None
    ]
    text: str = words["band"].format(
        id=person.person_id,
        bars=", ".join(bars),
        flag=score(row["flag_today"]),
        uncertain=score(row["uncertain_today"]),
    )
    return text


def jpeg_uri(data: bytes) -> str:
    """A JPEG as the address of a picture that lies in the page."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
