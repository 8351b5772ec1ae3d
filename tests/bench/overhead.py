"""`make bench BAR=overhead`: what Ray, storage and driver cost beside the work itself.

200 made clips (10 s, 1280x720, 25 fps, H.264, one face) are scanned by the in-process runner and on a Ray of
two cores, with the shipped weights; CPU time of every process is added up by what it is. The bar: on Ray
at most 25 % more than in one process. `ARGS=40` takes another number of videos.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.bench.processes import cpu_seconds
from tests.film import moving_face
from tests.media import write_video

_VIDEOS = 200
_CLIPS = 4
_ALLOWED = 0.25


def main(videos: int = _VIDEOS) -> int:
    """Print both accounts; 0 if the bar holds."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, "videos")
        folder.mkdir()
        for number in range(_CLIPS):
            write_video(folder / f"{number}.mp4", moving_face(250, (1280, 720), face_px=200, seed=number))
        for number in range(_CLIPS, videos):
            shutil.copy(folder / f"{number % _CLIPS}.mp4", folder / f"{number}.mp4")
        alone = _scan(folder, f"{made}/alone", "in-process")
        on_ray = _scan(folder, f"{made}/ray", "local")
    for name, account in (("in one process", alone), ("on Ray", on_ray)):
        print(f"\n{name}: {account.total():.0f} CPU s, {account.total() / videos:.2f} a video")
        for kind, seconds in account.most_common():
            print(f"  {kind:24}{seconds:8.1f} s {seconds / account.total():6.1%}")
    more = on_ray.total() / alone.total() - 1
    print(f"\non Ray {more:.1%} more CPU time than in one process (at most {_ALLOWED:.0%})")
    return 0 if more <= _ALLOWED else 1


def _scan(folder: Path, output: str, address: str) -> Counter[str]:
    command = [sys.executable, "-m", "jobs", "scan", str(folder), "--output", output, "--address", address]
    command += ["--set", "extract_actors=2", "--set", "score_actors=1"] if address == "local" else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return cpu_seconds(command, environment)[0]


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
