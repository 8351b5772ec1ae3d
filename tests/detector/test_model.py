"""The same numbers alone and in company; order counts where the LSTM has weight."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from detector.model import Model, golden_logit, stack
from detector.network import ResNeXtLSTM
from detector.types import Clips, ClipScore
from detector.verdict import calibrated
from detector.weights import write
from tests.media import moving_face
from tests.seeded import seeded_weights

FRAMES, SIZE = 10, 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(seeded_weights(tmp_path_factory.mktemp("weights") / "half.safetensors", mix=0.5))


@pytest.fixture(scope="module")
def clips() -> Clips:
    """Seven clips of a moving face; the second has four frames, the sixth one."""
    pixels = np.stack(moving_face(7 * FRAMES, (SIZE, SIZE), 10, face_px=40, seed=1, light=1))
    mask = np.ones((7, FRAMES), np.bool_)
    mask[1, 4:] = mask[5, 1:] = False
    return Clips(pixels.reshape(7, FRAMES, SIZE, SIZE, 3), mask)


def one(clips: Clips, index: int) -> Clips:
    return Clips(clips.pixels[index : index + 1], clips.mask[index : index + 1])


def numbers(scores: Sequence[ClipScore]) -> list[list[float]]:
    return [[score.logit, score.sequence_logit, *score.frame_logits] for score in scores]


def test_a_clip_alone_gets_the_numbers_that_it_gets_among_others(model: Model, clips: Clips) -> None:
    together = numbers(model.score(clips))
    alone = [numbers(model.score(one(clips, i)))[0] for i in range(len(clips))]

    np.testing.assert_allclose(alone, together, atol=1e-4)
    assert np.ptp([row[0] for row in together]) > 1e-3, "all clips score alike: the comparison shows nothing"


def test_clips_of_several_videos_are_scored_in_order(model: Model, clips: Clips) -> None:
    videos = [one(clips, 0), Clips.none(FRAMES, SIZE), one(clips, 4), one(clips, 5)]
    scores = model.score(stack(videos))

    whole = model.score(clips)
    np.testing.assert_allclose(numbers(scores), numbers([whole[i] for i in (0, 4, 5)]), atol=1e-4)


def test_nothing_to_score_gives_no_scores(model: Model) -> None:
    assert model.score(Clips.none(FRAMES, SIZE)) == []
    assert model.score(stack([])) == []


def test_frames_that_are_masked_do_not_matter(model: Model, clips: Clips) -> None:
    pixels = clips.pixels.copy()
    pixels[~clips.mask] = 255
    scores = model.score(clips)

    np.testing.assert_allclose(numbers(model.score(Clips(pixels, clips.mask))), numbers(scores), atol=1e-6)
    assert np.isnan(scores[1].frame_logits).tolist() == [False] * 4 + [True] * 6
    assert not np.isnan([score.logit for score in scores]).any()


def test_a_short_clip_scores_as_if_it_were_a_whole_one(model: Model, clips: Clips) -> None:
    short = Clips(clips.pixels[1:2, :4], clips.mask[1:2, :4])

    assert model.score(short)[0].logit == pytest.approx(model.score(clips)[1].logit, abs=1e-4)


@pytest.mark.parametrize(("mix", "order_counts"), [(1.0, True), (0.5, True), (0.0, False)])
def test_the_order_of_frames_counts_where_the_sequence_has_weight(
    tmp_path: Path, clips: Clips, mix: float, order_counts: bool
) -> None:
    model = Model(seeded_weights(tmp_path / "a.safetensors", mix=mix))
    reverse = Clips(clips.pixels[:1, ::-1].copy(), clips.mask[:1])
    forward, backward = model.score(one(clips, 0))[0], model.score(reverse)[0]

    moved = abs(forward.logit - backward.logit)
    assert (moved > 1e-5) is order_counts, f"reversing the frames moved the logit by {moved:.2g}"
    np.testing.assert_allclose(forward.frame_logits, backward.frame_logits[::-1], atol=1e-5)
    assert forward.logit == pytest.approx(
        mix * forward.sequence_logit + (1 - mix) * np.mean(forward.frame_logits), abs=1e-5
    )


def test_bfloat16_moves_a_score_by_less_than_five_thousandths(tmp_path: Path, clips: Clips) -> None:
    weights = seeded_weights(tmp_path / "a.safetensors")
    exact, rounded = (Model(weights, dtype=dtype).score(clips) for dtype in ("float32", "bfloat16"))

    policy = weights.header.policy
    moved = [
        abs(calibrated(a.logit, policy) - calibrated(b.logit, policy))
        for a, b in zip(exact, rounded, strict=True)
    ]
    assert max(moved) < 5e-3, f"scores moved by up to {max(moved):.2g}"


def test_weights_trained_on_blue_first_get_blue_first(tmp_path: Path, clips: Clips) -> None:
    rgb = seeded_weights(tmp_path / "rgb.safetensors")
    header = msgspec.structs.replace(
        rgb.header, input=msgspec.structs.replace(rgb.header.input, colour="bgr")
    )
    bgr = write(tmp_path / "bgr.safetensors", header, rgb.tensors())
    swapped = Clips(clips.pixels[..., ::-1].copy(), clips.mask)

    np.testing.assert_allclose(
        numbers(Model(bgr).score(swapped)), numbers(Model(rgb).score(clips)), atol=1e-5
    )


def test_the_golden_logit_does_not_depend_on_the_process(model: Model, tmp_path: Path) -> None:
    weights = seeded_weights(tmp_path / "a.safetensors", mix=0.5)
    net = ResNeXtLSTM(weights.header.architecture).eval()
    net.load_state_dict(weights.tensors())

    assert golden_logit(net, weights.header) == pytest.approx(model.header.golden_logit, abs=1e-5)
