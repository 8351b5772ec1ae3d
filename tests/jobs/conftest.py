"""The command line, called in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs import cli
from jobs.scan import run
from tests.film import moving_face
from tests.media import write_video
from tests.scans import scan_settings


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `deepfake-scan` with the words that it is given."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["deepfake-scan", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def small(tmp_path: Path, seeded: Path) -> tuple[Path, Path]:
    """One video and the table of its scan."""
    (tmp_path / "videos").mkdir()
    video = tmp_path / "videos" / "face.mp4"
    write_video(video, moving_face(20, (320, 240), face_px=90, seed=5))
    run(scan_settings(tmp_path / "videos", tmp_path / "out", seeded), quiet=True)
    return video, tmp_path / "out"
