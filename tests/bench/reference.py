"""The procedure of the reference application, written for the benchmark from a description of it.

It takes the first frames of a video, looks for faces on each of them at full size with dlib's HOG detector,
and runs ResNeXt-50 and an LSTM in float32 over all crops at once. What it does beside that is left out: it
decodes and searches the video a second time for the pictures that it shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnext50_32x4d
from torchvision.transforms.functional import normalize, to_tensor

_SIZE_PX = 112
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WIDTH = 2048


class Judged(NamedTuple):
    """What a video cost the reference, in CPU seconds, and in how many of its frames it found a face."""

    total_s: float
    network_s: float
    frames: int
    faces: int


class Reference:
    """The reference with random weights: they change what it says, not what it costs."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._trunk = nn.Sequential(*list(resnext50_32x4d(weights=None).children())[:-1]).eval()
        self._lstm = nn.LSTM(_WIDTH, _WIDTH, bias=False).eval()
        self._head = nn.Linear(_WIDTH, 2).eval()

    def judge(self, path: Path, frames: int) -> Judged:
        """Judge a video by its first `frames` frames, or by all where it has fewer."""
        began = time.process_time()
        found = [_face(frame) for frame in _first_frames(path, frames)]
        batch = torch.stack([_tensor(crop) for crop, _ in found])
        cropped = time.process_time()
        self._confidence(batch)
        ended = time.process_time()
        return Judged(ended - began, ended - cropped, len(found), sum(is_face for _, is_face in found))

    def _confidence(self, batch: Tensor) -> float:
        """`[N, 3, 112, 112]` -> percent. Its LSTM takes frames for a batch, and the last alone decides."""
        with torch.inference_mode():
            features = self._trunk(batch).flatten(1)
            states, _ = self._lstm(features.unsqueeze(0))
            return float(100 * self._head(states[0, -1]).softmax(0).max())


def _first_frames(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """`[H, W, 3] uint8 BGR`, decoded by one thread."""
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        for _ in range(count):
            there, frame = video.read()
            if not there:
                return
            yield np.asarray(frame, np.uint8)
    finally:
        video.release()


def _face(bgr: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """The first face that the detector lists, which is shown BGR as if it were RGB; else the whole frame."""
    import face_recognition

    for top, right, bottom, left in face_recognition.face_locations(bgr):
        return bgr[top:bottom, left:right], True
    return bgr, False


def _tensor(crop: NDArray[np.uint8]) -> Tensor:
    """Squashed to `[3, 112, 112]` and normalised as if it were RGB."""
    resized = Image.fromarray(crop).resize((_SIZE_PX, _SIZE_PX), Image.Resampling.BILINEAR)
    tensor: Tensor = normalize(to_tensor(resized), _MEAN, _STD)
    return tensor
