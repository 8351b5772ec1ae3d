"""Scans that were never run: any number of rows with known outcomes, written as scans write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from detector.types import Policy, Reason, Status
from detector.verdict import verdict_at
from jobs.columns import video_id
from jobs.schema import to_arrow
from jobs.table import ResultsTable
from tests.jobs.samples import DAY, POLICY, sample_row

_REASONS = (Reason.CORRUPT, Reason.INCOMPLETE, Reason.FETCH_FAILED)
VERSIONS = {"deepfake-scan": "0.1.0", "torch": "2.15"}


def night_rows(
    count: int, seed: int, *, shift: float = 0.0, reasons: Sequence[Reason] = _REASONS
) -> pa.Table:
    """Rows of `RESULTS`: four of five are scored, one in twelve failed; `shift` moves the logits."""
    random = np.random.default_rng(seed)
    status = random.choice([str(s) for s in Status], count, p=(0.8, 0.08, 0.04, 0.08))
    scored = status == Status.SCORED
    logit = random.normal(-3.0 + shift, 2.5, count)
    p_fake = 1 / (1 + np.exp(-logit))
    drawn = random.choice([str(r) for r in reasons], count)
    reason = [
        str(one) if failed else None for one, failed in zip(drawn, status == Status.FAILED, strict=True)
    ]
    verdict = [
        verdict_at(float(p) if ok else None, POLICY.flag, POLICY.uncertain)
        for p, ok in zip(p_fake, scored, strict=True)
    ]
    uris = [f"s3://videos/{seed}/{number % 100:02}/{number:07}.mp4" for number in range(count)]
    return replaced(
        to_arrow([sample_row()]).take([0] * count),
        uri=uris,
        video_id=[video_id(uri, "v1") for uri in uris],
        status=status.tolist(),
        reason=reason,
        message=[None if one is None else f"it is {one}" for one in reason],
        logit=[float(one) if ok else None for one, ok in zip(logit, scored, strict=True)],
        p_fake=[float(one) if ok else None for one, ok in zip(p_fake, scored, strict=True)],
        verdict=[str(one) for one in verdict],
        duration_s=random.uniform(2, 600, count).tolist(),
        fetch_s=random.uniform(0, 2, count).tolist(),
        extract_cpu_s=random.uniform(1, 3, count).tolist(),
        score_s=random.uniform(0, 1, count).tolist(),
    )


def replaced(rows: pa.Table, **columns: Sequence[Any]) -> pa.Table:
    """The rows with other values in some columns."""
    for name, values in columns.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))
    return rows


def write_night(
    output: str,
    scan_id: str,
    rows: pa.Table | None,
    *,
    hour: float = 0,
    policy: Policy = POLICY,
    ended: bool = True,
    shadow: bool = False,
    **scan: Any,
) -> pa.Table | None:
    """A scan `hour` hours after noon that wrote `rows` in one append and took half an hour; its rows."""
    started = DAY + timedelta(hours=hour)
    record = _record(started, policy, shadow, 0 if rows is None else len(rows)) | scan
    with ResultsTable.create(output).claim(scan_id) as table:
        table.record_scan("start", record | {"at": started})
        if rows is not None:
            count = len(rows)
            rows = replaced(
                rows,
                scan_id=[scan_id] * count,
                scan_date=[started.date()] * count,
                scanned_at=[started + timedelta(minutes=1)] * count,
                shadow=[shadow] * count,
                settings_id=[record["settings_id"]] * count,
                weights_id=[record["weights_id"]] * count,
                policy_id=[policy.policy_id] * count,
            )
            table.append(rows)
        if ended:
            end = {"at": started + timedelta(minutes=30), "exit_code": 0, "videos_per_s": 5.5}
            table.record_scan("end", record | end | scan)
    return rows


def _record(started: datetime, policy: Policy, shadow: bool, count: int) -> dict[str, Any]:
    settings = {"all": {"weights": "balanced", "price_per_hour": 3.0}, "policy": asdict(policy)}
    return {
        "started_at": started,
        "inputs": ["s3://videos/"],
        "settings_id": "A",
        "settings": json.dumps(settings),
        "weights_id": "w1",
        "policy_id": policy.policy_id,
        "shadow": shadow,
        "listed": count + 50,
        "planned": count,
        "versions": VERSIONS,
    }
