"""`deepfake-scan report`: which files it writes, and where it does not."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from detector.errors import StorageError
from detector.evaluation.calibration import named
from jobs import policies, report
from jobs.table import ResultsTable
from tests.conftest import Scanned
from tests.jobs.conftest import Command
from tests.scans import read_rows
from tests.seeded import POLICY

pytestmark = pytest.mark.xdist_group("scans")


def test_report_writes_a_night_its_pages_and_an_archive(
    scanned: Scanned, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    key = str(scanned.videos / "text.mp4")
    done = command(
        "report", scanned.output, "--scan", "latest", "--video", key, "-o", folder, "--zip", "--json"
    )
    assert done.code == 0, done.err
    files = [Path(name) for name in json.loads(done.out)["files"]]
    assert files[0] == folder / "index.html"
    assert files[-1] == tmp_path / "pages.zip"
    pages = {file.name for file in files[1:-1]}
    links = set(re.findall(r'href="([^"#]+)"', files[0].read_text("utf-8")))
    assert links <= pages, "the page of the scan leads to pages that are not there"
    with zipfile.ZipFile(files[-1]) as archive:
        lines = [line.split("  ") for line in archive.read("manifest.sha256").decode().splitlines()]
        listed = {name: digest for digest, name in lines}
        assert set(archive.namelist()) == {*listed, "manifest.sha256"}
        for name, digest in listed.items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
            assert (folder / name).read_bytes() == archive.read(name)


def test_flagged_are_those_that_a_policy_flags(scanned: Scanned, command: Command, tmp_path: Path) -> None:
    rows = [row for row in read_rows(scanned.output) if row["status"] == "scored"]
    ranked = sorted(rows, key=lambda row: -row["p_fake"])
    flag = (ranked[2]["p_fake"] + ranked[3]["p_fake"]) / 2
    policy = named(replace(POLICY, flag=flag, uncertain=flag / 2))
    path = tmp_path / "policy.json"
    policies.write(path, policy, "seeded", rows[0]["weights_id"], rows[0]["settings_id"])
    for limit, wanted in ((None, ranked[:3]), (2, ranked[:2])):
        words = [] if limit is None else ["--limit", limit]
        done = command("report", scanned.output, "--flagged", "--policy", path, "-o", tmp_path / "p", *words)
        assert done.code == 0, done.err
        assert [Path(line).stem for line in done.out.splitlines()] == [row["video_id"] for row in wanted]


def test_where_nothing_is_flagged_it_is_said(
    small: tuple[Path, Path], command: Command, tmp_path: Path
) -> None:
    _, output = small
    row = read_rows(output)[0]
    path = tmp_path / "policy.json"
    policy = named(replace(POLICY, flag=1.0, uncertain=1.0))
    policies.write(path, policy, "seeded", row["weights_id"], row["settings_id"])
    done = command("report", output, "--flagged", "--policy", path, "-o", tmp_path / "p")
    assert done.code == 2
    assert "no video is flagged" in done.err


def test_report_says_what_it_wants(scanned: Scanned, command: Command) -> None:
    done = command("report", scanned.output)
    assert done.code == 2
    assert "not given: --video, --flagged or --scan" in done.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s3://bucket/pages", "a folder of this machine"),
        ("{out}", "that is the folder of the table"),
        ("{out}/results/pages", "that is the folder of the table"),
        ("{file}", "is a file"),
        ("{file}/below", "is a file"),
    ],
)
def test_pages_lie_in_a_folder_of_their_own(
    scanned: Scanned, command: Command, tmp_path: Path, name: str, words: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    where = name.format(out=scanned.output, file=file)
    before = sorted(scanned.output.rglob("*"))
    done = command("report", scanned.output, "--scan", "latest", "-o", where)
    assert done.code == 2
    assert words in done.err
    assert sorted(scanned.output.rglob("*")) == before


def test_an_archive_of_the_current_folder_lies_beside_it(
    scanned: Scanned, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    key = str(scanned.videos / "text.mp4")
    assert command("report", scanned.output, "--video", key, "-o", ".", "--zip").code == 0
    assert (tmp_path / "here.zip").is_file()


def test_a_video_is_found_by_the_path_that_the_shell_has(
    scanned: Scanned, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scanned.videos)
    done = command("report", scanned.output, "--video", "text.mp4", "-o", tmp_path)
    assert done.code == 0, done.err


def test_a_disk_that_is_full_leaves_no_parts_and_the_archive_of_before(
    scanned: Scanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pages.zip").write_bytes(b"of before")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    wish = report.Wish(keys=[str(scanned.videos / "text.mp4")], pack=True)
    with pytest.raises(StorageError, match="No space left"):
        report.write(str(scanned.output), tmp_path / "pages", wish)
    assert not list((tmp_path / "pages").iterdir())
    monkeypatch.undo()
    assert (tmp_path / "pages.zip").read_bytes() == b"of before"


@pytest.mark.parametrize(
    "settings",
    [
        {"all": [1]},
        {"all": "x", "scored_by": "y"},
        {"scored_by": [1, 2]},
        {"scored_by": {"sampling": 3}},
        {"scored_by": {"crop.size": "big", "sampling.frames": None}},
        {"all": {"weights": [1], "max_bytes": {"a": 1}, "price_per_hour": "much"}, "policy": [3]},
    ],
)
def test_settings_that_somebody_else_recorded_end_nothing(
    small: tuple[Path, Path], settings: dict[str, Any], command: Command, tmp_path: Path
) -> None:
    _, output = small
    table = ResultsTable.open(str(output))
    with table.claim("strangers") as claimed:
        row = read_rows(output)[0]
        claimed.append([row | {"scan_id": "strangers", "attempt": 2}])
        started = {"started_at": row["scanned_at"], "settings": json.dumps(settings)}
        claimed.record_scan("start", started | {"weights_id": row["weights_id"]})
    done = command("report", output, "--scan", "strangers", "--video", row["video_id"], "-o", tmp_path / "p")
    assert done.code == 0, done.err
