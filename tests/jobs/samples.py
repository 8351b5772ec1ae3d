"""Results and rows as scans make them, for the tests of everything that keeps or asks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from detector.types import (
    Facts,
    Person,
    Policy,
    Reason,
    Segment,
    Status,
    TimedBox,
    Track,
    TrackReason,
    TrackScore,
    Verdict,
    VideoInfo,
    VideoResult,
    Warn,
)
from jobs.listed import Listed
from jobs.schema import Handling, ScanContext, row

DAY = datetime(2026, 11, 25, 12, tzinfo=UTC)
POLICY = Policy(
    policy_id="p1",
    slope=1.0,
    bias=0.0,
    flag=0.9,
    flag_fpr=0.01,
    uncertain=0.6,
    uncertain_fpr=0.05,
    level="crop",
)
CONTEXT = ScanContext(
    scan_id="scan-1",
    scan_date=date(2026, 11, 25),
    settings_id="A",
    weights_id="w1",
    policy=POLICY,
    detector="yunet",
    dtype="fp32",
)


def listed(name: str, version: str = "v1", *, days_old: float = 0) -> Listed:
    return Listed(f"/videos/{name}", 1000, version, DAY - timedelta(days=days_old))


def planned(name: str = "a.mp4", version: str = "v1", **more: Any) -> dict[str, Any]:
    return {
        "uri": f"/videos/{name}",
        "version": version,
        "size": 1000,
        "modified_at": DAY,
        "attempt": 1,
    } | more


def scored(p_fake: float = 0.95) -> VideoResult:
    """Two faces in one window: one scored, one too small."""
    box = TimedBox(0.5, 0.25, 0.25, 0.5, 0.125)
    track = Track(
        track_id=0, person_id=0, window=0, start_s=0.5, end_s=1.5, face_px=120.0, quality=0.75,
        boxes=(box, replace(box, t_s=1.5)), clip=0, reason=None,
    )  # fmt: skip
    small = replace(track, track_id=1, person_id=1, clip=None, reason=TrackReason.TOO_SMALL)
    verdict = Verdict.FLAGGED if p_fake >= POLICY.flag else Verdict.NOT_FLAGGED
    return VideoResult(
        facts=Facts(
            info=VideoInfo(
                duration_s=2.0, width=640, height=360, fps=25.0, codec="h264", container="mp4", rotation=90
            ),
            complete=False,
            warnings=(Warn.TRUNCATED,),
            windows_planned=2,
            frames_decoded=20,
            frames_corrupt=1,
            tracks=(track, small),
        ),
        status=Status.SCORED,
        verdict=verdict,
        logit=2.5,
        p_fake=p_fake,
        p_fake_max_window=p_fake,
        windows_scored=1,
        persons=(
            Person(person_id=0, start_s=0.5, end_s=1.5, windows=1, logit=2.5, p_fake=p_fake, verdict=verdict),
        ),
        tracks=(
            TrackScore(track=track, logit=2.5, p_fake=p_fake),
            TrackScore(track=small, logit=None, p_fake=None),
        ),
        segments=(Segment(start_s=0.5, end_s=1.5, person_id=0, p_fake=p_fake),),
    )


def unscored(status: Status, reason: Reason | None = None) -> VideoResult:
    facts = Facts(failure=reason, message=reason.meaning if reason else "")
    return VideoResult(facts=facts, status=status, verdict=Verdict.NOT_ASSESSED)


def sample_row(
    name: str = "a.mp4",
    outcome: Status | Reason = Status.SCORED,
    *,
    settings_id: str = "A",
    minute: float = 0,
    shadow: bool = False,
    **plan: Any,
) -> dict[str, Any]:
    """A row made by `schema.row`, `minute` minutes after noon; `plan` as `planned` takes it."""
    if isinstance(outcome, Reason):
        result = unscored(Status.FAILED, outcome)
    else:
        result = scored() if outcome is Status.SCORED else unscored(outcome)
    context = replace(CONTEXT, settings_id=settings_id, shadow=shadow)
    made = row(planned(name, **plan), result, context, Handling(fetch_s=0.1, extract_cpu_s=1.0, score_s=0.5))
    return made | {"scanned_at": DAY + timedelta(minutes=minute)}


def rows(count: int, start: int = 0) -> list[Mapping[str, Any]]:
    return [sample_row(f"{i}.mp4") for i in range(start, start + count)]
