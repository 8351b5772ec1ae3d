"""Files whose children misbehave, among videos that do not; the full count: `make soak BAR=faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.sandbox import TEST_FAULTS
from jobs.scan import run
from tests.scans import read_rows, scan_settings
from tests.soak.faults import LIMITS, REASONS, make_videos, replaced, wrong


@pytest.mark.timeout(300)
def test_each_fault_of_a_child_costs_its_file_one_row_and_the_rows_of_others_nothing(
    seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TEST_FAULTS, "1")
    videos = make_videos(tmp_path / "videos", 24)
    run(scan_settings(videos, tmp_path / "clean", seeded), quiet=True)
    clean = read_rows(tmp_path / "clean")
    assert {row["status"] for row in clean} == {"scored"}

    with replaced(videos, list(REASONS)) as injected:
        settings = scan_settings(videos, tmp_path / "faults", seeded, **LIMITS)
        summary = run(settings, quiet=True)
    rows = read_rows(tmp_path / "faults")
    assert wrong(rows, clean, injected) == []
    assert sum(row["status"] == "failed" for row in rows) == len(REASONS)
    assert (summary.done, summary.exit_code) == (24, 3)
