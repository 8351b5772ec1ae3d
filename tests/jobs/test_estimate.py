"""What a dry run says of time and cost comes from earlier scans of the table, or is not said."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.estimate import Estimate, estimate
from jobs.scan import run
from jobs.table import ResultsTable
from tests.canned import Canned
from tests.scans import scan_settings, touch


def _table(tmp_path: Path, rates: Sequence[float], **more: Any) -> ResultsTable:
    with ResultsTable.create(str(tmp_path / "out")).claim("s") as table:
        for rate in rates:
            row = {
                "started_at": datetime.now(UTC),
                "settings_id": "a" * 12,
                "videos_per_s": rate,
                "done": {"scored": 30},
            }
            table.record_scan("end", row | more)
    return ResultsTable.open(str(tmp_path / "out"))


def test_bounds_are_those_of_the_last_scans_with_the_same_settings(tmp_path: Path) -> None:
    table = _table(tmp_path, [100.0, 2.0, 4.0, 2.5, 3.0, 2.2])
    found = estimate(table, "a" * 12, 3600, 5 * 10**9, price_per_hour=12.0)
    assert found.seconds == (900.0, 1800.0), "the sixth scan back no longer counts"
    assert found.cost == (3.0, 6.0)
    assert found.in_words() == (
        "3,600 videos, 5.0 GB: 15 min to 30 min, 3.00 to 6.00 at your price, as the last 5 scans went"
    )
    assert estimate(table, "b" * 12, 3600, 1, 12.0).seconds is None


@pytest.mark.parametrize("more", [{"done": {"scored": 19}}, {"videos_per_s": 0.0}])
def test_a_scan_that_measured_nothing_is_no_measure(tmp_path: Path, more: dict[str, Any]) -> None:
    found = estimate(_table(tmp_path, [3.0], **more), "a" * 12, 10, 2000, 1.0)
    assert (found.seconds, found.cost) == (None, None)
    assert "has not been measured yet" in found.in_words()
    assert estimate(None, "a" * 12, 10, 2000, 1.0) == Estimate(10, 2000)


def test_a_dry_run_estimates_what_a_scan_then_does(
    tmp_path: Path, seeded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = touch(tmp_path / "videos", *(f"{i}.mp4" for i in range(30)))
    settings = scan_settings(videos, tmp_path / "out", seeded, price_per_hour=1)
    before = run(settings, dry_run=True)
    assert before.estimate == Estimate(30, 0)
    assert "30 videos, 0 bytes; how long that takes" in capsys.readouterr().err
    run(settings, quiet=True, extract=Canned)
    touch(videos, *(f"new-{i}.mp4" for i in range(10)))
    after = run(settings, dry_run=True, quiet=True)
    assert after.estimate is not None
    assert (after.estimate.videos, after.estimate.scans) == (10, 1)
    assert after.as_json()["estimate"]["seconds"][0] > 0
