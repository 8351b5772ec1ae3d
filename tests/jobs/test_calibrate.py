"""`calibrate`: thresholds from a user's own videos, without scanning anything twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from detector.evaluation.metrics import sigmoid
from detector.weights import read
from jobs import query
from jobs.config import ScanSettings
from jobs.listing import Listing
from jobs.output import open_output
from jobs.preparation import prepare
from jobs.schema import REVIEWS, Handling, row
from jobs.table import ResultsTable, append_unclaimed, create_reviews
from tests.jobs.conftest import Command
from tests.jobs.samples import CONTEXT, DAY, planned, scored

VIDEOS = 400


@pytest.fixture
def scanned_reals(tmp_path: Path, seeded: Path) -> Path:
    """A folder of 400 files, and in `out` a row of a scan of each: logits are drawn from N(-4, 1)."""
    videos = tmp_path / "reals"
    videos.mkdir()
    for number in range(VIDEOS):
        (videos / f"{number:03}.mp4").write_bytes(b"x")
    _record(tmp_path, seeded, np.random.default_rng(0).normal(-4, 1, VIDEOS))
    return tmp_path


def _record(
    folder: Path, weights: Path, logits: Any, extra: Callable[[int], dict[str, str]] | None = None
) -> None:
    """Rows as a scan of `folder/reals` would write them."""
    out = folder / "out"
    job = prepare(ScanSettings(inputs=[str(folder / "reals")], output=str(out), weights=str(weights)))
    context = replace(job.context, scan_date=CONTEXT.scan_date)
    rows = []
    items = sorted(Listing([str(folder / "reals")]), key=lambda item: item.uri)
    for number, (item, logit) in enumerate(zip(items, logits, strict=True)):
        plan = planned() | {"uri": item.uri, "version": item.version, "size": item.size}
        plan["extra"] = extra(number) if extra else None
        result = scored(float(sigmoid(np.array(logit))))
        persons = tuple(replace(person, logit=float(logit)) for person in result.persons)
        made = row(plan, replace(result, logit=float(logit), persons=persons), context, Handling())
        rows.append(made | {"scanned_at": DAY})
    with ResultsTable.create(str(out)).claim("scan-1") as table:
        table.append(rows)
        record = job.scan_record()
        table.record_scan("start", record)
        table.record_scan("end", record | {"exit_code": 0})


def _calibrate(command: Command, folder: Path, *words: object) -> Any:
    return command(
        "calibrate", "--output", folder / "out", "--file", folder / "policy.json",
        "--address", "in-process", *words,
    )  # fmt: skip


def test_thresholds_hold_their_rates_and_nothing_is_scanned_again(
    command: Command, scanned_reals: Path, seeded: Path
) -> None:
    done = _calibrate(command, scanned_reals, "--reals", scanned_reals / "reals", "--weights", seeded)
    assert done.code == 0, done.err
    assert "400 real videos of 400 groups" in done.out
    held = json.loads((scanned_reals / "policy.json").read_text())
    policy = held["policy"]
    assert (policy["level"], policy["flag_fpr"], policy["groups"]) == ("video", 0.01, VIDEOS)
    assert held["weights_id"] == read(seeded).weights_id
    rows = json.loads(
        command("query", "sql", scanned_reals / "out", "SELECT logit FROM results", "--json").out
    )
    assert len(rows) == VIDEOS, "a video was scanned again"
    p = 1 / (1 + np.exp(-np.array([one["logit"] for one in rows])))
    assert (p >= policy["flag"]).sum() == 3, "(3 + 1) of 401 is the last below 1 %"
    assert (p >= policy["uncertain"]).sum() == 19
    low, high = policy["flag_interval"]
    assert low < 0.01 < high


def test_query_and_scan_judge_by_the_file(command: Command, scanned_reals: Path, seeded: Path) -> None:
    folder, out = scanned_reals, scanned_reals / "out"
    _calibrate(command, folder, "--reals", folder / "reals", "--weights", seeded)
    assert json.loads(command("query", "flagged", out, "--json").out) == []
    flagged = json.loads(command("query", "flagged", out, "--policy", folder / "policy.json", "--json").out)
    assert len(flagged) == 3, "at once, from the logits that stand in the table"
    (folder / "reals" / "new.mp4").write_bytes(b"not a video")
    words = ["scan", folder / "reals", "-o", out, "--weights", seeded, "--address", "in-process"]
    done = command(*words, "--policy", folder / "policy.json")
    assert done.code == 3, "another policy scans nothing again but takes what is new"
    assert len(json.loads(command("query", "flagged", out, "--json").out)) == 3, "now it is the one of today"
    new = "SELECT threshold_level, threshold_flag FROM results WHERE uri LIKE '%new.mp4'"
    [one] = json.loads(command("query", "sql", out, new, "--json").out)
    policy = json.loads((folder / "policy.json").read_text())["policy"]
    assert one == {"threshold_level": "video", "threshold_flag": policy["flag"]}


def test_thresholds_of_one_profile_are_not_those_of_another(
    command: Command, scanned_reals: Path, seeded: Path
) -> None:
    folder = scanned_reals
    _calibrate(command, folder, "--reals", folder / "reals", "--weights", seeded)
    words = ["scan", folder / "reals", "-o", folder / "other", "--weights", seeded]
    done = command(*words, "--policy", folder / "policy.json", "--profile", "thorough")
    assert done.code == 2
    assert "measured with other settings" in done.err
    done = command(*words[:-2], "--policy", folder / "policy.json")
    assert done.code == 2
    assert "it was made for the weights" in done.err
    for label in ("real", "fake"):
        (folder / "labelled" / label).mkdir(parents=True)
        (folder / "labelled" / label / "a.mp4").write_bytes(b"x")
    words = ["evaluate", folder / "labelled", "--weights", seeded, "--policy", folder / "policy.json"]
    done = command(*words, "--profile", "thorough")
    assert done.code == 2
    assert "measured with other settings" in done.err
    assert not (folder / "other").exists(), "it was refused before anything was written"


def test_too_few_videos_are_told_in_a_number(command: Command, scanned_reals: Path, seeded: Path) -> None:
    words = ["--reals", scanned_reals / "reals", "--weights", seeded, "--flag-fpr", "0.1%"]
    done = _calibrate(command, scanned_reals, *words)
    assert done.code == 2
    assert "needs at least 999 real videos; 400 are there" in done.err
    assert not (scanned_reals / "policy.json").exists()


@pytest.mark.parametrize("known_to_the_scan", [True, False], ids=["scanned by it", "scanned before it"])
def test_a_list_says_whose_videos_they_are(
    command: Command, tmp_path: Path, seeded: Path, *, known_to_the_scan: bool
) -> None:
    (tmp_path / "reals").mkdir()
    lines = ["uri,group"]
    for number in range(VIDEOS):
        path = tmp_path / "reals" / f"{number:03}.mp4"
        path.write_bytes(b"x")
        lines.append(f"{path},account {number // 4}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    accounts = np.random.default_rng(2).normal(-4, 1, VIDEOS // 4)
    extra = (lambda number: {"group": f"account {number // 4}"}) if known_to_the_scan else None
    _record(tmp_path, seeded, np.repeat(accounts, 4), extra)
    words = ["--reals", tmp_path / "list.csv", "--weights", seeded, "--flag-fpr", "2%"]
    done = _calibrate(command, tmp_path, *words, "--json")
    assert done.code == 0, done.err
    policy = json.loads(done.out)["policy"]
    assert policy["groups"] == VIDEOS // 4
    low, high = policy["flag_interval"]
    assert high - low > 0.03, f"four videos of an account that are all alike are not four: {low} to {high}"


def test_labels_refit_the_calibration(command: Command, tmp_path: Path, seeded: Path) -> None:
    videos = tmp_path / "reals"
    videos.mkdir()
    rng = np.random.default_rng(1)
    labels = np.arange(VIDEOS) % 2
    lines = ["uri,label,group"]
    for number in range(VIDEOS):
        (videos / f"{number:03}.mp4").write_bytes(b"x")
        lines.append(f"reals/{number:03}.mp4,{labels[number]},person {number // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    _record(tmp_path, seeded, 0.2 * rng.normal(0, 1, VIDEOS) + 0.4 * labels - 3)
    done = _calibrate(command, tmp_path, "--labels", tmp_path / "labels.csv", "--weights", seeded, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["loss_after"] < 0.65
    assert found["loss_before"] > 1
    assert found["policy"]["slope"] > 2, "the classes are told apart more sharply than the logits say"
    assert (found["reals"], found["fakes"]) == (200, 200)


def test_what_the_labels_call_fake_is_not_assumed_real(
    command: Command, scanned_reals: Path, seeded: Path
) -> None:
    fakes = [scanned_reals / "reals" / f"{number:03}.mp4" for number in range(0, VIDEOS, 20)]
    reals = [scanned_reals / "reals" / f"{number:03}.mp4" for number in range(1, VIDEOS, 20)]
    lines = ["uri,label,group", *(f"{path},fake,{path.stem}" for path in fakes)]
    lines += [f"{path},real,{path.stem}" for path in reals]
    (scanned_reals / "labels.csv").write_text("\n".join(lines))
    words = [
        "--reals",
        scanned_reals / "reals",
        "--labels",
        scanned_reals / "labels.csv",
        "--weights",
        seeded,
    ]
    done = _calibrate(command, scanned_reals, *words)
    assert done.code == 0, done.err
    assert "380 real videos of 380 groups and 20 fakes; 20 that the labels call fake are left out" in done.out
    assert "log loss, half of them taken for fakes" in done.out


def test_labels_of_the_review_page_are_taken(command: Command, tmp_path: Path, seeded: Path) -> None:
    """What people decided goes into `calibrate` and `evaluate` as it was exported."""
    (tmp_path / "reals").mkdir()
    for number in range(VIDEOS):
        (tmp_path / "reals" / f"{number:03}.mp4").write_bytes(b"x")
    labels = np.arange(VIDEOS) % 2
    _record(tmp_path, seeded, np.random.default_rng(1).normal(0, 1, VIDEOS) + 2 * labels - 3)
    with query.connect(str(tmp_path / "out")) as connection:
        videos = query.sql(connection, "SELECT * FROM latest ORDER BY uri").to_pylist()
    decided = [
        video
        | dict.fromkeys(REVIEWS.names)
        | {name: video[name] for name in ("video_id", "uri", "version")}
        | {"review_id": f"{number:016x}", "decision": ("real", "fake")[labels[number]], "who": "ann"}
        | {"at": DAY, "schema_version": 1}
        for number, video in enumerate(videos)
    ]
    create_reviews(open_output(str(tmp_path / "out")))
    rows = pa.Table.from_pylist([{name: one[name] for name in REVIEWS.names} for one in decided], REVIEWS)
    append_unclaimed(open_output(str(tmp_path / "out")), "reviews", rows)
    exported = command("review", "export", tmp_path / "out", "--labels", "-o", tmp_path / "labels.csv")
    assert exported.out.startswith(f"{VIDEOS} rows"), exported.err
    done = _calibrate(command, tmp_path, "--labels", tmp_path / "labels.csv", "--weights", seeded, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["reals"], found["fakes"], found["policy"]["groups"]) == (200, 200, 200)
    words = ("--weights", seeded, "--address", "in-process", "--no-robustness", "--json")
    measured = command("evaluate", tmp_path / "labels.csv", *words)
    assert measured.code == 0, measured.err
    figures = json.loads(measured.out)
    assert (figures["video"]["reals"], figures["video"]["fakes"], figures["video"]["groups"]) == (
        200,
        200,
        400,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held["policy"].update(flag=0.99), "changed by hand"),
        (lambda held: held["policy"].update(slope=-1.0), "not those of a calibration"),
        (lambda held: held.update(format=2), "not a policy file"),
        (lambda held: held.update(extra=1), "not a policy file"),
    ],
)
def test_a_policy_file_that_was_spoiled_is_refused(
    command: Command, scanned_reals: Path, seeded: Path, change: Any, message: str
) -> None:
    folder = scanned_reals
    _calibrate(command, folder, "--reals", folder / "reals", "--weights", seeded)
    held = json.loads((folder / "policy.json").read_text())
    change(held)
    (folder / "policy.json").write_text(json.dumps(held))
    for words in (
        ["scan", folder / "reals", "-o", folder / "out", "--weights", seeded],
        ["query", "flagged", folder / "out"],
    ):
        done = command(*words, "--policy", folder / "policy.json")
        assert done.code == 2
        assert message in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "o"], "not given: --reals or --labels"),
        (["--reals", "videos"], "not given: --output"),
        (["--reals", "v", "--output", "o", "--flag-fpr", "10%"], "no more than --uncertain-fpr"),
        (["--reals", "v", "--output", "o", "--flag-fpr", "often"], "--flag-fpr"),
        (["--reals", "nowhere", "--output", "o"], "nowhere"),
    ],
)
def test_mistakes_are_told(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("calibrate", *words)
    assert done.code == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []
