"""How many actors a cluster gets, and what each asks of Ray's scheduler. Arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detector.errors import ClusterError
from jobs.config import ScanSettings

# Of a video's work on a node without GPU, the share of decoding and detection; the network has the rest.
_EXTRACT_SHARE = 0.75
# What a scoring actor asks for is so little that it finds a place however the extracting ones were spread:
# pools start only as a whole, and one actor that fits on no node would hold up all.
_SCORE_CPUS = 0.1


@dataclass(frozen=True, slots=True)
class Pools:
    """How many actors of each kind, and what each asks of the scheduler."""

    extract: int
    extract_cpus: float
    score: int
    score_cpus: float
    score_gpus: float
    score_batch: int

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on GPUs."""
        return self.score_gpus > 0


def plan_pools(settings: ScanSettings, cpus: float, gpus: float) -> Pools:
    """Size both pools: a core per extracting actor, and GPUs or a share of the cores for scoring.

    Raises:
        ClusterError: it does not fit; the message holds the arithmetic.
    """
    if settings.device == "cuda" and gpus <= 0:
        raise ClusterError("device: cuda, but this cluster has no GPU", hint="Use `device: auto` or `cpu`.")
    on_gpu = settings.device != "cpu" and gpus > 0
    if on_gpu:
        share = settings.gpus_per_score_actor
        score = settings.score_actors or max(1, int(gpus / share + 1e-9))
        extract = settings.extract_actors or max(1, int(cpus) - score)
        # No core beside the GPU: extracting actors may hold all of that node.
        pools = Pools(extract, 1.0, score, 0.0, share, settings.score_batch or 16)
    else:
        score = settings.score_actors or max(1, int(cpus) // 4)
        extract = settings.extract_actors or max(1, int(cpus))
        pools = Pools(extract, _EXTRACT_SHARE, score, _SCORE_CPUS, 0.0, settings.score_batch or 4)
    _refuse_if_too_large(pools, cpus, gpus)
    return pools


def extract_only(settings: ScanSettings, cpus: float) -> Pools:
    """A core per extracting actor, and no scoring."""
    pools = Pools(settings.extract_actors or max(1, int(cpus)), 1.0, 0, 0.0, 0.0, 0)
    _refuse_if_too_large(pools, cpus, 0.0)
    return pools


def _refuse_if_too_large(pools: Pools, cpus: float, gpus: float) -> None:
    for kind, have, extract, score in (
        ("CPU cores", cpus, pools.extract_cpus, pools.score_cpus),
        ("GPUs", gpus, 0.0, pools.score_gpus),
    ):
        need = pools.extract * extract + pools.score * score
        if need > have + 1e-6:
            raise ClusterError(
                f"the cluster has {have:g} {kind}, but {pools.extract} extracting actors x {extract:g} + "
                f"{pools.score} scoring actors x {score:g} = {need:g} are asked for",
                hint="Lower extract_actors or score_actors, let fewer of them share a GPU, "
                "use `device: cpu`, or add nodes.",
            )


def temp_share(most_bytes: int, actors: int, nodes: int) -> int:
    """What one extracting actor may have on disk, where they are spread evenly over the nodes."""
    return most_bytes // math.ceil(actors / max(1, nodes))
