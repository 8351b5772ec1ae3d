"""What happens to uploads before we see them, drawn once per pair so that reals and fakes suffer alike.

A `Window` says which part of the stored crop is used: it varies the margin, the place and the side. A
`Look` says what a camera, an editor and a platform do to the pixels: colours, a smaller size, blur, noise,
JPEG, H.264, a covered spot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from detector.crops import resize

Picture = NDArray[np.uint8]
"""[H, W, 3] uint8, RGB."""

_FRAME_TIME = Fraction(1, 25)


@dataclass(frozen=True, slots=True)
class Window:
    """A square of a stored crop, as fractions of its side; outside of it the crop is mirrored."""

    centre_x: float = 0.5
    centre_y: float = 0.5
    side: float = 1.0
    mirrored: bool = False

    def within(self, reach: float) -> Window:
        """The same window in a picture whose side is `reach` times that of the crop, around one centre."""
        x, y = ((centre - 0.5) / reach + 0.5 for centre in (self.centre_x, self.centre_y))
        return replace(self, centre_x=x, centre_y=y, side=self.side / reach)

    def as_row(self) -> tuple[float, float, float, float]:
        """Centre x, centre y, side, and -1 where mirrored, else 1."""
        return self.centre_x, self.centre_y, self.side, -1.0 if self.mirrored else 1.0

    def cut(self, picture: Picture) -> Picture:
        """The part of the picture under the window, at the picture's own resolution."""
        height, width = picture.shape[:2]
        side = max(8, round(self.side * min(height, width)))
        left = round(self.centre_x * width - side / 2)
        top = round(self.centre_y * height - side / 2)
        border = max(0, -left, -top, left + side - width, top + side - height)
        if border:
            picture = np.asarray(
                cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_REFLECT_101), np.uint8
            )
        part = picture[top + border : top + border + side, left + border : left + border + side]
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)


def draw_window(rng: np.random.Generator) -> Window:
    """Margins around that of inference: sides of .65 to 1.15 of the stored crop, most near .95."""
    side = float(np.clip(rng.normal(0.95, 0.12), 0.65, 1.15))
    play = abs(1.0 - side) / 2 + 0.02
    x, y = rng.uniform(-play, play, 2)
    return Window(0.5 + float(x), 0.5 + float(y), side, bool(rng.random() < 0.5))


@dataclass(frozen=True, slots=True)
class Look:
    """Parameters of one degradation; the defaults change nothing."""

    gain: float = 1.0
    """Contrast around mid-grey."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Added to R, G, B; grey levels."""
    grey: bool = False
    side: int = 0
    """Width that the picture is shrunk to first, px; 0 = as it is. Larger than the picture: as it is."""
    blur: float = 0.0
    """Sigma of a Gaussian, px."""
    noise: float = 0.0
    """Sigma, grey levels."""
    jpeg: int = 0
    """Quality; 0 = none."""
    h264: int = 0
    """Constant rate factor, larger is worse; 0 = none."""
    cover: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """x, y, width, height of a covered spot as fractions of the picture."""


def draw_look(rng: np.random.Generator, strength: float = 1.0) -> Look:
    """A random degradation; `strength` scales how often each part of it happens (0 = never)."""

    def happens(probability: float) -> bool:
        return bool(rng.random() < probability * strength)

    brightness = rng.uniform(-25, 25) if happens(0.4) else 0.0
    channels = rng.uniform(-14, 14, 3) if happens(0.3) else np.zeros(3)
    return Look(
        gain=float(rng.uniform(0.75, 1.25)) if happens(0.4) else 1.0,
        shift=(
            float(brightness + channels[0]),
            float(brightness + channels[1]),
            float(brightness + channels[2]),
        ),
        grey=happens(0.05),
        side=round(float(np.exp(rng.uniform(np.log(64), np.log(180))))) if happens(0.4) else 0,
        blur=float(rng.uniform(0.4, 1.4)) if happens(0.2) else 0.0,
        noise=float(rng.uniform(1.5, 8)) if happens(0.2) else 0.0,
        jpeg=int(rng.integers(30, 96)) if happens(0.4) else 0,
        h264=int(rng.integers(20, 42)) if happens(0.35) else 0,
        cover=_draw_cover(rng) if happens(0.15) else (0.0, 0.0, 0.0, 0.0),
    )


def _draw_cover(rng: np.random.Generator) -> tuple[float, float, float, float]:
    width, height = rng.uniform(0.1, 0.35, 2)
    return float(rng.uniform(0, 1 - width)), float(rng.uniform(0, 1 - height)), float(width), float(height)


def degrade(picture: Picture, look: Look, noise_seed: int = 0) -> Picture:
    """The picture as such an upload would show it; its side may be smaller afterwards.

    Args:
        picture: A square crop.
        look: What to do.
        noise_seed: The noise itself should differ between the members of a pair.
    """
    return np.asarray(degrade_clip(picture[None], look, noise_seed)[0])


def degrade_clip(clip: NDArray[np.uint8], look: Look, noise_seed: int = 0) -> NDArray[np.uint8]:
    """The same for a clip [T, S, S, 3] uint8 RGB: one look and one stream, but noise of its own per frame."""
    frames = [_before_codec(picture, look, noise_seed + number) for number, picture in enumerate(clip)]
    degraded = np.stack(frames)
    if look.h264:
        degraded = h264(degraded, look.h264)
    return np.stack([jpeg(picture, look.jpeg) for picture in degraded]) if look.jpeg else degraded


def _before_codec(picture: Picture, look: Look, noise_seed: int) -> Picture:
    if 0 < look.side < picture.shape[0]:
        picture = resize(picture, look.side)
    if look.blur:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), look.blur), np.uint8)
    return _cover(_recolour(picture, look, noise_seed), look)


def _recolour(picture: Picture, look: Look, noise_seed: int) -> Picture:
    changes = look.gain != 1.0 or any(look.shift) or look.noise or look.grey
    if not changes:
        return picture
    values = picture.astype(np.float32)
    if look.grey:
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    values = (values - 127.5) * look.gain + 127.5 + np.asarray(look.shift, np.float32)
    if look.noise:
        values += np.random.default_rng(noise_seed).normal(0, look.noise, values.shape).astype(np.float32)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _cover(picture: Picture, look: Look) -> Picture:
    x, y, w, h = (round(part * picture.shape[0]) for part in look.cover)
    if not (w and h):
        return picture
    covered = picture.copy()
    covered[y : y + h, x : x + w] = picture.mean(axis=(0, 1))
    return covered


def jpeg_bytes(picture: Picture, quality: int) -> bytes:
    """The picture as a JPEG file."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return data.tobytes()


def jpeg(picture: Picture, quality: int) -> Picture:
    """The picture after JPEG compression."""
    data = np.frombuffer(jpeg_bytes(picture, quality), np.uint8)
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def h264(clip: NDArray[np.uint8], rate_factor: int) -> NDArray[np.uint8]:
    """A clip [T, H, W, 3] uint8 RGB after H.264 (x264, 4:2:0) at a constant rate factor of 1 to 51."""
    height, width = clip.shape[1:3]
    even = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    padded = np.pad(clip, even, mode="edge")
    encoder = av.VideoCodecContext.create("libx264", "w")
    encoder.height, encoder.width = padded.shape[1:3]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = "yuv420p", _FRAME_TIME, 1
    encoder.options = {"crf": str(rate_factor), "preset": "veryfast", "tune": "zerolatency"}
    decoder = av.VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = [packet for frame in padded for packet in encoder.encode(_video_frame(frame))]
    packets += encoder.encode(None)
    frames = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    return np.asarray(decoded[:, :height, :width], np.uint8)


def _video_frame(picture: Picture) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
