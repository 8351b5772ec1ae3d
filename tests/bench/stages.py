"""What the stages of an extraction cost: the functions that do the work, timed in this very process."""

from __future__ import annotations

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from detector import extraction, faces
from detector.extraction import extract_clips
from detector.picture import Picture
from detector.tracks import SceneCounter
from detector.types import ExtractOptions
from detector.video import Video

REST = "link and the rest"
STAGES = ("probe", "decode", "shrink", "detect", "tell scenes", "crop", REST)
_FUNCTIONS = (
    ("probe", Video, "__init__"),
    ("shrink", Picture, "shrunk"),
    ("tell scenes", Picture, "glance"),
    ("tell scenes", SceneCounter, "scene"),
    ("crop", extraction, "crop"),
)


class Stopwatch:
    """CPU seconds by stage; what runs inside another stage is not counted twice."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running = [REST]
        self._since = time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside for `name`."""
        self._book()
        self._running.append(name)
        try:
            yield
        finally:
            self._book()
            self._running.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted for `name`."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return counted

    def stepped(self, name: str, generator: Callable[..., Any]) -> Callable[..., Any]:
        """The generator function, each of its steps counted for `name`."""

        def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
            steps = iter(generator(*args, **kwargs))
            while True:
                with self.stage(name):
                    step = next(steps, None)
                if step is None:
                    return
                yield step

        return counted

    def stop(self) -> dict[str, float]:
        """The account up to now."""
        self._book()
        return self.seconds

    def _book(self) -> None:
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now


def stages(path: Path, options: ExtractOptions, repeats: int) -> dict[str, float]:
    """Median CPU seconds of each of STAGES over `repeats` extractions; one more comes first, to warm up."""
    look = faces.load(options.detector)
    gc.freeze()  # as a sandbox does: else each window searches all that the benchmark has loaded
    accounts = [_account(path, options, look) for _ in range(repeats + 1)][1:]
    return {name: statistics.median(account.get(name, 0.0) for account in accounts) for name in STAGES}


def _account(path: Path, options: ExtractOptions, look: faces.Look) -> dict[str, float]:
    watch = Stopwatch()
    with ExitStack() as patches, path.open("rb") as file:
        for stage, owner, name in _FUNCTIONS:
            patches.enter_context(patch.object(owner, name, watch.timed(stage, getattr(owner, name))))
        patches.enter_context(patch.object(Video, "sample", watch.stepped("decode", Video.sample)))
        extract_clips(file, options, replace(look, detect=watch.timed("detect", look.detect)))
        return watch.stop()
