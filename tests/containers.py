"""One film in every container that says how long it is, and in two that do not."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.film import Frame
from tests.media import write_video

_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "g": "10"}


class Kind(NamedTuple):
    """How a film is written."""

    suffix: str
    codec: str
    options: Mapping[str, str]


SIZED = {
    "mp4, index last": Kind("mp4", "libx264", {}),
    "mp4, index first": Kind("mp4", "libx264", {"movflags": "faststart"}),
    "mp4, fragmented": Kind("mp4", "libx264", _FRAGMENTS),
    "mkv": Kind("mkv", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "webm": Kind("webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "avi": Kind("avi", "mpeg4", {}),
    "flv": Kind("flv", "flv", {}),
}
UNSIZED = {
    "ts": Kind("ts", "libx264", {}),
    "webm, live": Kind("webm", "libvpx", {"live": "1", "deadline": "realtime", "cpu-used": "8"}),
}


def write(folder: Path, name: str, frames: list[Frame]) -> Path:
    """Write the film into the container of that name."""
    kind = (SIZED | UNSIZED)[name]
    path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.{kind.suffix}"
    return write_video(path, frames, codec=kind.codec, options=dict(kind.options))
