import pytest

from jobs.bottleneck import Workers, bottleneck

FOUR_CORES = Workers(extract=4, score=1, on_gpu=False)


def spent(fetch: float = 0.0, extract: float = 0.0, score: float = 0.0) -> dict[str, float]:
    return {"fetch": fetch, "extract": extract, "score": score}


@pytest.mark.parametrize(
    ("seconds", "stage", "advice"),
    [
        (spent(fetch=40, extract=380, score=50), "extract", "more CPU cores"),
        (spent(fetch=40, extract=200, score=95), "score", "a GPU"),
        (spent(fetch=390, extract=100, score=20), "fetch", "region of the bucket"),
    ],
)
def test_the_stage_whose_actors_were_busiest_is_named_with_what_helps(
    seconds: dict[str, float], stage: str, advice: str
) -> None:
    found = bottleneck(seconds, FOUR_CORES, wall_s=100)
    assert found.stage == stage
    assert advice in found.in_words()
    assert found.busy[stage] == pytest.approx(0.95, abs=0.03)


def test_a_slow_stage_of_many_actors_is_none() -> None:
    """60 s of 4 actors are 15 % of their time, 50 s of one are half."""
    assert bottleneck(spent(extract=60, score=50), FOUR_CORES, wall_s=100).stage == "score"


def test_on_a_gpu_the_advice_is_about_gpus() -> None:
    found = bottleneck(spent(extract=100, score=90), Workers(16, 1, on_gpu=True), wall_s=100)
    assert "gpus_per_score_actor" in found.in_words()


def test_of_a_scan_that_was_over_at_once_nothing_is_learned() -> None:
    found = bottleneck(spent(extract=2, score=1), FOUR_CORES, wall_s=30)
    assert (found.stage, found.advice) == ("start", None)
    assert found.in_words() == "most of the time went into starting"
