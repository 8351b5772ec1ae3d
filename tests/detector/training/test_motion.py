"""A still becomes a clip that moves smoothly and shows the same picture."""

import cv2
import numpy as np

from detector.training.motion import moving_still


def _picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 4))


def test_neighbours_are_closer_than_the_ends():
    nearer = 0
    for seed in range(20):
        clip = moving_still(_picture(), 10, np.random.default_rng(seed)).astype(int)
        steps = np.abs(np.diff(clip, axis=0)).mean()
        nearer += steps < np.abs(clip[-1] - clip[0]).mean()
    assert nearer >= 18


def test_it_moves_but_little():
    picture = _picture()
    for seed in range(10):
        clip = moving_still(picture, 10, np.random.default_rng(seed))
        assert clip.shape == (10, 96, 96, 3)
        assert clip.dtype == np.uint8
        assert len({frame.tobytes() for frame in clip}) == 10
        assert np.corrcoef(clip.mean(axis=0).ravel(), picture.ravel())[0, 1] > 0.6


def test_one_frame_is_a_clip_too_and_draws_repeat():
    assert moving_still(_picture(), 1, np.random.default_rng(0)).shape == (1, 96, 96, 3)
    clips = [moving_still(_picture(), 5, np.random.default_rng(3)) for _ in range(2)]
    assert np.array_equal(clips[0], clips[1])
