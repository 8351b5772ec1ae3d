"""Small real videos for the tests and for `make demo`; the pictures come from `tests/film.py`.

`python -m tests.media FOLDER` writes the demo folder.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tests.film import Actor, Frame, Size, film, moving_face, no_face, portrait, self_blended, two_faces

__all__ = [
    "DEMO",
    "Actor",
    "Frame",
    "Size",
    "cut_off",
    "film",
    "long_gop_clip",
    "make_demo_folder",
    "moving_face",
    "no_face",
    "portrait",
    "self_blended",
    "two_faces",
    "write_audio",
    "write_video",
]

CLOCK = 90_000  # ticks per second where the caller gives the times; the clock of MPEG transport streams


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    fps: float = 25,
    codec: str = "libx264",
    *,
    rotation: int = 0,
    sar: tuple[int, int] = (1, 1),
    pts: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes `frames`, uint8 [H, W, 3] RGB **as a player shows them**, and returns the path.

    They are stored turned and squeezed such that a player that heeds the file's metadata shows them again.

    Args:
        path: Its suffix names the container.
        fps: Frames per second, without `pts`.
        codec: FFmpeg's name of the encoder.
        rotation: Degrees counter-clockwise by which a player turns what is stored (what PyAV reads as
            `frame.rotation`): a multiple of 90. Phones held upright write -90.
        sar: Sample aspect ratio; (2, 1) stores half the width.
        pts: Seconds at which each frame is shown, rising (variable frame rate).
        options: For encoder and container, as on ffmpeg's command line: `{"g": "9", "movflags": "faststart"}`
    """
    rate, clock = Fraction(fps).limit_denominator(1001), Fraction(1, CLOCK)
    fast = {"preset": "veryfast"} if codec == "libx264" else {}
    with _same_priority(), av.open(str(path), "w", container_options=options) as file:
        stream = file.add_stream(codec, rate, options=fast | (options or {}))
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1  # the same file on every machine, whatever its cores
        for index, shown in enumerate(frames):
            stored = _stored(shown, rotation, sar)
            if index == 0:
                stream.height, stream.width = stored.shape[:2]
                stream.pix_fmt = (av.Codec(codec, "w").video_formats or [av.VideoFormat("yuv420p")])[0].name
                stream.codec_context.time_base = clock if pts else 1 / rate
                stream.codec_context.sample_aspect_ratio = Fraction(*sar)
                if rotation:
                    stream.set_display_rotation(rotation)
            picture = av.VideoFrame.from_ndarray(stored, format="rgb24")
            picture.time_base = stream.codec_context.time_base
            picture.pts = round(pts[index] * CLOCK) if pts else index
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return Path(path)


@contextmanager
def _same_priority() -> Iterator[None]:
    """As root SVT-AV1 makes the thread that calls it a real-time one, which what it starts inherits."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def _stored(shown: Frame, rotation: int, sar: tuple[int, int]) -> Frame:
    """What has to be stored for `shown`, uint8 [H, W, 3]: turned back, width over `sar`, sides even."""
    turned = np.rot90(shown, -rotation // 90)
    height, width = turned.shape[:2]
    size = (round(width * sar[1] / sar[0] / 2) * 2, height // 2 * 2)
    if size != (width, height):
        turned = np.asarray(cv2.resize(turned, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(turned)


def write_audio(path: str | Path, seconds: float = 3) -> Path:
    """Writes a file that holds nothing but a 440 Hz tone as AAC, and returns the path."""
    rate, size = 44_100, 1024  # samples per second, samples per AAC frame
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, round(seconds * rate), size):
            tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(start, start + size) / rate)
            frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return Path(path)


def cut_off(path: str | Path, keep: float) -> Path:
    """Cuts the file off after the fraction `keep` (0-1) of its bytes, and returns the path."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * keep)])
    return Path(path)


def long_gop_clip(
    path: str | Path, seconds: float = 20, size: Size = (1920, 1080), fps: float = 25, gop: int = 250
) -> Path:
    """Writes one moving face as H.264, a keyframe every `gop` frames, for benchmarks and memory tests."""
    frames = film(round(seconds * fps), size, fps, [Actor(face_px=size[1] / 4)], background="noise")
    options = {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
    return write_video(path, frames, fps, options=options)


def _face(
    face_px: float = 120, size: Size = (640, 360), frames: int = 100, **look: Any
) -> Callable[[Path], object]:
    """A writer of a film of one face, 25 frames per second."""
    return lambda path: write_video(path, film(frames, size, 25, [Actor(face_px, **look)]))


def _uneven_times(n: int) -> list[float]:
    """`n` times in seconds, 20 to 110 ms apart as a phone in the dark records them, with a gap of 0.6 s."""
    gaps = np.random.default_rng(3).uniform(0.02, 0.11, n - 1)
    gaps[n // 2] = 0.6
    return [0.0, *accumulate(gaps.tolist())]


# name -> what it is, and what writes it
DEMO: dict[str, tuple[str, Callable[[Path], object]]] = {
    "calm-face.mp4": ("one face that hardly moves, even light", _face(seed=1, light=0.05, motion=0.15)),
    "moving-face.mp4": (
        "one face in 720p that moves, zooms and is lit differently over time",
        _face(220, (1280, 720), 75, seed=2, light=1),
    ),
    "two-faces.mp4": ("two people side by side", lambda path: write_video(path, two_faces(100, seed=3))),
    "self-blended.mp4": (
        "a face with a warped and recoloured copy of itself blended over it",
        lambda path: write_video(path, self_blended(100, face_px=150, seed=4)),
    ),
    "small-face.mp4": ("one face 80 px high in 720p", _face(80, (1280, 720), 75, seed=5)),
    "face-too-small.mp4": (
        "one face 28 px high: found, but too small to score",
        _face(28, seed=6, motion=0.3, light=0),
    ),
    "Grüße vom Café am See.mp4": ("one face close up; the name has spaces and accents", _face(230, seed=7)),
    "no-face.mp4": ("moving gradients, nobody in them", lambda path: write_video(path, no_face(100))),
    "held-sideways.mp4": (
        "a phone held upright: stored sideways, with a display matrix that turns it by 90 degrees",
        lambda path: write_video(path, moving_face(100, (360, 640), seed=8), rotation=-90),
    ),
    "variable-frame-rate.mp4": (
        "frames 20 to 110 ms apart and one gap of 0.6 s",
        lambda path: write_video(path, moving_face(80, fps=16, seed=9), pts=_uneven_times(80)),
    ),
    "wide-pixels.mp4": (
        "sample aspect ratio 2:1: stored 320 px wide, shown 640",
        lambda path: write_video(path, moving_face(100, seed=10), sar=(2, 1)),
    ),
    "cut-in-the-middle.mp4": (
        "a download that stopped: the index is there, half of the pictures are not",
        lambda path: cut_off(
            write_video(path, moving_face(125, seed=11), options={"movflags": "faststart"}), keep=0.5
        ),
    ),
    "index-missing.mp4": (
        "a recording that stopped: pictures, but not the index (moov) that comes last",
        lambda path: cut_off(write_video(path, moving_face(75, seed=12)), keep=0.8),
    ),
    "audio-only.mp4": ("a tone, no picture", lambda path: write_audio(path, 3)),
    "empty.mp4": ("no bytes at all", lambda path: path.touch()),
    "text.mp4": ("text that is named .mp4", lambda path: path.write_text("This is not a video.\n" * 50)),
}


def make_demo_folder(folder: str | Path) -> dict[str, str]:
    """Writes the demo videos into `folder`, which is made where needed; returns name -> what it is."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, write) in DEMO.items():
        write(folder / name)
    return {name: what for name, (what, _) in DEMO.items()}


if __name__ == "__main__":
    print(f"{len(make_demo_folder(sys.argv[1]))} files written to {sys.argv[1]}")
