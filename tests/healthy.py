"""Files that play in any player, one for each way in which videos differ: all show the same moving face."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition

from tests.film import Frame, Size, moving_face, no_face
from tests.media import write_audio, write_video

Writer = Callable[[Path], object]

SIZE = 320, 240
FPS = 25
VPX = {"deadline": "realtime", "cpu-used": "8"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}
AV1 = {"preset": "12"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "g": "10"}
_BOTH_FIELDS = "+ildct+ilme"
_NO_MARK = Disposition(0)
_CLOCK_WRAPS_S = 2**33 / 90_000  # of a transport stream


@lru_cache(maxsize=4)
def face(frames: int = 30, size: Size = SIZE) -> list[Frame]:
    """One moving face of 130 px, `frames` x uint8 [H, W, 3] RGB."""
    return moving_face(frames, size, FPS, face_px=130)


def times(start_s: float, frames: int = 30) -> list[float]:
    """When the frames are shown, in seconds."""
    return [start_s + i / FPS for i in range(frames)]


def one_face(
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    *,
    fps: float = FPS,
    pts: Sequence[float] | None = None,
    rotation: int = 0,
    sar: tuple[int, int] = (1, 1),
) -> Writer:
    """A writer of the face, as `write_video` takes it."""
    chosen = dict(options or {})
    return lambda path: write_video(
        path, face(), fps, codec, rotation=rotation, sar=sar, pts=pts, options=chosen
    )


def misnamed(suffix: str) -> Writer:
    """A writer of the face in the container of that suffix, whatever the file's own."""

    def write(path: Path) -> None:
        with TemporaryDirectory() as folder:
            path.write_bytes(write_video(Path(folder, f"a{suffix}"), face()).read_bytes())

    return write


def join(
    path: Path,
    parts: Sequence[Path],
    marks: Sequence[Disposition] = (),
    tags: Mapping[str, str] | None = None,
) -> None:
    """Put the streams of several files into one, unchanged; `marks` are their dispositions, in order."""
    with ExitStack() as opened:
        kind = "mp4" if path.suffix == ".m4a" else None  # as .m4a FFmpeg takes no pictures
        out = opened.enter_context(av.open(str(path), "w", format=kind))
        out.metadata.update(tags or {})
        sources = [opened.enter_context(av.open(str(part))) for part in parts]
        copies = [out.add_stream_from_template(source.streams[0]) for source in sources]
        for source, copy in zip(sources, copies, strict=True):
            copy.time_base = source.streams[0].time_base
        for copy, mark in zip(copies, marks, strict=False):
            copy.disposition = mark
        for source, copy in zip(sources, copies, strict=True):
            for packet in source.demux(source.streams[0]):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)


def _with_sound(seconds: float) -> Writer:
    def write(path: Path) -> None:
        with TemporaryDirectory() as folder:
            video = write_video(Path(folder, "video.mp4"), face())
            join(path, [video, write_audio(Path(folder, "sound.m4a"), seconds)])

    return write


def _sound_first(path: Path) -> None:
    """Sound for 13 s; the picture comes after 8 s of it, and the face after 2 s of that."""
    with TemporaryDirectory() as folder:
        film = [*no_face(50, SIZE), *face(75)]
        video = write_video(Path(folder, "video.mp4"), film, pts=times(8, len(film)))
        join(path, [video, write_audio(Path(folder, "sound.m4a"), 13)])


def _told(**tags: str) -> Writer:
    """A writer of the face whose H.264 says of itself what FFmpeg's filter `h264_metadata` puts there."""

    def write(path: Path) -> None:
        with TemporaryDirectory() as folder:
            plain = write_video(Path(folder, f"a{path.suffix}"), face())
            with av.open(str(plain)) as source, av.open(str(path), "w") as out:
                copy = out.add_stream_from_template(source.streams[0])
                words = ":".join(f"{name}={value}" for name, value in tags.items())
                filtered = BitStreamFilterContext(f"h264_metadata={words}", source.streams[0], copy)
                for packet in [*source.demux(source.streams[0]), None]:
                    for made in filtered.filter(packet if packet is None or packet.size else None):
                        made.stream = copy
                        out.mux(made)

    return write


def _with_junk(junk: bytes) -> Writer:
    """A writer of the face with some bytes behind it that are no part of the file."""

    def write(path: Path) -> None:
        write_video(path, face())
        path.write_bytes(path.read_bytes() + junk)

    return write


def _nobody_first(size: Size, frames: int = 30, mark: Disposition = _NO_MARK) -> Writer:
    """Two videos: the first shows nobody and has the `mark`, the second is the default and shows the face."""

    def write(path: Path) -> None:
        with TemporaryDirectory() as folder:
            nobody = write_video(Path(folder, "nobody.avi"), no_face(frames, size), codec="mjpeg")
            somebody = write_video(Path(folder, "somebody.mp4"), face())
            join(path, [nobody, somebody], [mark, Disposition.default])

    return write


def one_after_the_other(first: Sequence[Frame], second: Sequence[Frame], start_s: float) -> Writer:
    """Two transport streams in one file; the second one's clock starts at `start_s`, the first one's at 0."""

    def write(path: Path) -> None:
        with TemporaryDirectory() as folder:
            one = write_video(Path(folder, "one.ts"), first, pts=times(0))
            quick = {"preset": "ultrafast"}
            two = write_video(Path(folder, "two.ts"), second, pts=times(start_s), options=quick)
            path.write_bytes(one.read_bytes() + two.read_bytes())

    return write


HEALTHY: dict[str, Writer] = {
    # codecs and containers
    "h264.mp4": one_face(),
    "h264-index-first.mp4": one_face(options={"movflags": "faststart"}),
    "h264-in-fragments.mp4": one_face(options=FRAGMENTS),
    "h264.flv": one_face(),
    "h264.m2ts": one_face(options={"mpegts_m2ts_mode": "1"}),
    "hevc.mkv": one_face("libx265", X265),
    "hevc.mov": one_face("libx265", X265 | {"tag": "hvc1"}),
    "av1.mp4": one_face("libsvtav1", AV1),
    "av1.webm": one_face("libsvtav1", AV1),
    "vp9.webm": one_face("libvpx-vp9", VPX),
    "vp8.webm": one_face("libvpx", VPX),
    "vp8.ogv": one_face("libvpx", VPX),
    "mpeg4.avi": one_face("mpeg4"),
    "mpeg4.mp4": one_face("mpeg4"),
    "msmpeg4.avi": one_face("msmpeg4"),
    "mpeg2.ts": one_face("mpeg2video"),
    "mpeg2.mpg": one_face("mpeg2video"),
    "mpeg1.mpg": one_face("mpeg1video"),
    "mjpeg.avi": one_face("mjpeg"),
    "mjpeg.mov": one_face("mjpeg"),
    "h263.3gp": lambda path: write_video(path, face(size=(352, 288)), codec="h263"),
    "flv1.flv": one_face("flv"),
    "wmv1.asf": one_face("wmv1"),
    "wmv2.wmv": one_face("wmv2"),
    "prores-422.mov": one_face("prores"),
    "prores-4444-alpha.mov": one_face("prores_ks", {"profile": "4444", "pixel_format": "yuva444p10le"}),
    "gif.gif": one_face("gif"),
    # pixels
    "h264-422.mp4": one_face(options={"pixel_format": "yuv422p"}),
    "h264-444.mp4": one_face(options={"pixel_format": "yuv444p"}),
    "h264-10-bit.mp4": one_face(options={"pixel_format": "yuv420p10le"}),
    "h264-422-10-bit.mov": one_face(options={"pixel_format": "yuv422p10le"}),
    "hevc-10-bit.mp4": one_face("libx265", X265 | {"pixel_format": "yuv420p10le"}),
    "full-range.mp4": one_face(options={"pixel_format": "yuvj420p", "color_range": "pc"}),
    "vp9-alpha.webm": one_face("libvpx-vp9", VPX | {"pixel_format": "yuva420p", "auto-alt-ref": "0"}),
    "interlaced-h264.mp4": one_face(options={"flags": _BOTH_FIELDS, "x264-params": "tff=1"}),
    "interlaced-mpeg2.ts": one_face("mpeg2video", {"flags": _BOTH_FIELDS}),
    "odd-size.mp4": one_face(options={"pixel_format": "yuv444p", "video_size": "321x241"}),
    "odd-size.webm": one_face("libvpx-vp9", VPX | {"video_size": "321x241"}),
    "turned-by-90.mp4": one_face(rotation=90),
    "turned-by-180.mp4": one_face(rotation=180),
    "turned-by-270.mov": one_face(rotation=270),
    "wide-pixels.mp4": one_face(sar=(2, 1)),
    "narrow-pixels.mkv": one_face(sar=(2, 3)),
    "size-changes.ts": one_after_the_other(face(), face(size=(480, 360)), 1.2),
    "ycgco.mp4": _told(matrix_coefficients="8"),
    "ictcp-of-8-bit.mp4": _told(matrix_coefficients="14"),
    "turned-by-the-stream.ts": _told(rotate="180", display_orientation="insert"),
    # times
    "uneven-times.mp4": one_face(pts=[0.0, *accumulate(0.02 + 0.01 * (i % 8) for i in range(29))]),
    "uneven-times.mkv": one_face(pts=[0.0, *accumulate(0.02 + 0.01 * (i % 8) for i in range(29))]),
    "240-fps.mp4": lambda path: write_video(path, moving_face(288, SIZE, 240, face_px=130), 240),
    "five-frames-a-second.mp4": lambda path: write_video(path, face()[:8], 5),
    "edit-list.mp4": one_face(pts=times(-0.4)),
    "starts-after-2-hours.ts": one_face(pts=times(7200)),
    "starts-after-2-hours.mkv": one_face(pts=times(7200)),
    "starts-after-3000000-s.mkv": one_face(pts=times(3_000_000)),
    "starts-after-3000000-s.mp4": one_face(pts=times(3_000_000)),
    "clock-wraps.ts": one_face(pts=times(_CLOCK_WRAPS_S - 2)),
    "two-recordings-in-one.ts": one_after_the_other(face(), face(), 0),
    "nobody-then-a-second-recording.ts": one_after_the_other(no_face(30, SIZE), face(), 0),
    "a-recording-then-one-hours-later.ts": one_after_the_other(face(), no_face(30, SIZE), 7200),
    "out-of-order.avi": one_face(options={"bf": "3"}),
    "refreshed-bit-by-bit.mp4": lambda path: write_video(
        path, face(300), options={"x264-params": "intra-refresh=1:keyint=50:bframes=0"}
    ),
    "live.webm": one_face("libvpx", VPX | {"live": "1"}),
    # streams
    "with-sound.mp4": _with_sound(1.2),
    "sound-goes-on.mp4": _with_sound(12),
    "sound-goes-on.mkv": _with_sound(12),
    "sound-goes-on.flv": _with_sound(12),
    "sound-first.mkv": _sound_first,
    "sound-first.ts": _sound_first,
    "cover-and-video.mp4": _nobody_first((400, 400), 1, Disposition.attached_pic),
    "a-picture-then-the-default.mkv": _nobody_first((400, 400), 1),
    "nobody-first-then-the-default.mkv": _nobody_first(SIZE),
    "nobody-first-then-a-larger.mp4": _nobody_first((160, 120)),
    "an-mp4-inside.avi": misnamed(".mp4"),
    # bytes that some program left behind the end
    "line-break-behind.mp4": _with_junk(b"\r\n"),
    "boundary-behind.mp4": _with_junk(b"--boundary123456789--\r\n"),
    "id3-tag-behind.mp4": _with_junk(b"TAG" + b"title".ljust(125, b"\0")),
}
"""name -> what writes it."""
