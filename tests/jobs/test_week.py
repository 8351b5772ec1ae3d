"""A few nights of `make soak BAR=week`, with fewer objects."""

import random
from pathlib import Path

import pytest

from tests.nightly import Week
from tests.soak import week as nights


@pytest.mark.xdist_group("s3")
def test_nights_with_mishaps_leave_a_row_for_each_version_that_was_listed(
    bucket: str, tmp_path: Path
) -> None:
    week = Week(tmp_path, bucket, commit_rows=8)
    week.uploads.a_day(24)
    # Two of 24 fail, more than the shipped settings put up with; one file is read faster than many.
    words = ("--max-failed", "10%", "--set", "commit_rows=100")
    failed = nights.disturbed(week, "changed while it ran", *words)
    week.uploads.a_day(12, 4, 2)
    nights.restore(week, failed)
    nights.killed(week, "killed", random.Random(1))
    nights.overlapped(week, "again, met by another", met_at=2)
    assert not week.complaints, "\n".join(week.complaints)
    assert week.calls == len(week.rows) + week.lost
