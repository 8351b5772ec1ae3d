import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import ClusterError
from jobs.cluster import cause, refuse_open_cluster
from jobs.config import load
from jobs.pools import Pools, plan_pools, temp_share


def pools(cpus: float, gpus: float = 0, **flags: Any) -> Pools:
    return plan_pools(load(overrides=flags).settings, cpus, gpus)


def cores(planned: Pools) -> float:
    return planned.extract * planned.extract_cpus + planned.score * planned.score_cpus


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (1, Pools(1, 0.75, 1, 0.1, 0, 4)),
        (2, Pools(2, 0.75, 1, 0.1, 0, 4)),
        (4, Pools(4, 0.75, 1, 0.1, 0, 4)),
        (8, Pools(8, 0.75, 2, 0.1, 0, 4)),
        (64, Pools(64, 0.75, 16, 0.1, 0, 4)),
    ],
)
def test_without_a_gpu_every_core_extracts_and_the_network_gets_the_rest(cpus: int, expected: Pools) -> None:
    assert pools(cpus) == expected
    assert cores(expected) <= cpus


@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_what_is_planned_by_itself_fits(gpus: int) -> None:
    for cpus in range(gpus + 1, 130):
        planned = pools(cpus, gpus)
        assert cores(planned) <= cpus
        assert planned.score * planned.score_gpus <= gpus
        assert min(planned.extract, planned.score) >= 1
        assert planned.on_gpu == bool(gpus)


def test_a_node_with_a_gpu_leaves_a_core_for_each_scoring_actor() -> None:
    assert pools(16, 1) == Pools(15, 1.0, 1, 0.0, 1.0, 16)


def test_a_cluster_of_gpu_nodes_scores_on_all_of_them() -> None:
    assert pools(128, 8) == Pools(120, 1.0, 8, 0.0, 1.0, 16)


@pytest.mark.parametrize(("share", "actors"), [(0.5, 2), (0.25, 4), (1 / 3, 3), (0.1, 10)])
def test_a_fraction_of_a_gpu_makes_as_many_actors_as_fit(share: float, actors: int) -> None:
    planned = pools(16, 1, gpus_per_score_actor=share)
    assert (planned.score, planned.score_gpus) == (actors, share)
    assert planned.extract == 16 - actors


@given(
    nodes=st.lists(st.integers(1, 64), min_size=1, max_size=12),
    with_gpu=st.integers(0, 3),
    chance=st.randoms(use_true_random=False),
)
def test_every_scoring_actor_finds_a_place_however_the_extracting_ones_were_spread(
    nodes: list[int], with_gpu: int, chance: random.Random
) -> None:
    free = [[float(cores), float(number < with_gpu)] for number, cores in enumerate(nodes)]
    planned = pools(sum(nodes), sum(gpus for _, gpus in free))
    for cpus, gpus, count in (
        (planned.extract_cpus, 0.0, planned.extract),
        (planned.score_cpus, planned.score_gpus, planned.score),
    ):
        for _ in range(count):
            fitting = [node for node in free if node[0] >= cpus - 1e-9 and node[1] >= gpus]
            assert fitting, f"{planned} on {nodes}, {free}"
            node = chance.choice(fitting)
            node[0] -= cpus
            node[1] -= gpus


def node(address: str, *, alive: bool = True) -> dict[str, Any]:
    return {"NodeManagerAddress": address, "Alive": alive}


def test_a_cluster_of_several_machines_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    settings = load(overrides={"address": "auto"}).settings
    with pytest.raises(ClusterError, match=r"whoever reaches 10\.0\.0\.7 can run code") as refused:
        refuse_open_cluster([node("10.0.0.5"), node("10.0.0.7")], "10.0.0.5", settings)
    assert "--insecure" in refused.value.hint
    refuse_open_cluster([node("10.0.0.5"), node("10.0.0.7", alive=False)], "10.0.0.5", settings)
    insecure = load(overrides={"insecure": True}).settings
    refuse_open_cluster([node("10.0.0.5"), node("10.0.0.7")], "10.0.0.5", insecure)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    refuse_open_cluster([node("10.0.0.5"), node("10.0.0.7")], "10.0.0.5", settings)


def test_actors_of_a_node_share_its_disk() -> None:
    assert temp_share(20, actors=5, nodes=2) == 6, "three of the five may be on one node"
    assert temp_share(20, actors=1, nodes=4) == 20
    assert temp_share(20, actors=4, nodes=0) == 5, "a cluster that has not told its nodes is one"


def test_a_gpu_is_left_alone_if_the_settings_say_so() -> None:
    assert not pools(16, 1, device="cpu").on_gpu


def test_settings_win_over_the_arithmetic() -> None:
    planned = pools(16, 2, extract_actors=3, score_actors=1, score_batch=64)
    assert (planned.extract, planned.score, planned.score_batch) == (3, 1, 64)


def test_a_gpu_that_is_asked_for_and_not_there_is_refused() -> None:
    with pytest.raises(ClusterError, match="this cluster has no GPU") as refused:
        pools(8, 0, device="cuda")
    assert "device: auto" in refused.value.hint


@pytest.mark.parametrize(
    ("cpus", "gpus", "flags", "arithmetic"),
    [
        (
            2,
            0,
            {"extract_actors": 4},
            "2 CPU cores, but 4 extracting actors x 0.75 + 1 scoring actors x 0.1 = 3.1",
        ),
        (
            4,
            1,
            {"score_actors": 2},
            "1 GPUs, but 2 extracting actors x 0 + 2 scoring actors x 1 = 2",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_arithmetic(
    cpus: int, gpus: int, flags: dict[str, Any], arithmetic: str
) -> None:
    with pytest.raises(ClusterError) as refused:
        pools(cpus, gpus, **flags)
    assert arithmetic in refused.value.message
    assert "extract_actors" in refused.value.hint
    assert refused.value.exit_code == 4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "The actor died\nTraceback (most recent call last):\n  ...\nImportError: No 'jobs\x1b[2J'\n\n",
            r"ImportError: No 'jobs\x1b[2J'",
        ),
        ("The node with node id: 7 died.\n\tclass_name: MapWorker\n", "The node with node id: 7 died."),
        ("", ""),
        ("x" * 1000, "x" * 300 + "..."),
    ],
)
def test_an_error_of_ray_is_told_by_the_line_that_says_what_happened(text: str, line: str) -> None:
    assert cause(text) == line
