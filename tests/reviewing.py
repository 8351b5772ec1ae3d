"""A table with videos to look at, and a review server over it, for tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import query
from jobs.scan import run
from jobs.table import ResultsTable
from tests.film import moving_face, self_blended, two_faces
from tests.media import write_video
from tests.scans import scan_settings

HOSTILE = "two <b>faces<script>alert(1)&\"quotes' \u202egpj.mp4"
SIZE = (640, 360)
# name -> score, and the verdict at the thresholds of 0.9 and 0.6
SCORES = {
    HOSTILE: (0.97, "flagged"),
    "blended.mp4": (0.94, "flagged"),
    "upright.mp4": (0.8, "uncertain"),
    "old.avi": (0.7, "uncertain"),
    "calm.mp4": (0.1, "not_flagged"),
}


def make_output(folder: Path, seeded: Path) -> Path:
    """Scans short videos; their boxes are as they were found, their scores are those of `SCORES`."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    write_video(videos / HOSTILE, two_faces(125, SIZE, face_px=110, seed=3))
    write_video(videos / "blended.mp4", self_blended(100, SIZE, face_px=120, seed=4))
    write_video(videos / "upright.mp4", moving_face(100, SIZE[::-1], face_px=120, seed=5))
    write_video(videos / "old.avi", moving_face(100, SIZE, face_px=120, seed=6))
    write_video(videos / "calm.mp4", moving_face(50, SIZE, face_px=120, seed=7))
    run(scan_settings(videos, folder / "scanned", seeded), quiet=True)
    with query.connect(str(folder / "scanned")) as connection:
        rows = query.sql(connection, "SELECT * FROM latest ORDER BY uri").to_pylist()
    assert {row["status"] for row in rows} == {"scored"}, "every face is found"
    with ResultsTable.create(str(folder / "out")).claim("made") as table:
        table.append([_scored(row) for row in rows])
    return folder / "out"


def _scored(row: dict[str, Any]) -> dict[str, Any]:
    p_fake, verdict = SCORES[Path(row["uri"]).name]
    persons = [
        person | {"p_fake": p_fake - 0.3 * person["person_id"], "verdict": verdict}
        for person in row["persons"]
    ]
    scores = {person["person_id"]: person["p_fake"] for person in persons}
    tracks = [
        track | {"p_fake": scores[track["person_id"]] if track["logit"] is not None else None}
        for track in row["tracks"]
    ]
    first = [track for track in tracks if track["person_id"] == 0]
    segments = [
        {"start_s": track["start_s"], "end_s": track["end_s"], "person_id": 0, "p_fake": p_fake}
        for track in first
    ]
    return row | {
        "p_fake": p_fake,
        "verdict": verdict,
        "threshold_flag": 0.9,
        "threshold_uncertain": 0.6,
        "persons": persons,
        "tracks": tracks,
        "segments": segments if verdict != "not_flagged" else [],
    }


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    url: str
    """With its token."""
    process: subprocess.Popen[str]
    log: Path

    @property
    def base(self) -> str:
        """Scheme, name and port."""
        return self.url.split("/?")[0]


@contextmanager
def served(output: Path, log: Path, *words: str) -> Iterator[Served]:
    """`deepfake-scan review OUTPUT`, until the block ends."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", "review", str(output), *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert re.match(r"http://\S+/\?token=\S{43}\n$", line), (line, log.read_text())
            yield Served(line.strip(), process, log)
        finally:
            process.kill()
            process.communicate()
