"""The made clips of the bar `cost`: one moving face, H.264 crf 23, a keyframe every 250 frames.

Kept in a folder, so that a second run finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av

from tests.film import Actor, film
from tests.media import long_gop_clip, write_video

SIZES = {"1080p": (1920, 1080), "720p": (1280, 720)}
_CLIP_S, _FPS = 10, 25
_FRAMES = _CLIP_S * _FPS
_REPEATED = 2 * 60 * 60 // _CLIP_S


def made_clip(folder: Path, name: str) -> Path:
    """Ten seconds of the size `name`."""
    return _kept(folder / f"{name}.mp4", lambda path: long_gop_clip(path, _CLIP_S, SIZES[name], _FPS))


def two_hours(folder: Path) -> Path:
    """Two hours of 1080p; a smaller face before a smooth background keeps the file below 300 MB."""
    width, height = SIZES["1080p"]
    frames = film(_FRAMES, (width, height), _FPS, [Actor(height / 6)], background="gradient")
    options = {"g": str(_FRAMES), "keyint_min": str(_FRAMES), "sc_threshold": "0"}
    short = _kept(folder / "smooth-1080p.mp4", lambda path: write_video(path, frames, _FPS, options=options))
    return _kept(folder / "two-hours.mp4", lambda path: _repeat(short, path, _REPEATED))


def _kept(path: Path, write: Callable[[Path], object]) -> Path:
    """The file, written now if it is not there; one whose writing was stopped is none."""
    if not path.exists():
        unfinished = path.with_name(f"unfinished-{path.name}")
        write(unfinished)
        unfinished.replace(path)
    return path


def _repeat(source: Path, target: Path, times: int) -> None:
    """Write the packets of a clip of `_FRAMES` frames again and again, each time that much later."""
    with av.open(str(source)) as file:
        stream = file.streams.video[0]
        packets = [packet for packet in file.demux(stream) if packet.size]
        base = stream.time_base
        assert base is not None
        length = round(_CLIP_S / base)
        with av.open(str(target), "w") as made:
            copy = made.add_stream_from_template(stream)
            for number in range(times):
                for packet in packets:
                    assert packet.pts is not None
                    assert packet.dts is not None
                    again = av.Packet(bytes(packet))
                    again.pts, again.dts = packet.pts + number * length, packet.dts + number * length
                    again.time_base, again.duration = base, packet.duration
                    again.is_keyframe = packet.is_keyframe
                    again.stream = copy
                    made.mux(again)
