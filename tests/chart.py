"""A test chart of flat patches, coded as cameras, phones and studios code their pictures.

The planes are computed here from the standards' formulas and never by swscale, so that a reader that trusts
swscale, or forgets a tag, is found out. A patch lies on whole chroma samples: its colour is exact up to the
rounding of the codes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from tests.film import Size

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]

# The sRGB original. Nothing is so saturated that a part of it is cut off in one of the encodings.
PATCHES: dict[str, Colour] = {
    "black": (0, 0, 0),
    "almost black": (16, 16, 16),
    "dark grey": (64, 64, 64),
    "middle grey": (128, 128, 128),
    "white": (255, 255, 255),
    "skin 1": (250, 224, 200),
    "skin 2": (224, 172, 138),
    "skin 3": (198, 134, 100),
    "skin 4": (141, 85, 60),
    "skin 5": (72, 44, 34),
    "red": (176, 64, 60),
    "green": (88, 152, 92),
    "blue": (56, 80, 168),
    "light grey": (192, 192, 192),
    "orange": (216, 128, 56),
    "cyan": (96, 164, 172),
    "magenta": (168, 72, 152),
    "yellow": (200, 184, 72),
    "sky": (128, 176, 216),
    "leaves": (88, 104, 60),
}
COLUMNS, ROWS = 5, 4
FRAMES = 3

# Light and white (x, y) of red, green, blue, white: ITU-R BT.709 (those of sRGB) and BT.2020.
_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290))
_BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290))
_WHITE_NITS = 203  # reference white of an HDR picture, ITU-R BT.2408: 58 % of PQ, 75 % of HLG
_HLG_PEAK_NITS, _HLG_GAMMA = 1000, 1.2  # nominal display of ITU-R BT.2100

# Numbers of ITU-T H.273.
UNKNOWN = 2
LIMITED, FULL = 1, 2  # FFmpeg's own numbers, where 0 is unknown
SDR_10_BIT, PQ, HLG = 14, 16, 18  # transfers of BT.2020 and BT.2100
WIDE = 9  # matrix and primaries of BT.2020
# Weights of red and blue in luma: H.273's number of the matrix -> KR, KB.
_LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


class Tags(NamedTuple):
    """What a file says of its colours, or leaves open: the numbers that PyAV reads of a frame."""

    matrix: int
    range: int
    transfer: int
    primaries: int

    @classmethod
    def of(cls, picture: av.VideoFrame) -> "Tags":
        """The tags of a decoded frame."""
        return cls(
            int(picture.colorspace),
            int(picture.color_range),
            int(picture.color_trc),
            int(picture.color_primaries),
        )

    def put_on(self, to: av.VideoFrame | av.VideoCodecContext) -> None:
        """Sets them on a frame or an encoder."""
        to.colorspace, to.color_range, to.color_trc, to.color_primaries = self


UNTAGGED = Tags(UNKNOWN, 0, UNKNOWN, UNKNOWN)
SD, HD = Tags(6, LIMITED, 6, 1), Tags(1, LIMITED, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the chart is coded. `coded` is how the planes are made, `told` what a frame read back must say."""

    codec: str
    pixels: str
    coded: Tags
    told: Tags
    suffix: str = ".mp4"
    options: Mapping[str, str] = field(default_factory=dict)
    size: Size = (320, 192)

    @property
    def is_hdr(self) -> bool:
        """True if white is not the brightest that can be coded."""
        return self.coded.transfer in (PQ, HLG)


def _h264(pixels: str, coded: Tags, told: Tags | None = None, size: Size = (320, 192)) -> Encoding:
    options = {"preset": "veryfast", "crf": "1"}
    return Encoding(
        codec="libx264", pixels=pixels, coded=coded, told=told or coded, options=options, size=size
    )


def _hevc(coded: Tags) -> Encoding:
    options = {"preset": "veryfast", "crf": "1", "x265-params": "log-level=none:pools=1"}
    return Encoding(codec="libx265", pixels="yuv420p10le", coded=coded, told=coded, options=options)


_JPEG = Tags(5, FULL, UNKNOWN, UNKNOWN)
ENCODINGS: dict[str, Encoding] = {
    "BT.601, H.264": _h264("yuv420p", SD),
    "BT.709, H.264": _h264("yuv420p", HD),
    "BT.709 full range, H.264": _h264("yuv420p", HD._replace(range=FULL)),
    "BT.601 full range, H.264": _h264("yuv420p", SD._replace(range=FULL)),
    "BT.709 4:4:4, H.264": _h264("yuv444p", HD),
    "BT.709 10 bit, H.264": _h264("yuv420p10le", HD),
    "BT.709 10 bit, HEVC": _hevc(HD),
    "BT.709, VP9": Encoding(
        codec="libvpx-vp9",
        pixels="yuv420p",
        coded=HD,
        told=HD,
        suffix=".webm",
        options={"crf": "4", "b": "0", "deadline": "realtime", "cpu-used": "8"},
    ),
    "JPEG": Encoding(
        codec="mjpeg",
        pixels="yuvj420p",
        coded=_JPEG,
        told=_JPEG,
        suffix=".avi",
        options={"qmin": "1", "qmax": "1"},
    ),
    "BT.709 4:2:2 10 bit, ProRes": Encoding(
        codec="prores_ks",
        pixels="yuv422p10le",
        coded=HD,
        told=HD,
        suffix=".mov",
        options={"profile": "hq"},
    ),
    "BT.2020 10 bit, HEVC": _hevc(Tags(WIDE, LIMITED, SDR_10_BIT, WIDE)),
    "HLG, HEVC": _hevc(Tags(WIDE, LIMITED, HLG, WIDE)),
    "PQ, HEVC": _hevc(Tags(WIDE, LIMITED, PQ, WIDE)),
    # Without tags a player goes by the size.
    "untagged, SD": _h264("yuv420p", SD, UNTAGGED),
    "untagged, HD": _h264("yuv420p", HD, UNTAGGED, size=(1280, 720)),
}


def write_chart(path: Path, encoding: Encoding) -> Path:
    """Writes the chart as a video of `FRAMES` equal frames, 25 per second, and returns the path."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(encoding.codec, 25, options=dict(encoding.options))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = encoding.size
        stream.pix_fmt = encoding.pixels
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 25)
        encoding.told.put_on(stream.codec_context)
        for picture in _pictures(encoding):
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return path


def medians(rgb: NDArray[np.uint8]) -> dict[str, Colour]:
    """The median colour of each patch's inner part in a chart of any size, `[H, W, 3] uint8 RGB`."""
    height, width = rgb.shape[0] // ROWS, rgb.shape[1] // COLUMNS
    found: dict[str, Colour] = {}
    for i, name in enumerate(PATCHES):
        y, x = i // COLUMNS * height, i % COLUMNS * width
        inner = rgb[y + height // 4 : y + 3 * height // 4, x + width // 4 : x + 3 * width // 4]
        red, green, blue = np.median(inner, axis=(0, 1))
        found[name] = (round(red), round(green), round(blue))
    return found


def codes(srgb: Floats, coded: Tags, bits: int) -> NDArray[np.int64]:
    """Y, Cb, Cr `[N, 3]` of sRGB colours `[N, 3]` 0-1, by the equations of H.273, 8.3."""
    red, green, blue = signal(srgb, coded).T
    kr, kb = _LUMA[coded.matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    if coded.range == FULL:
        top = 2**bits - 1
        values = np.stack((top * luma, top * cb + 2 ** (bits - 1), top * cr + 2 ** (bits - 1)), axis=1)
    else:
        values = 2 ** (bits - 8) * np.stack((219 * luma + 16, 224 * cb + 128, 224 * cr + 128), axis=1)
    return np.asarray(np.rint(values), np.int64)


def signal(srgb: Floats, coded: Tags) -> Floats:
    """R'G'B' `[N, 3]` 0-1 as the encoding has them, before the matrix, of sRGB colours `[N, 3]` 0-1.

    In SDR, sRGB's curve stands for the display's: a player hands values of BT.709 to the screen as they are.
    """
    if coded.primaries != WIDE:
        return srgb
    light = _linear(srgb) @ (np.linalg.inv(_to_xyz(_BT2020)) @ _to_xyz(_BT709)).T
    if coded.transfer == PQ:
        return _pq(light * _WHITE_NITS)
    if coded.transfer == HLG:
        return _hlg(light * _WHITE_NITS)
    return _srgb(light)


def _pictures(encoding: Encoding) -> Iterator[av.VideoFrame]:
    for index in range(FRAMES):
        picture = av.VideoFrame(*encoding.size, encoding.pixels)
        bits = picture.format.components[0].bits
        patches = codes(np.array(list(PATCHES.values())) / 255, encoding.coded, bits)
        for plane, of_patch in zip(picture.planes, patches.T, strict=True):
            tall, wide = plane.height // ROWS, plane.width // COLUMNS
            dtype = np.dtype(np.uint8 if bits == 8 else "<u2")
            lines = np.frombuffer(memoryview(plane), dtype).reshape(
                plane.height, plane.line_size // dtype.itemsize
            )
            lines[:, : plane.width] = of_patch.reshape(ROWS, COLUMNS).repeat(tall, 0).repeat(wide, 1)
        encoding.told.put_on(picture)
        picture.pts, picture.time_base = index, Fraction(1, 25)
        yield picture


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> Floats:
    """The matrix `[3, 3]` from linear RGB to XYZ, white at Y = 1."""
    red, green, blue, white = (np.array((x / y, 1, (1 - x - y) / y)) for x, y in primaries)
    columns = np.stack((red, green, blue), axis=1)
    return np.asarray(columns * np.linalg.solve(columns, white), np.float64)


def _linear(srgb: Floats) -> Floats:
    """Light, white at 1, of sRGB values 0-1 (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb(light: Floats) -> Floats:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def _pq(nits: Floats) -> Floats:
    """PQ values 0-1 of the display's light (BT.2100, table 4)."""
    power = (nits / 10_000) ** (2610 / 16384)
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    return np.asarray(((c1 + c2 * power) / (1 + c3 * power)) ** (2523 / 4096 * 128), np.float64)


def _hlg(nits: Floats) -> Floats:
    """HLG values 0-1 of the display's light (BT.2100, table 5): back to the scene's light, then its curve."""
    shown = nits / _HLG_PEAK_NITS
    luminance = np.maximum(shown @ np.array((0.2627, 0.6780, 0.0593)), 1e-12)[:, None]
    scene: Floats = shown * luminance ** (1 / _HLG_GAMMA - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-12)) + c)
