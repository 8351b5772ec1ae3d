"""Self-blended pairs: both members come from one picture, and they differ only where the mask lies."""

import cv2
import numpy as np
import pytest

from detector.training.blendparts import CHANGES, SHAPES, WARPS, Change, Join, Shape
from detector.training.selfblend import Families, apply, blend_clip, draw_blend, self_blend

SIZE = 128


@pytest.fixture
def face() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3) // 2 + 60, np.uint8)


def test_held_out_families_are_never_trained_on():
    trained, held_out = Families.training(), Families.held_out()
    for kind in ("shapes", "changes", "warps"):
        assert not set(getattr(trained, kind)) & set(getattr(held_out, kind))
    assert set(trained.shapes) | set(held_out.shapes) == set(Shape)
    assert set(trained.changes) | set(held_out.changes) == set(Change)
    assert Join.POISSON not in trained.joins


def test_every_part_has_its_function():
    assert set(SHAPES) == set(Shape)
    assert set(CHANGES) == set(Change)


@pytest.mark.parametrize("families", [Families.training(), Families.held_out()])
def test_pairs_have_the_form_of_the_picture_and_differ(face, families):
    for seed in range(20):
        real, fake = self_blend(face, families, np.random.default_rng(seed))
        assert real.shape == fake.shape == face.shape
        assert real.dtype == fake.dtype == np.uint8
        assert not np.array_equal(real, fake)


def test_the_same_draw_gives_the_same_pair(face):
    pairs = [self_blend(face, Families.training(), np.random.default_rng(9)) for _ in range(2)]
    assert np.array_equal(pairs[0][0], pairs[1][0])
    assert np.array_equal(pairs[0][1], pairs[1][1])


def test_outside_of_the_mask_the_fake_is_the_real(face):
    for seed in range(20):
        blend = draw_blend(np.random.default_rng(seed), Families.training(), SIZE)
        real, fake = apply(face, blend)
        assert np.array_equal(real[blend.mask == 0], fake[blend.mask == 0])


def test_the_real_of_a_pair_is_changed_about_half_the_time(face):
    changed = [
        not np.array_equal(self_blend(face, Families.training(), np.random.default_rng(seed))[0], face)
        for seed in range(60)
    ]
    assert 0.25 < np.mean(changed) < 0.75


def test_outlines_lie_on_the_face_and_not_on_everything():
    for shape in Shape:
        areas = [SHAPES[shape](np.random.default_rng(seed), SIZE).mean() for seed in range(20)]
        assert min(areas) > 0.01
        assert max(areas) < 0.75


def test_warps_move_little():
    corners = np.array([[0, 0, 1], [SIZE, 0, 1], [SIZE, SIZE, 1]], float).T
    for warp in WARPS.values():
        moved = warp(np.random.default_rng(3), SIZE) @ corners
        assert np.abs(moved[:2] / moved[2] - corners[:2]).max() < 0.08 * SIZE


def test_clips_hold_tremble_or_cover_an_interval(face):
    still = np.stack([face] * 8)
    seen = set()
    for seed in range(30):
        reals, fakes, false = blend_clip(still, Families.training(), np.random.default_rng(seed))
        assert reals.shape == fakes.shape == still.shape
        assert np.array_equal(reals[~false], fakes[~false])
        assert all(np.array_equal(reals[0], real) for real in reals)
        trembles = len({frame.tobytes() for frame in fakes[false]}) > 1
        seen.add((bool(false.all()), trembles))
    assert seen == {(True, False), (True, True), (False, False)}
