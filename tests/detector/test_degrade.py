"""Windows and looks: what they promise to change, and what they leave alone."""

import numpy as np
import pytest

from detector.crops import resize
from detector.degrade import (
    Look,
    Window,
    degrade,
    degrade_clip,
    draw_look,
    draw_window,
    h264,
    jpeg,
)


@pytest.fixture
def picture() -> np.ndarray:
    ramp = np.linspace(20, 230, 96)
    return np.stack(
        [np.add.outer(ramp, ramp) / 2, np.tile(ramp, (96, 1)), np.tile(ramp, (96, 1)).T], 2
    ).astype(np.uint8)


def test_a_plain_window_and_look_change_nothing(picture):
    assert np.array_equal(degrade(Window().cut(picture), Look()), picture)


def test_a_mirrored_window_mirrors(picture):
    assert np.array_equal(Window(mirrored=True).cut(picture), picture[:, ::-1])


def test_a_small_window_cuts_the_named_place(picture):
    assert np.array_equal(Window(0.25, 0.75, 0.5).cut(picture), picture[48:, :48])


def test_a_window_beyond_the_crop_reflects_it(picture):
    wide = Window(side=1.25).cut(picture)
    assert wide.shape == (120, 120, 3)
    assert np.array_equal(wide[12:108, 12:108], picture)
    assert np.array_equal(wide[12:108, 11], picture[:, 1])


def test_drawn_windows_stay_near_the_margin_of_inference():
    windows = [draw_window(np.random.default_rng(seed)) for seed in range(500)]
    sides = np.array([window.side for window in windows])
    assert sides.min() >= 0.65
    assert sides.max() <= 1.15
    assert 0.9 < sides.mean() < 1.0
    assert 0.4 < np.mean([window.mirrored for window in windows]) < 0.6


def test_the_same_draw_gives_the_same_picture(picture):
    looks = [draw_look(np.random.default_rng(5)) for _ in range(2)]
    assert looks[0] == looks[1]
    assert np.array_equal(degrade(picture, looks[0], 3), degrade(picture, looks[1], 3))


def test_every_drawn_look_gives_a_picture(picture):
    for seed in range(60):
        degraded = degrade(picture, draw_look(np.random.default_rng(seed)), seed)
        assert degraded.dtype == np.uint8
        assert degraded.ndim == 3
        assert degraded.shape[0] == degraded.shape[1] <= 96


def test_no_strength_means_no_change():
    assert draw_look(np.random.default_rng(0), strength=0.0) == Look()


def test_noise_differs_between_members_of_a_pair(picture):
    assert not np.array_equal(degrade(picture, Look(noise=5), 1), degrade(picture, Look(noise=5), 2))


def test_parts_of_a_look_do_what_they_say(picture):
    grey = degrade(picture, Look(grey=True))
    assert np.ptp(grey.astype(int), axis=2).max() == 0
    assert degrade(picture, Look(side=40)).shape == (40, 40, 3)
    assert degrade(picture, Look(side=500)).shape == picture.shape
    brighter = degrade(picture, Look(shift=(10.0, 10.0, 10.0)))
    assert np.abs(brighter.astype(int) - picture - 10).max() <= 1
    covered = degrade(picture, Look(cover=(0.25, 0.25, 0.5, 0.5)))[24:72, 24:72]
    assert np.ptp(covered, axis=(0, 1)).max() == 0


def test_low_quality_loses_more(picture):
    def loss(quality: int) -> float:
        return float(np.abs(jpeg(picture, quality).astype(int) - picture).mean())

    assert loss(20) > loss(95)


def test_video_compression_loses_more_at_a_higher_rate_factor_and_keeps_odd_shapes(picture):
    clip = np.stack([picture[:95, :93], picture[1:, 3:]])

    def loss(rate_factor: int) -> float:
        decoded = h264(clip, rate_factor)
        assert decoded.shape == clip.shape
        return float(np.abs(decoded.astype(int) - clip).mean())

    assert loss(18) < loss(30) < loss(45)


def test_a_clip_is_degraded_as_one_stream(picture):
    look = Look(h264=35, side=64)
    still = degrade_clip(np.stack([picture] * 3), look)
    assert still.shape == (3, 64, 64, 3)
    assert np.array_equal(still[:1], degrade(picture, look)[None])
    lost = np.abs(still[0].astype(int) - resize(picture, 64)).mean()
    assert np.abs(still[2].astype(int) - still[0]).mean() < lost


def test_a_window_covers_the_same_part_of_what_reaches_further(picture):
    wide = np.pad(picture, ((24, 24), (24, 24), (0, 0)))
    window = Window(0.55, 0.45, 0.8, mirrored=True)
    assert np.array_equal(window.within(1.5).cut(wide), window.cut(picture))
