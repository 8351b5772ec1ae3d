"""Scans for tests: short videos whose outcome is known, settings that need no shipped weights, the rows."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from jobs.config import ScanSettings, load
from tests.film import moving_face, no_face, self_blended, two_faces
from tests.media import cut_off, write_audio, write_video
from tests.soak.counts import counts

_SMALL = (320, 240)
_FAST = {"movflags": "faststart"}


def _face(seed: int, **options: Any) -> Callable[[Path], object]:
    return lambda path: write_video(path, moving_face(30, _SMALL, face_px=90, seed=seed), **options)


# name -> outcome (a status, or the reason of a failure), and what writes it
VIDEOS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "audio-only.mp4": ("no_video_stream", lambda path: write_audio(path, 1)),
    "blended.mp4": ("scored", lambda path: write_video(path, self_blended(30, _SMALL, face_px=90, seed=4))),
    "empty.mp4": ("empty_file", Path.touch),
    "face 1, José.mp4": ("scored", _face(1)),
    "face-2.mp4": ("scored", _face(2)),
    "face-3.mkv": ("scored", _face(3)),
    "face-too-small.mp4": (
        "not_scorable",
        lambda path: write_video(path, moving_face(30, _SMALL, face_px=28, seed=6, light=0)),
    ),
    "index-missing.mp4": ("incomplete", lambda path: cut_off(_face(7)(path) or path, 0.8)),
    "no-face.mp4": ("no_face", lambda path: write_video(path, no_face(30, _SMALL))),
    "sideways.mp4": (
        "scored",
        lambda path: write_video(path, moving_face(30, (240, 320), face_px=90, seed=8), rotation=-90),
    ),
    "text.mp4": ("not_video", lambda path: path.write_text("This is not a video.\n" * 50)),
    "two-faces.mp4": (
        "scored",
        lambda path: write_video(path, two_faces(75, (480, 270), face_px=90, seed=3)),
    ),
    "half.mp4": ("scored", lambda path: cut_off(_face(9, options=_FAST)(path) or path, 0.7)),
    "wide-pixels.mp4": ("scored", _face(10, sar=(2, 1))),
}


def make_videos(folder: Path) -> Path:
    """Write `VIDEOS` into `folder`, and one file that is none by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, write) in VIDEOS.items():
        write(folder / name)
    (folder / "notes.txt").write_text("Not a video by its name.")
    return folder


def touch(folder: Path, *names: str) -> Path:
    """Empty files, for scans with a canned `Extract`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def scan_settings(videos: Path, output: Path, seeded: Path, **more: Any) -> ScanSettings:
    """Settings of a scan in this process, in float32, where `more` does not say otherwise."""
    flags: dict[str, Any] = {
        "inputs": [str(videos)],
        "output": str(output),
        "weights": str(seeded),
        "address": "in-process",
        "dtype": "float32",
    }
    return load(overrides=flags | more).settings


def read_rows(output: Path) -> list[dict[str, Any]]:
    """All rows of the table, as a plain Parquet reader sees them, by uri and attempt.

    Every reader has to count the same: Delta, and pandas, polars, pyarrow and DuckDB over the files.
    """
    files = sorted(map(str, output.glob("results/scan_date=*/*.parquet")))
    if not files:
        return []
    counted = counts(str(output))
    assert len({count for reader, count in counted.items() if reader != "videos"}) == 1, counted
    rows = duckdb.read_parquet(files, hive_partitioning=True).to_arrow_table().to_pylist()
    return sorted(rows, key=lambda row: (row["uri"], row["attempt"]))


def outcomes(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Outcome by file name: the reason of a failure, else the status. A file with two rows fails."""
    found = {Path(row["uri"]).name: row["reason"] or row["status"] for row in rows}
    assert len(found) == len(rows), "a video has more than one row"
    return found
