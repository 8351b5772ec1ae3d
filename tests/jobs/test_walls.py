"""What a node's kernel does not give is told once, and refused where that was asked for."""

import json
import platform
from pathlib import Path

import pytest

from detector.confinement import TEST_LACKING
from detector.errors import SettingsError
from jobs import preparation
from jobs.scan import run
from jobs.summary import FINISHED, STORAGE
from tests.jobs.conftest import Command
from tests.scans import read_rows, scan_settings

pytestmark = pytest.mark.xdist_group("scans")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two files that end at once."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).touch()
    return folder


def test_a_scan_says_by_node_what_holds_decoding_in(videos: Path, tmp_path: Path, seeded: Path) -> None:
    run(scan_settings(videos, tmp_path / "out", seeded), quiet=True)
    (words,) = json.loads((tmp_path / "out" / "summary.json").read_text())["sandbox"].values()
    assert words.startswith("limits, Landlock "), words
    assert words.endswith(", seccomp"), words


def test_what_is_missing_is_told_once_for_each_node(
    videos: Path, tmp_path: Path, seeded: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv(TEST_LACKING, "landlock")
    done = command(
        "scan", videos, "--output", tmp_path / "out", "--weights", seeded, "--address", "in-process"
    )
    said = f"{platform.node()} decodes behind limits, seccomp; no Landlock in this kernel or container"
    assert done.err.count(said) == 1, done.err
    assert len(read_rows(tmp_path / "out")) == 2


def test_less_than_was_required_stops_the_scan_before_it_starts(
    videos: Path, tmp_path: Path, seeded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = scan_settings(videos, tmp_path / "out", seeded, require_sandbox=True)
    monkeypatch.setenv(TEST_LACKING, "seccomp")
    with pytest.raises(SettingsError, match=r"require_sandbox: .*no seccomp in this kernel or container"):
        run(settings, quiet=True)
    assert not (tmp_path / "out").exists()

    monkeypatch.delenv(TEST_LACKING)
    assert run(settings.model_copy(update={"max_failed": 1.0}), quiet=True).exit_code == FINISHED


def test_a_node_that_has_less_stops_the_scan_and_no_video_is_blamed(
    videos: Path, tmp_path: Path, seeded: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(preparation, "_THIS_MACHINE", ())  # as if it were another one
    monkeypatch.setenv(TEST_LACKING, "landlock,seccomp")
    words = ["scan", videos, "--output", tmp_path / "out", "--weights", seeded, "--address", "in-process"]
    done = command(*words, "--require-sandbox")
    assert done.code == STORAGE
    assert "decoding here is held in by limits; no Landlock and no seccomp" in done.err
    assert read_rows(tmp_path / "out") == []
