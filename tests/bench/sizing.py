"""`make bench BAR=sizing`: how much one driver feeds, and how many cores keep how many GPUs busy.

Prints two tables for docs/operations.md. The first is of the driver: scans of canned videos (no decoding, a
small network) on a Ray of two cores, small and large; what the large one takes more is the cost of a video,
told for each kind of process. The second is of the work: CPU time of real extraction, median of five, for
made clips of one face. `ARGS=2000` takes another number of canned videos.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

from detector.pipeline import extract
from detector.sandbox import Sandbox
from detector.weights import read, resolve
from jobs.config import load
from tests.bench.processes import cpu_seconds
from tests.film import moving_face
from tests.media import write_video
from tests.seeded import seeded_weights

_VIDEOS = 4000
_FEW = 200
_REPEATS = 5
_SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}
_GPU_RATES = (1000, 4000)
_COMMAND = """
import functools, sys
import jobs.scan
from jobs.cli import main
from tests.canned import Canned
jobs.scan.run = functools.partial(jobs.scan.run, extract=Canned)
main()
"""


def main(videos: int = _VIDEOS) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as made:
        driver_s = _driver(Path(made), videos)
        _work(Path(made), driver_s)


def _driver(folder: Path, videos: int) -> float:
    """CPU seconds of the driver for a video."""
    seeded_weights(folder / "seeded.safetensors", size=32)
    few, many = (_canned(folder, count) for count in (_FEW, videos))
    per_video = {kind: (many[kind] - few[kind]) / (videos - _FEW) for kind in many}
    print(f"| CPU time for a video, of {videos:,} | ms |\n|---|---|")
    for kind, seconds in sorted(per_video.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {1000 * seconds:.1f} |")
    driver_s = per_video["driver"]
    print(f"\nOne driver feeds and commits {1 / driver_s:,.0f} videos a second.\n")
    return driver_s


def _canned(folder: Path, count: int) -> Counter[str]:
    videos = folder / f"videos-{count}"
    videos.mkdir()
    for number in range(count):
        (videos / f"{number:05}.mp4").touch()
    words = ["scan", str(videos), "--output", str(folder / f"out-{count}")]
    words += ["--weights", str(folder / "seeded.safetensors"), "--set", "score_batch=64"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return cpu_seconds([sys.executable, "-c", _COMMAND, *words], environment)[0]


def _work(folder: Path, driver_s: float) -> None:
    """Extraction by picture size and profile, and what follows for cores, GPUs and one driver."""
    gpus = " | ".join(f"cores for a GPU of {rate:,} frames/s" for rate in _GPU_RATES)
    print(
        f"| 10 s of video | CPU s to extract | frames a second from one core | {gpus} | cores of one driver |"
    )
    print("|" + "---|" * (4 + len(_GPU_RATES)))
    for name, size in _SIZES.items():
        path = write_video(folder / f"{name}.mp4", moving_face(250, size, face_px=size[1] // 4))
        for profile in ("balanced", "thorough"):
            seconds, frames = _extraction(path, profile)
            cores = " | ".join(f"{rate * seconds / frames:.0f}" for rate in _GPU_RATES)
            print(
                f"| {name}, {profile} | {seconds:.2f} | {frames / seconds:.0f} | {cores} | "
                f"{seconds / driver_s:,.0f} |"
            )


def _extraction(path: Path, profile: str) -> tuple[float, int]:
    """Median CPU seconds to extract a video, and how many crops come out."""
    options = load(overrides={"profile": profile}).settings.extract_options(read(resolve("default")).header)
    times, frames = [], 0
    with Sandbox(options.detector) as sandbox:
        for _ in range(_REPEATS):
            with path.open("rb") as file:
                extraction = extract(file, options, sandbox)
            times.append(extraction.cpu_s)
            frames = int(extraction.clips.mask.sum())
    return statistics.median(times), frames


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
