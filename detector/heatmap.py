"""Where in a face the network found what speaks for its score: Grad-CAM over a whole clip.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) by captum, on the trunk's last block. The gradient is that
of the clip's logit, through heads and LSTM, towards the side that the score is on: a face that looks real
shows what speaks for real. `make bench BAR=heat` measures that hiding what it shows moves the logit.
"""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import Tensor

from detector.model import Model
from detector.types import Clips


def heat_maps(clips: Clips, model: Model) -> NDArray[np.float32]:
    """How much each place of each frame speaks for the clip's score.

    Args:
        clips: `[N, T, H, W, 3] uint8 RGB` of the header's size.
        model: That scored them.

    Returns:
        `[N, T, H, W] float32` in [0, 1], 1 = the place of the clip that says most; zeros where the mask is
        False, and in a clip in which no place speaks for its score.
    """
    maps = np.zeros(clips.pixels.shape[:4], np.float32)
    for index, (frames, held) in enumerate(zip(clips.pixels, clips.mask, strict=True)):
        if held.any():
            maps[index, held] = _clip_maps(frames[held], model)
    return maps


def _clip_maps(frames: NDArray[np.uint8], model: Model) -> NDArray[np.float32]:
    """`[T, H, W, 3] uint8` of one clip -> `[T, H, W] float32`."""
    given = model.normalised(frames).requires_grad_()
    # cuDNN's LSTM has no backward pass in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        logit = model.clip_logit(given)
        cam = LayerGradCam(model.clip_logit, model.last_block)
        coarse: Tensor = cam.attribute(given)
    towards = coarse.detach().float() * (1.0 if logit.item() >= 0 else -1.0)
    fine = torch.nn.functional.interpolate(
        towards, size=frames.shape[1:3], mode="bicubic", align_corners=False
    )
    fine = fine.squeeze(1).clamp(min=0)
    return np.asarray((fine / fine.max().clamp(min=1e-12)).cpu(), np.float32)
