"""Which stage a scan waited for, and what would make it faster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Stage = Literal["fetch", "extract", "score", "start"]

_LEAST_BUSY = 0.3
_WORDS = {"fetch": "downloading", "extract": "decoding and finding faces", "score": "the network"}
_ADVICE = {
    "fetch": "machines in the region of the bucket",
    "extract": "more CPU cores, or `--profile fast`",
    "score": "a GPU, or more `score_actors`",
    "score on a GPU": "another GPU, or `gpus_per_score_actor: 0.5`, so that two actors share one",
}


@dataclass(frozen=True, slots=True)
class Workers:
    """How many actors did the work of each stage."""

    extract: int
    score: int
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What a scan waited for.

    Attributes:
        stage: The busiest one; `start` where none was busy, as in a scan of a few videos.
        busy: Share of the time that the actors of each stage worked; extraction by processor time.
        advice: What would help first; None for `start`.
    """

    stage: Stage
    busy: Mapping[str, float]
    advice: str | None

    def in_words(self) -> str:
        """For people."""
        if self.advice is None:
            return "most of the time went into starting"
        others = ", ".join(
            f"{_WORDS[stage]} {share:.0%}" for stage, share in self.busy.items() if stage != self.stage
        )
        return (
            f"waited for {_WORDS[self.stage]} (busy {self.busy[self.stage]:.0%} of the time; {others}); "
            f"faster with {self.advice}"
        )


def bottleneck(seconds: Mapping[str, float], workers: Workers, wall_s: float) -> Bottleneck:
    """The busiest stage of a scan.

    Args:
        seconds: spent on `fetch`, `extract` and `score`, summed over videos.
        workers: that they are spread over; each extracting actor fetches beside its other work.
        wall_s: that the stages took together.
    """
    actors = {"fetch": workers.extract, "extract": workers.extract, "score": workers.score}
    busy = {stage: min(1.0, seconds[stage] / (count * max(wall_s, 1e-9))) for stage, count in actors.items()}
    stage: Stage = max(("extract", "score", "fetch"), key=lambda name: busy[name])
    if busy[stage] < _LEAST_BUSY:
        return Bottleneck("start", busy, None)
    kind = "score on a GPU" if stage == "score" and workers.on_gpu else stage
    return Bottleneck(stage, busy, _ADVICE[kind])
