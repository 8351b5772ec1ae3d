"""Open a stranger's file with FFmpeg on a leash: which containers and codecs, and how large."""

from __future__ import annotations

import errno
import logging
import os
from typing import IO, Any

import av
import av.error
import av.subtitles.codeccontext  # PyAV imports these two when a file needs them: too late in a sandbox
import av.subtitles.stream

from detector.errors import VideoError
from detector.sniff import reason_to_refuse, refuse_stills, too_many_streams
from detector.types import Limits, Reason

# No playlists, no images, no raw streams: what is not listed here is never handed to a demuxer.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"
CODECS = (
    "h264,hevc,av1,libdav1d,vp9,vp8,mpeg4,mpeg2video,mpeg1video,mjpeg,h263,h263i,h263p,flv,"
    "msmpeg4,msmpeg4v1,msmpeg4v2,wmv1,wmv2,wmv3,vc1,theora,prores,gif"
)
# The oldest whose known holes lie in nothing that FORMATS and CODECS let through: FFmpeg 8.1.2.
# https://ffmpeg.org/security.html
_LEAST = {"libavformat": (62, 12, 102), "libavcodec": (62, 28, 102)}
_DEFAULT, _ATTACHED_PICTURE = 0x0001, 0x0400

# With a Python callback FFmpeg's log can deadlock against frame threads; nothing here needs it.
av.logging.set_level(None)
logging.getLogger("libav").setLevel(logging.CRITICAL)


def outdated_ffmpeg() -> str | None:
    """What is wrong with the FFmpeg that is installed here: known holes; None where it is new enough."""
    old = {
        name: av.library_versions[name] for name, least in _LEAST.items() if av.library_versions[name] < least
    }
    if not old:
        return None
    found = ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in old.items())
    return f"FFmpeg {av.ffmpeg_version_info} ({found}) has known holes: 8.1.2 or newer is needed"


def open_container(file: IO[bytes], limits: Limits) -> Any:
    """Open with FFmpeg on a short leash: only known containers and codecs, no protocol, bounded sizes.

    Raises:
        VideoError: it is no video that is opened here; reason and message say what it is.
    """
    refuse_stills(file)
    try:
        container = _open(file, limits, limits.max_streams + 1)  # Matroska leaves out what is over it
    except av.error.MemoryError as error:
        raise _over_memory(file, limits, error) from error
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise reason_to_refuse(file, error) from error
    if len(container.streams) > limits.max_streams:
        container.close()
        raise too_many_streams(limits)
    return container


def _open(file: IO[bytes], limits: Limits, streams: int, **other: str) -> Any:
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": "none",
        "codec_whitelist": CODECS,
        "max_pixels": str(limits.max_pixels),
        "max_streams": str(streams),
        "merge_pmt_versions": "1",  # a broadcast whose stream gets another number goes on under the old one
    }
    return av.open(_Leashed(file), mode="r", metadata_errors="replace", options=options | other)


class _Leashed:
    """A file as FFmpeg uses it: a place that no file has is an error of FFmpeg's, not an exception of ours.

    PyAV would print the exception, and raise it again somewhere else.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.read, self.tell, self._file = file.read, file.tell, file

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EINVAL)
        except ValueError:  # of a file in memory
            return -errno.EINVAL


def _over_memory(file: IO[bytes], limits: Limits, error: Exception) -> VideoError:
    """FFmpeg says of too many streams, too, that there is no memory: then more of them can be opened."""
    file.seek(0)
    try:
        _open(file, limits, 4 * limits.max_streams).close()
    except (av.error.FFmpegError, ValueError, OSError):
        return reason_to_refuse(file, error)
    return too_many_streams(limits)


def video_stream(container: Any, limits: Limits) -> Any:
    """The video stream that a player would show, its decoder leashed like the container.

    Raises:
        VideoError: there is none, or its codec or size is not decoded here.
    """
    streams = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
    if not streams:
        raise VideoError(Reason.NO_VIDEO_STREAM, _instead_of_video(container))
    stream = max(streams, key=_rank)
    context = stream.codec_context
    if context is None:
        raise VideoError(Reason.UNSUPPORTED_CODEC, "the video codec is unknown")
    if context.name not in CODECS.split(","):
        raise VideoError(Reason.UNSUPPORTED_CODEC, f"the video codec {context.name} is not decoded here")
    refuse_large(context.width, context.height, limits)
    # The container's options do not reach the decoder: set again, or a change of size in midstream decodes.
    # Sizes a little over the limit are let through to where the frame says how large it is.
    context.options = {"max_pixels": str(2 * limits.max_pixels), "codec_whitelist": CODECS}
    context.thread_type = "NONE"
    context.thread_count = 1
    return stream


def refuse_told_large(file: IO[bytes], limits: Limits) -> None:
    """Refuse frames over the limit by what the container says: a decoder that refuses a size forgets it.

    Raises:
        VideoError: they are.
    """
    file.seek(0)
    try:
        container = _open(file, limits, limits.max_streams + 1, codec_whitelist="none")  # nothing is probed
    except (av.error.FFmpegError, ValueError, OSError):
        return
    with container:
        video_stream(container, limits)


def is_hidden_by_edit_list(file: IO[bytes], limits: Limits) -> bool:
    """True if there are pictures once the edit list of an MP4, which says what of it is shown, is ignored."""
    file.seek(0)
    try:
        with _open(file, limits, limits.max_streams + 1, ignore_editlist="1") as container:
            return next(container.decode(video_stream(container, limits)), None) is not None
    except (av.error.FFmpegError, ValueError, OSError, VideoError):
        return False


def refuse_large(width: int, height: int, limits: Limits) -> None:
    """Refuse frames over the limit.

    Raises:
        VideoError: they are.
    """
    if width * height > limits.max_pixels:
        over = f"over the limit of {limits.max_pixels:,} px"
        raise VideoError(Reason.TOO_LARGE, f"frames of {width} x {height} px are {over}")


def _instead_of_video(container: Any) -> str:
    kinds = {"audio": "sound", "subtitle": "subtitles", "video": "cover art", "data": "data"}
    held = sorted({kinds.get(stream.type, "attachments") for stream in container.streams})
    return f"the file has no video stream, only {' and '.join(held)}" if held else "the file has no streams"


def _rank(stream: Any) -> tuple[bool, int]:
    """Players take the stream that is marked as the default, and of several the largest; else the first."""
    context = stream.codec_context
    return bool(int(stream.disposition) & _DEFAULT), context.width * context.height if context else 0
