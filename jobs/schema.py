"""The row schema of the table: its columns (`jobs.columns`), and results as rows of it.

Here alone `detector`'s types become columns. `python -m jobs.schema` writes the columns into `docs/table.md`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from detector.types import Facts, Policy, Reason, Status, TrackScore, Verdict, VideoResult
from jobs.columns import RESULTS, REVIEWS, SCANS, SCHEMA_VERSION, document, video_id
from jobs.redact import redacted

__all__ = [
    "RESULTS",
    "REVIEWS",
    "SCANS",
    "SCHEMA_VERSION",
    "Handling",
    "ScanContext",
    "failed_row",
    "plain",
    "printable",
    "printable_lines",
    "row",
    "shown",
    "to_arrow",
    "video_id",
]

MESSAGE_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanContext:
    """What all rows of one scan share. `scan_date` is the UTC day on which the scan started."""

    scan_id: str
    scan_date: date
    settings_id: str
    weights_id: str
    policy: Policy
    detector: str
    dtype: str | None
    engine: str = "torch"
    shadow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """What the stages noted of one video on its way; times in seconds."""

    fetch_s: float | None = None
    extract_cpu_s: float | None = None
    score_s: float | None = None
    integrity: str | None = None
    content_sha256: str | None = None


def row(
    planned: Mapping[str, Any], result: VideoResult, context: ScanContext, handling: Handling | None = None
) -> dict[str, Any]:
    """The row of `RESULTS` for one video.

    Args:
        planned: The video's row of the plan: uri, version, size, modified_at, attempt; where the listing has
            them, video_id, version_id and extra.
        result: What became of it. A scored result without a usable number becomes `failed / model_error`.
        context: The scan.
        handling: Times and checks on the way.
    """
    result = _checked(result)
    return (
        _identity(planned, context, handling or Handling())
        | _outcome(result, context.policy)
        | _facts(result.facts)
        | {"detector": context.detector, "engine": context.engine, "dtype": context.dtype}
        | _detail(result)
    )


def failed_row(
    planned: Mapping[str, Any],
    reason: Reason,
    message: str,
    context: ScanContext,
    handling: Handling | None = None,
) -> dict[str, Any]:
    """The row of a video of which nothing is known but why it failed."""
    facts = Facts(failure=reason, message=message)
    result = VideoResult(facts=facts, status=Status.FAILED, verdict=Verdict.NOT_ASSESSED)
    return row(planned, result, context, handling)


def to_arrow(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of exactly `RESULTS`; it needs a tenth of the memory of the dicts."""
    return pa.Table.from_pylist(list(rows), schema=RESULTS)


def plain(text: str, limit: int | None = None) -> str:
    """`text` as UTF-8 can hold it, lone surrogates spelled out, cut to `limit` characters."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str) -> str:
    """`text` for a terminal or a log: what moves the cursor, hides or turns text around is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """`printable`, line by line."""
    return "\n".join(printable(line) for line in text.split("\n"))


def shown(text: str) -> str:
    """`text`, which may have several lines, for a terminal or a log: `printable`, and without secrets."""
    return printable_lines(redacted(text))


def _checked(result: VideoResult) -> VideoResult:
    """`result`, or a failure where its score is none: such a number must never reach the table."""
    numbers = (result.logit, result.p_fake, result.p_fake_max_window)
    finite = all(n is not None and math.isfinite(n) for n in numbers)
    if result.status is not Status.SCORED or (finite and 0 <= (result.p_fake or 0.0) <= 1):
        return result
    facts = replace(
        result.facts, failure=Reason.MODEL_ERROR, message="the network's answer is not a finite number"
    )
    return VideoResult(facts=facts, status=Status.FAILED, verdict=Verdict.NOT_ASSESSED)


def _identity(planned: Mapping[str, Any], context: ScanContext, handling: Handling) -> dict[str, Any]:
    uri, version = planned["uri"], planned["version"]
    return {
        "video_id": planned.get("video_id") or video_id(uri, version),
        "uri": uri,
        "version": version,
        "version_id": planned.get("version_id"),
        "size_bytes": planned.get("size"),
        "modified_at": _utc(planned.get("modified_at")),
        "content_sha256": handling.content_sha256,
        "settings_id": context.settings_id,
        "weights_id": context.weights_id,
        "policy_id": context.policy.policy_id,
        "schema_version": SCHEMA_VERSION,
        "scan_id": context.scan_id,
        "scan_date": context.scan_date,
        "scanned_at": datetime.now(UTC),
        "attempt": planned.get("attempt", 1),
        "shadow": context.shadow,
        "extra": planned.get("extra"),
        "integrity": handling.integrity,
        "fetch_s": _finite(handling.fetch_s),
        "extract_cpu_s": _finite(handling.extract_cpu_s),
        "score_s": _finite(handling.score_s),
    }


def _outcome(result: VideoResult, policy: Policy) -> dict[str, Any]:
    failed = result.status is Status.FAILED
    return {
        "status": str(result.status),
        "reason": str(result.facts.failure or Reason.INTERNAL_ERROR) if failed else None,
        "message": plain(redacted(result.facts.message), MESSAGE_CHARS) if failed else None,
        "logit": _finite(result.logit),
        "p_fake": _finite(result.p_fake),
        "p_fake_max_window": _finite(result.p_fake_max_window),
        "verdict": str(result.verdict),
        "threshold_flag": policy.flag,
        "threshold_uncertain": policy.uncertain,
        "threshold_level": policy.level,
        # A rate per clip says nothing about videos, so it is not shown as if it did.
        "threshold_fpr": policy.flag_fpr if policy.level == "video" else None,
    }


def _facts(facts: Facts) -> dict[str, Any]:
    info = facts.info
    return {
        "complete": facts.complete,
        "warnings": [str(w) for w in facts.warnings],
        "duration_s": _finite(info.duration_s) if info else None,
        "width": info.width if info else None,
        "height": info.height if info else None,
        "fps": _finite(info.fps) if info else None,
        "codec": plain(info.codec, MESSAGE_CHARS) if info else None,
        "container": plain(info.container, MESSAGE_CHARS) if info else None,
        "rotation": info.rotation if info else None,
        "windows_planned": facts.windows_planned,
        "frames_decoded": facts.frames_decoded,
        "frames_corrupt": facts.frames_corrupt,
    }


def _detail(result: VideoResult) -> dict[str, Any]:
    tracks = result.tracks or tuple(TrackScore(track=t, logit=None, p_fake=None) for t in result.facts.tracks)
    return {
        "windows_scored": result.windows_scored,
        "tracks_found": len(tracks),
        "tracks_scored": sum(t.logit is not None for t in tracks),
        "persons": [
            {
                "person_id": p.person_id,
                "start_s": p.start_s,
                "end_s": p.end_s,
                "windows": p.windows,
                "logit": _finite(p.logit),
                "p_fake": _finite(p.p_fake),
                "verdict": str(p.verdict),
            }
            for p in result.persons
        ],
        "tracks": [_track(t) for t in tracks],
        "segments": [
            {"start_s": s.start_s, "end_s": s.end_s, "person_id": s.person_id, "p_fake": _finite(s.p_fake)}
            for s in result.segments
        ],
    }


def _track(scored: TrackScore) -> dict[str, Any]:
    track = scored.track
    return {
        "track_id": track.track_id,
        "person_id": track.person_id,
        "start_s": track.start_s,
        "end_s": track.end_s,
        "frames": len(track.boxes),
        "face_px": _finite(track.face_px),
        "quality": _finite(track.quality),
        "logit": _finite(scored.logit),
        "p_fake": _finite(scored.p_fake),
        "reason": str(track.reason) if track.reason else None,
        "boxes": [{"t_s": b.t_s, "x": b.x, "y": b.y, "w": b.w, "h": b.h} for b in track.boxes],
    }


def _finite(number: float | None) -> float | None:
    """A float that SQL can compare and average; NaN sorts above everything there."""
    return float(number) if number is not None and math.isfinite(number) else None


def _utc(moment: datetime | np.datetime64[Any] | None) -> datetime | None:
    """UTC, whatever shape the time took on its way through Arrow, numpy and Ray (which drops the zone)."""
    if isinstance(moment, np.datetime64):
        exact: datetime | None = moment.astype("datetime64[us]").item()
        return _utc(exact)
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


if __name__ == "__main__":
    page = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/table.md")
    page.write_text(document(page.read_text("utf-8")), "utf-8")
