"""A small film of a video that any browser plays: for people's eyes, nothing of it is scored.

Runs in the sandboxed child. Presentation times stay those of the video, so that boxes and scores lie where
they belong; what is dropped are frames, the more the longer the video.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import IO

import av

from detector.errors import VideoError
from detector.types import FILM_BYTES, Clips, Extraction, Facts, Limits, Reason, Window
from detector.video import SampledFrame, Video

_LONGEST_PX = 480
_HIGHEST_FPS = 12
_MOST_FRAMES = 3600
_WINDOW_FRAMES = 8  # that are in memory at a time
_UNKNOWN_S = 60.0
_TIME_BASE = Fraction(1, 1000)
_OPTIONS = {"preset": "ultrafast", "crf": "27", "threads": "1"}  # a child may start no thread


def preview(file: IO[bytes], limits: Limits) -> Extraction:
    """Decode and shrink one video.

    Args:
        file: the video, seekable, opened for reading in binary.
        limits: as for a scan.

    Returns:
        Facts and `film`: H.264 in MP4, at most `FILM_BYTES`, cut there. A video that cannot be decoded gives
        facts with `failure` set.
    """
    try:
        with Video(file, limits) as video:
            film = _film(video)
            return Extraction(Facts(info=video.info), Clips.none(), film=film)
    except VideoError as error:
        return Extraction.failed(error.reason, str(error))
    except MemoryError:
        return Extraction.failed(Reason.DECODE_MEMORY, "decoding needs more memory than allowed")


def _film(video: Video) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        encoder: _Encoder | None = None
        for frames in video.sample(_windows(video.info.duration_s)):
            for frame in frames:
                encoder = encoder or _Encoder(container, frame)
                encoder.add(frame)
            if video.end_s is not None or file.tell() > FILM_BYTES - (1 << 20):
                break
        if encoder is None:
            raise VideoError(Reason.NO_FRAMES, Reason.NO_FRAMES.meaning)
        encoder.end()
    return file.getvalue()


def _windows(duration_s: float | None) -> list[Window]:
    """Moments evenly over the whole video, in windows of a few."""
    length_s = duration_s or _UNKNOWN_S
    rate = min(_HIGHEST_FPS, _MOST_FRAMES / length_s)
    times = [round(i / rate, 6) for i in range(max(1, int(length_s * rate)))]
    parts = [times[start : start + _WINDOW_FRAMES] for start in range(0, len(times), _WINDOW_FRAMES)]
    return [Window(index=i, times_s=tuple(part)) for i, part in enumerate(parts)]


class _Encoder:
    """One stream of a container; the size is that of the first frame."""

    def __init__(self, container: av.container.OutputContainer, first: SampledFrame) -> None:
        height, width = first.picture.shrunk(_LONGEST_PX).shape[:2]
        self._container, self._last = container, -1
        self._stream = container.add_stream("libx264", rate=_HIGHEST_FPS, options=_OPTIONS)
        # H.264 in 4:2:0 has even sides.
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = _TIME_BASE
        self._stream.codec_context.gop_size = 2 * _HIGHEST_FPS

    def add(self, frame: SampledFrame) -> None:
        """Encode a frame at its presentation time."""
        pts = round(frame.t_s / _TIME_BASE)
        if pts <= self._last:
            return
        self._last = pts
        picture = av.VideoFrame.from_ndarray(frame.picture.shrunk(_LONGEST_PX), "rgb24")
        picture = picture.reformat(self._stream.width, self._stream.height, "yuv420p")
        picture.pts, picture.time_base = pts, _TIME_BASE
        self._container.mux(self._stream.encode(picture))

    def end(self) -> None:
        """Encode what is still held."""
        self._container.mux(self._stream.encode())
