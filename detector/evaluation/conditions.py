"""What happens to videos on their way to us, as a fixed list: how much of a figure is left after each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from detector.crops import resize
from detector.degrade import Look, degrade_clip
from detector.types import Clips

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Takes and gives a clip [T, H, W, 3] uint8 RGB, whose size may be another afterwards."""


def _look(look: Look) -> Change:
    return lambda clip: degrade_clip(clip, look)


def _smaller(factor: int) -> Change:
    return lambda clip: degrade_clip(clip, Look(side=max(8, round(clip.shape[1] / factor))))


CONDITIONS: Mapping[str, Change] = {
    **{f"H.264 CRF {factor}": _look(Look(h264=factor)) for factor in (23, 32, 40)},
    **{f"JPEG {quality}": _look(Look(jpeg=quality)) for quality in (90, 70, 50, 30)},
    **{f"down and up x{factor}": _smaller(factor) for factor in (2, 4)},
    **{f"blur {sigma}": _look(Look(blur=sigma)) for sigma in (1, 2)},
    **{f"noise {sigma}": _look(Look(noise=sigma)) for sigma in (5, 10)},
}
"""Compression as FaceForensics++ has it (CRF 23 and 40 are its c23 and c40), smaller uploads, blur (sigma in
px of the crop) and noise (sigma in grey levels). A single picture is a clip of one frame."""


def changed(clips: Clips, change: Change) -> Clips:
    """Clips after a change, at the size that they had; where the mask is False nothing counts."""
    pixels = np.zeros_like(clips.pixels)
    size = clips.pixels.shape[2]
    for number, (clip, held) in enumerate(zip(clips.pixels, clips.mask, strict=True)):
        if held.any():
            pixels[number, held] = np.stack([resize(frame, size) for frame in change(clip[held])])
    return Clips(pixels, clips.mask)
