"""Face detectors: a displayed frame in, boxes in its own px out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.types import DetectorName, FaceBox

# A track starts at the higher score and goes on at the lower.
START_SCORE = 0.7
KEEP_SCORE = 0.5

YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_RASTERS = (640, 320)
YUNET_FULL = 1920
_NMS_IOU = 0.4
_LEAST_SIDE = 16

_ANY_PX = 1 << 30


@dataclass(frozen=True, slots=True)
class Look:
    """A detector, and how large it wants to be shown a frame.

    Attributes:
        detect: `[H, W, 3] uint8 RGB`, and True to look at full size, for small faces; boxes in px of it.
        usual_px, full_px: what a frame's long side may be shrunk to without a loss, for the usual look and
            for one at full size.
    """

    detect: Callable[[NDArray[np.uint8], bool], list[FaceBox]]
    usual_px: int = _ANY_PX
    full_px: int = _ANY_PX

    def __call__(self, rgb: NDArray[np.uint8], full: bool) -> list[FaceBox]:
        """Faces in `[H, W, 3] uint8 RGB`, in its px."""
        return self.detect(rgb, full)


def load(name: DetectorName) -> Look:
    """A detector by name, warm and ready to be used in a forked child."""
    return {"yunet": _load_yunet, "hog": _load_hog}[name]()


def _load_yunet() -> Look:
    """YuNet (Wu et al. 2023, OpenCV Zoo 2023mar) on a long side of 640 and of 320 px, boxes merged.

    At 640 alone a third of the faces that fill the frame are lost, at 320 the small ones are.
    """
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    model = np.frombuffer((files("weights") / YUNET_FILE).read_bytes(), np.uint8)
    net = cv2.FaceDetectorYN.create("onnx", model, np.empty(0, np.uint8), (320, 320), KEEP_SCORE, 0.3, 500)

    def at_raster(rgb: NDArray[np.uint8], longest: int) -> list[FaceBox]:
        height, width = rgb.shape[:2]
        scale = longest / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if min(size) < _LEAST_SIDE:
            return []
        small = rgb if scale == 1 else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        net.setInputSize(size)
        _, found = net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        rows = np.zeros((0, 15), np.float32) if found is None else np.asarray(found)
        fx, fy = width / size[0], height / size[1]
        return [FaceBox(r[0] * fx, r[1] * fy, r[2] * fx, r[3] * fy, float(r[14])) for r in rows.tolist()]

    def look(rgb: NDArray[np.uint8], full: bool) -> list[FaceBox]:
        rasters = (YUNET_FULL,) if full else YUNET_RASTERS
        sizes = dict.fromkeys(min(raster, max(rgb.shape[:2])) for raster in rasters)  # never enlarged
        return _merge([box for longest in sizes for box in at_raster(rgb, longest)])

    return Look(look, max(YUNET_RASTERS), YUNET_FULL)


def _load_hog() -> Look:
    """dlib's HOG frontal detector (King 2015) with one upsampling, what face_recognition runs by default.

    Its score is a distance to a plane from 0 up; it is mapped to [0.7, 1), so that every box can start a
    track.
    """
    import dlib

    detect = dlib.get_frontal_face_detector()

    def look(rgb: NDArray[np.uint8], full: bool) -> list[FaceBox]:
        if full:
            return []
        rects, scores, _ = detect.run(np.ascontiguousarray(rgb), 1, 0.0)
        return [
            FaceBox(
                r.left(), r.top(), r.width(), r.height(), START_SCORE + 0.3 * (1 - math.exp(-max(s, 0.0)))
            )
            for r, s in zip(rects, scores, strict=True)
        ]

    return Look(look)


def _merge(boxes: list[FaceBox]) -> list[FaceBox]:
    """Non-maximum suppression over the boxes of several rasters."""
    if len(boxes) < 2:
        return boxes
    kept = cv2.dnn.NMSBoxes([b.xywh for b in boxes], [b.score for b in boxes], KEEP_SCORE, _NMS_IOU)
    return [boxes[int(i)] for i in np.asarray(kept).reshape(-1)]
