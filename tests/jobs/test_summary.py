import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from detector.types import Reason, Status
from jobs.bottleneck import Workers
from jobs.output import LocalOutput
from jobs.plan import PLAN, Plan
from jobs.schema import to_arrow
from jobs.summary import FINISHED, SOME_FAILED, WORK_LEFT, Summary
from tests.jobs.samples import sample_row

PLANNED = Plan(
    rows=pa.Table.from_pylist(
        [{"uri": f"/{i}", "version": "1", "size": 1, "attempt": 1} for i in range(3)], schema=PLAN
    ),
    listed=1_204,
    done=1_201,
    failed=0,
    due=3,
    retried=0,
    changed=0,
    other_settings=0,
)


def summary(**more: Any) -> Summary:
    return Summary(
        **{
            "output": "results/",
            "scan_id": "s",
            "settings_id": "A",
            "weights": "seeded",
            "weights_id": "w",
            "trained": True,
            "started_at": datetime.now(UTC),
        }
        | more
    )


def counted(*rows: Mapping[str, Any], **more: Any) -> Summary:
    made = summary(**more)
    made.count(to_arrow(rows))
    return made


def failures(count: int, of: int) -> Summary:
    bad = [sample_row(f"bad{i}.mp4", Reason.NOT_VIDEO) for i in range(count)]
    return counted(*bad, *(sample_row(f"{i}.mp4") for i in range(of - count)))


def test_the_opening_says_what_there_is_to_do() -> None:
    made = summary()
    made.take(PLANNED, {})
    assert made.opening() == "1,204 listed · 1,201 done · 3 to do"
    made.take(replace(PLANNED, retried=2), {".txt": 1_000, ".pdf": 7})
    assert made.opening() == (
        "1,204 listed · 1,201 done · 3 to do (2 tried again) · 1,007 other files skipped"
    )


def test_the_opening_of_a_scan_with_nothing_to_do_says_so_in_one_line() -> None:
    made = summary()
    made.take(replace(PLANNED, rows=PLANNED.rows.slice(0, 0), due=0), {})
    assert made.opening() == "1,204 listed · 1,201 done · 0 to do: nothing to scan"


def test_what_a_limit_leaves_is_said_and_exits_6_whatever_failed() -> None:
    made = failures(1, 3)
    made.take(replace(PLANNED, due=1_003), {})
    assert made.opening().endswith("3 to do · 1,000 left by the limit")
    made.finish(None)
    assert made.exit_code == WORK_LEFT == 6


def test_the_last_lines_say_what_happened_and_where_the_rest_is() -> None:
    made = counted(
        sample_row("a.mp4") | {"complete": True},
        sample_row("b.mp4", Status.NO_FACE),
        sample_row("c.mp4", Reason.NOT_VIDEO),
        sample_row("d.mp4", Reason.NOT_VIDEO),
        sample_row("e.mp4", Reason.LOST),
    )
    first, scored, most, second, rest = made.closing().split("\n")
    assert first.startswith("5 videos in 0 s: 1 scored · 1 no face · 3 failed")
    assert scored == "  scored: 1 flagged · 0 uncertain · 0 not flagged"
    assert most == f"  2 not_video: {Reason.NOT_VIDEO.meaning}, e.g. /videos/c.mp4"
    assert second.startswith("  1 lost: ")
    assert rest == "  all of them: deepfake-scan query failed results/"


def test_what_was_judged_with_a_part_missing_is_counted_where_it_cannot_be_overlooked() -> None:
    whole = sample_row("b.mp4") | {"complete": True}
    made = counted(sample_row("a.mp4"), whole, sample_row("c.mp4", Reason.NOT_VIDEO) | {"complete": False})
    assert made.closing().split("\n")[2] == "  not complete: 1, judged by what is there"
    assert made.as_json()["incomplete"] == 1


def test_the_counts_add_up() -> None:
    made = failures(3, of=10)
    assert (made.done, made.failed, made.verdicts.total()) == (10, 3, 10)
    assert made.extract_cpu_s == pytest.approx(10)
    assert made.video_hours == pytest.approx(7 * 2 / 3600), "what failed has no duration"


def test_scores_of_an_untrained_network_are_called_meaningless() -> None:
    assert "mean nothing" in counted(sample_row(), trained=False).closing()
    assert "mean nothing" not in counted(sample_row()).closing()
    assert "mean nothing" not in counted(sample_row("a", Reason.LOST), trained=False).closing()


def test_thresholds_that_nobody_measured_are_called_so() -> None:
    unmeasured = {"threshold_level": "none"}
    assert "never measured" in counted(sample_row(), **unmeasured).closing()
    assert "never measured" not in counted(sample_row()).closing()
    assert "never measured" not in counted(sample_row("a", Reason.LOST), **unmeasured).closing()
    assert "never measured" not in counted(sample_row(), trained=False, **unmeasured).closing()


def test_a_name_that_would_move_the_cursor_is_spelled_out() -> None:
    made = counted(sample_row("\x1b[2J\u202eoops.mp4", Reason.NOT_VIDEO))
    assert r"\x1b[2J\u202eoops.mp4" in made.closing()
    assert "\x1b" not in made.closing()


@pytest.mark.parametrize(
    ("failed", "of", "allowed", "code"),
    [
        (0, 10, None, FINISHED),
        (1, 10, None, SOME_FAILED),
        (1, 10, 0.1, FINISHED),
        (2, 10, 0.1, SOME_FAILED),
        (0, 0, None, FINISHED),
        (1, 10, 0.0, SOME_FAILED),
    ],
)
def test_the_exit_code_tells_whether_more_failed_than_allowed(
    failed: int, of: int, allowed: float | None, code: int
) -> None:
    made = failures(failed, of)
    made.finish(allowed)
    assert made.exit_code == code


def test_the_exit_code_of_a_stopped_scan_stays() -> None:
    made = failures(1, 10)
    made.exit_code = 130
    made.finish(None)
    assert made.exit_code == 130


def test_the_file_holds_everything_and_is_replaced_whole(tmp_path: Path) -> None:
    made = failures(1, 2)
    made.write(LocalOutput(tmp_path / "new"))
    made.finish(None)
    made.write(LocalOutput(tmp_path / "new"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["summary.json"]
    content = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert content == made.as_json() | {"seconds": content["seconds"]}
    assert content["status"] == {"failed": 1, "scored": 1}
    assert content["reasons"] == {"not_video": 1}
    assert content["examples"] == {"not_video": "/videos/bad0.mp4"}
    assert content["exit_code"] == SOME_FAILED
    assert datetime.fromisoformat(content["finished_at"]).tzinfo is not None


def test_a_scan_of_many_videos_says_what_it_took_and_what_would_help() -> None:
    rows = [sample_row(f"{i}.mp4") for i in range(30)]
    made = counted(*rows, workers=Workers(1, 1, on_gpu=False), price_per_hour=3600.0)
    made.work_s = made.extract_cpu_s / 0.8
    made.finish(None)
    assert made.size_bytes == sum(row["size_bytes"] for row in rows)
    assert made.bottleneck
    assert made.bottleneck.stage == "extract"
    [line] = [line for line in made.closing().splitlines() if "of video" in line]
    assert "busy 80% of the time" in line
    assert "more CPU cores" in line
    assert "at your price" in line
    content = made.as_json()
    assert content["bottleneck"]["advice"] in line
    assert content["cost"] == pytest.approx(content["seconds"], abs=0.1)
    assert json.loads(json.dumps(content)) == content


def test_a_scan_of_a_few_videos_gives_no_advice() -> None:
    made = counted(sample_row("a.mp4"), workers=Workers(1, 1, on_gpu=False))
    made.work_s = 100.0
    made.finish(None)
    assert "faster with" not in made.closing()
    assert made.cost is None
