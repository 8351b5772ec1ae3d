"""Heat maps hold to published sanity checks (Adebayo et al. 2018, arXiv 1810.03292) and to what they promise.

Whether what they show matters to the shipped weights is measured by `make bench BAR=heat`.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from detector.heatmap import heat_maps
from detector.model import Model
from detector.types import Clips
from detector.weights import manifest, read, resolve
from tests.film import portrait
from tests.seeded import seeded_weights

SHIPPED = [name for name in manifest()["files"] if name.endswith(".safetensors")]


@pytest.fixture(scope="module", params=SHIPPED)
def model(request: pytest.FixtureRequest) -> Model:
    return Model(read(resolve(request.param)))


def faces(size: int, frames: int = 3) -> Clips:
    """Two clips of a face that moves; the second one holds two frames only."""
    picture = np.asarray(portrait())
    corner = picture[: min(picture.shape[:2]), : min(picture.shape[:2])]
    step = max(1, corner.shape[0] // size)
    small = corner[::step, ::step][:size, :size]
    small = np.pad(small, ((0, size - small.shape[0]), (0, size - small.shape[1]), (0, 0)), mode="edge")
    clip = np.stack([np.roll(small, 2 * i, axis=1) for i in range(frames)])
    clips = Clips(np.stack([clip, clip[::-1]]).astype(np.uint8), np.ones((2, frames), np.bool_))
    clips.mask[1, 2:] = False
    return clips


def test_a_map_lies_within_0_and_1_and_only_where_a_frame_is(model: Model) -> None:
    clips = faces(model.header.input.size)
    maps = heat_maps(clips, model)
    assert maps.shape == clips.pixels.shape[:4]
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() == 1
    assert not maps[1, 2].any(), "a frame that is not there has a map"


def test_the_map_is_of_the_logit_that_decides(model: Model) -> None:
    clips = faces(model.header.input.size)
    scored = [score.logit for score in model.score(clips)]
    mapped = [
        float(model.clip_logit(model.normalised(frames[held])).detach())
        for frames, held in zip(clips.pixels, clips.mask, strict=True)
    ]
    np.testing.assert_allclose(mapped, scored, atol=1e-4)


def test_a_network_whose_last_block_is_shuffled_gives_another_map(model: Model) -> None:
    clips = faces(model.header.input.size)
    before = heat_maps(clips, model)
    kept = {name: value.clone() for name, value in model.last_block.state_dict().items()}
    torch.manual_seed(0)
    with torch.no_grad():
        for value in model.last_block.parameters():
            value.copy_(value.flatten()[torch.randperm(value.numel())].view_as(value))
    after = heat_maps(clips, model)
    model.last_block.load_state_dict(kept)
    moved = float(np.abs(before - after)[clips.mask].mean())
    assert moved > 0.1, (
        f"with its last block shuffled, the network's map moves by {moved:.3f} of its range only"
    )
    np.testing.assert_array_equal(heat_maps(clips, model), before)


def test_cudnn_whose_lstm_has_no_gradient_in_evaluation_is_left_out(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled: list[bool] = []
    logit = model.clip_logit

    def watched(frames: torch.Tensor) -> torch.Tensor:
        enabled.append(torch.backends.cudnn.enabled)
        return logit(frames)

    monkeypatch.setattr(model, "clip_logit", watched)
    heat_maps(faces(model.header.input.size), model)
    assert enabled
    assert not any(enabled), "on a GPU this raises: cudnn RNN backward can only be called in training mode"
    assert torch.backends.cudnn.enabled, "it is left out for good"


def test_the_lstm_is_part_of_the_graph(tmp_path: Path) -> None:
    maps = []
    for mix in (0.0, 1.0):
        path = tmp_path / f"{mix}.safetensors"
        seeded_weights(path, mix=mix)
        model = Model(read(path))
        maps.append(heat_maps(faces(model.header.input.size, frames=4), model))
    assert maps[1].max() == 1, "no gradient comes through the LSTM"
    assert np.abs(maps[0] - maps[1]).max() > 0.05, "with the LSTM deciding, the map is that of the frame head"
