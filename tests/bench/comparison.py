"""Ours, the reference and the floor on one clip, in CPU seconds.

They are user and system time of the processes that work on a video, without start and warm-up, and without
the sandbox's helper, which spends 5 to 10 ms on each.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import av
import numpy as np

from detector.model import Dtype, Model, default_dtype
from detector.pipeline import decide, extract, score
from detector.sandbox import Sandbox
from detector.types import Clips, ExtractOptions, Status
from detector.weights import WeightsFile
from jobs.config import load
from tests.bench.reference import Judged, Reference

_Argument = TypeVar("_Argument")


class Pair(NamedTuple):
    """One figure in float32, and at the dtype that a scan takes on this machine."""

    float32: float
    default: float


class Ours(NamedTuple):
    """CPU seconds of a video, in all and to extract it; its crops; the most memory that its child held."""

    seconds: Pair
    extract_s: float
    crops: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Medians for one clip, in CPU seconds; `faces` tells in how many frames the reference found one."""

    clip: str
    crops: int
    decode: float
    network: Pair
    ours: Pair
    extract: float
    reference: float
    faces: str

    @property
    def floor(self) -> float:
        """One forward decode of the whole clip, and the network at the default dtype."""
        return self.decode + self.network.default

    @property
    def of_the_floor(self) -> float:
        """Ours over the floor."""
        return self.ours.default / self.floor

    @property
    def floor_is_cheaper(self) -> float:
        """The reference over the floor: more is not to be had without decoding less."""
        return self.reference / self.floor

    @property
    def cheaper(self) -> Pair:
        """The reference over ours."""
        return Pair(self.reference / self.ours.float32, self.reference / self.ours.default)


class Comparison:
    """Everything that takes part, loaded once."""

    def __init__(self, weights: WeightsFile, sandbox: Sandbox) -> None:
        self._header = weights.header
        self._default = default_dtype("cpu")
        dtypes: set[Dtype] = {"float32", self._default}
        self._models = {dtype: Model(weights, dtype=dtype) for dtype in dtypes}
        self._sandbox = sandbox
        self._reference = Reference()

    def options(self, profile: str) -> ExtractOptions:
        """Those of a scan with this profile."""
        return load(overrides={"profile": profile}).settings.extract_options(self._header)

    def measure(self, path: Path, profile: str, frames: int, repeats: int, of_reference: int) -> Cost:
        """Let all take turns; the reference, which looks at `frames` frames, in `of_reference` of them."""
        ours: list[Ours] = []
        floors: list[tuple[float, Pair]] = []
        judged: list[Judged] = []
        for number in range(repeats):
            floors.append((_decode_s(path), self._network(frames)))
            ours.append(self.ours(path, profile))
            if number < of_reference:
                judged.append(self._reference.judge(path, frames))
        return Cost(
            clip=path.stem,
            crops=ours[0].crops,
            decode=statistics.median(decode for decode, _ in floors),
            network=_medians([network for _, network in floors]),
            ours=_medians([one.seconds for one in ours]),
            extract=statistics.median(one.extract_s for one in ours),
            reference=statistics.median(one.total_s for one in judged),
            faces=f"{judged[0].faces} of {judged[0].frames}",
        )

    def ours(self, path: Path, profile: str) -> Ours:
        """Extract and score one video; the extraction is the same for both dtypes and done once.

        Raises:
            RuntimeError: it got no score, so that its cost says nothing.
        """
        began = time.process_time()
        with path.open("rb") as file:
            extraction = extract(file, self.options(profile), self._sandbox)
        extract_s = time.process_time() - began + extraction.cpu_s

        def judge(model: Model) -> None:
            result = decide(extraction.facts, score(extraction.clips, model), self._header.policy)
            if result.status is not Status.SCORED:
                raise RuntimeError(f"{path.name} is {result.status}, not scored: {result.facts.message}")

        seconds = {dtype: extract_s + _cpu_s(judge, model) for dtype, model in self._models.items()}
        crops = int(extraction.clips.mask.sum())
        return Ours(self._pair(seconds), extract_s, crops, extraction.peak_bytes)

    def _network(self, crops: int) -> Pair:
        """The network alone on so many crops."""
        size, frames = self._header.input.size, self._header.input.frames
        pixels = np.random.default_rng(0).integers(0, 256, (crops // frames, frames, size, size, 3), np.uint8)
        clips = Clips(pixels, np.ones(pixels.shape[:2], np.bool_))
        return self._pair({dtype: _cpu_s(model.score, clips) for dtype, model in self._models.items()})

    def _pair(self, seconds: dict[Dtype, float]) -> Pair:
        return Pair(seconds["float32"], seconds[self._default])


def _cpu_s(function: Callable[[_Argument], object], argument: _Argument) -> float:
    """CPU seconds of this process for one call."""
    began = time.process_time()
    function(argument)
    return time.process_time() - began


def _decode_s(path: Path) -> float:
    """CPU seconds to decode every frame of a video once, with one thread."""

    def decode(name: str) -> None:
        with av.open(name) as file:
            stream = file.streams.video[0]
            stream.thread_type = "NONE"
            deque(file.decode(stream), maxlen=0)

    return _cpu_s(decode, str(path))


def _medians(pairs: Sequence[Pair]) -> Pair:
    return Pair(*(statistics.median(side) for side in zip(*pairs, strict=True)))
