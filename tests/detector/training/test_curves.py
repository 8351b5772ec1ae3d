"""A cycle's log becomes a picture."""

from pathlib import Path

import cv2

from detector.training.curves import draw_curves


def test_nothing_logged_draws_nothing(tmp_path: Path):
    assert draw_curves(tmp_path) is None


def test_losses_and_figures_are_drawn_in_colour(tmp_path: Path):
    (tmp_path / "log.csv").write_text("step,images_per_s,learning_rate,label\n1,5,0.1,0.7\n9,5,0.1,0.5\n")
    (tmp_path / "validation.csv").write_text("step,auc\n5,0.6\n9,0.8\n")
    path = draw_curves(tmp_path)
    assert path is not None
    picture = cv2.imread(str(path))
    assert picture.shape == (640, 900, 3)
    for panel in (picture[:320], picture[320:]):
        assert ((panel.max(axis=2) - panel.min(axis=2)) > 100).sum() > 200
