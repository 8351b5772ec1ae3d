"""What drives the two stages: Ray, or one process without it, by the same interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

import pyarrow as pa

from detector.types import ExtractOptions
from jobs.bottleneck import Workers
from jobs.config import ScanSettings
from jobs.stages import Extract, Score, Scoring

IN_PROCESS = "in-process"


class Runner(Protocol):
    """Runs videos through both stages. Use as a context manager."""

    def run(self, plan: pa.Table, *, alone: bool = False) -> Iterator[pa.Table]:
        """Send rows of a plan through; rows of `stages.SCORED` come back as they are ready, in any order.

        Rows can be missing where a worker died, and come twice where one was run again. With `alone` each
        video is scored by itself, so that a worker that dies takes no neighbour along.
        """
        ...

    @property
    def workers(self) -> Workers:
        """Who does the work, as of now."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Extractor(Protocol):
    """Runs videos through the first stage alone. Use as a context manager."""

    def extracted(self, plan: pa.Table) -> Iterator[pa.Table]:
        """Send rows of a plan through; rows of `stages.EXTRACTED` come back, missing where a worker died."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def open_runner(
    settings: ScanSettings, options: ExtractOptions, scoring: Scoring, extract: type[Extract] = Extract
) -> Runner:
    """The runner that the settings name: `address: in-process`, or a Ray cluster.

    Raises:
        ClusterError: Ray cannot be reached, or the plan does not fit on it.
    """
    if settings.address == IN_PROCESS:
        return InProcess(settings, options, scoring, extract)
    from jobs.cluster import Cluster

    return Cluster(settings, options, scoring, extract)


def open_extractor(settings: ScanSettings, options: ExtractOptions) -> Extractor:
    """The same for the first stage alone.

    Raises:
        ClusterError: Ray cannot be reached, or the actors do not fit on it.
    """
    if settings.address == IN_PROCESS:
        return ExtractInProcess(settings, options)
    from jobs.cluster import Cluster

    return Cluster(settings, options, None)


class ExtractInProcess:
    """The first stage in this process, one video after the other."""

    def __init__(
        self, settings: ScanSettings, options: ExtractOptions, extract: type[Extract] = Extract
    ) -> None:
        self._extract = extract(options, settings.max_bytes, settings.temp_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._extract.close()

    def extracted(self, plan: pa.Table) -> Iterator[pa.Table]:
        """A table per video."""
        return (self._extract(plan.slice(i, 1)) for i in range(len(plan)))


class InProcess:
    """Both stages in this process, one video after the other: for tests, debugging and a few files."""

    def __init__(
        self, settings: ScanSettings, options: ExtractOptions, scoring: Scoring, extract: type[Extract]
    ) -> None:
        self._score = Score(scoring)  # first: what can fail, before a helper process is there
        self._first = ExtractInProcess(settings, options, extract)
        self._batch = settings.score_batch or 4
        self.workers = Workers(1, 1, on_gpu=scoring.device == "cuda")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._first.__exit__()

    def run(self, plan: pa.Table, *, alone: bool = False) -> Iterator[pa.Table]:
        """Rows of `stages.SCORED`, a table per scoring batch."""
        step = 1 if alone else self._batch
        for start in range(0, len(plan), step):
            yield self._score(pa.concat_tables(self._first.extracted(plan.slice(start, step))))
