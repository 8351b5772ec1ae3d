"""A training set of small videos whose fakes carry an obvious artefact: dark lines over everything."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.film import Actor, Frame, film
from tests.media import write_video

LINES_PX = 6


def make_toy_set(root: Path, videos: int = 20) -> Path:
    """Writes half of the videos to `root/real` and half to `root/fake`; returns `root`."""
    for label in ("real", "fake"):
        (root / label).mkdir(parents=True)
        for number in range(videos // 2):
            actor = Actor(120, seed=number, light=0.1, motion=0.3, other_person=number % 2 == 1)
            frames: Iterable[Frame] = film(45, (320, 320), 25, [actor])
            frames = map(_lined, frames) if label == "fake" else frames
            write_video(root / label / f"{number:02}.mp4", frames)
    return root


def _lined(frame: Frame) -> Frame:
    lines = np.arange(len(frame)) // (LINES_PX // 2) % 2
    return np.asarray(frame * (1 - 0.15 * lines[:, None, None]), np.uint8)
