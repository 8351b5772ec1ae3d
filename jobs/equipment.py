"""Networks and decoding processes for one video after the other in this process, each started once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Self

from detector.errors import DeepfakeScanError
from detector.model import Dtype, Model, settle_process
from detector.sandbox import Sandbox
from detector.types import ExtractOptions
from detector.weights import WeightsFile

_ENDING = "no video is looked at any more: the process ends"
_AGAIN_S, _GIVES_UP_S = 0.2, 10.0


class StoppedError(DeepfakeScanError):
    """Nobody wants this video any more."""


class Networks:
    """Networks by weights and number format. For several threads, one of which scores at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._models: dict[tuple[str, Dtype], Model] = {}

    def close(self) -> None:
        """Wait for who scores, and let nobody score any more: torch aborts a process that ends meanwhile."""
        self._closed = True
        with self._lock:
            self._models.clear()

    @contextmanager
    def scoring(self, weights: WeightsFile, dtype: Dtype) -> Iterator[Model]:
        """The network of a file, while nobody else scores: hold it for one video or one picture.

        Raises:
            StoppedError: these networks were closed.
        """
        key = (weights.weights_id, dtype)
        with self._lock:
            if self._closed:
                raise StoppedError(_ENDING)
            if key not in self._models:
                self._models[key] = Model(weights, dtype=dtype)
            yield self._models[key]


class Equipment:
    """Use as a context manager. For several threads, one of which decodes at a time.

    Args:
        sandboxed: Decode in a child, as a scan does.
        networks: Those of another equipment, so that each is in memory once.

    Attributes:
        networks: To score with.
    """

    def __init__(self, *, sandboxed: bool = True, networks: Networks | None = None) -> None:
        self.networks = networks or Networks()
        self._owns = networks is None
        self._sandboxed = sandboxed
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._running: tuple[IO[bytes], Sandbox | None] | None = None
        self._closed = False
        self._sandboxes: dict[tuple[str, bool], Sandbox] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        settle_process()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        with self._turn:
            self._stack.close()
        if self._owns:
            self.networks.close()

    def close(self) -> None:
        """End what is being decoded, and decode nothing more."""
        with self._changed:
            self._closed = True
        self.stop_decoding()

    @contextmanager
    def decoding(self, file: IO[bytes], options: ExtractOptions) -> Iterator[Sandbox | None]:
        """The process that decodes, for one file; None without one.

        Raises:
            StoppedError: this equipment was closed.
        """
        with self._turn:
            if self._closed:
                raise StoppedError(_ENDING)
            sandbox = self._sandbox(options)
            with self._changed:
                self._running = (file, sandbox)
            try:
                yield sandbox
            finally:
                with self._changed:
                    self._running = None
                    self._changed.notify_all()

    def prepare(self, options: ExtractOptions) -> None:
        """Start the process that decodes.

        Raises:
            StoppedError: this equipment was closed.
        """
        with self._turn:
            if self._closed:
                raise StoppedError(_ENDING)
            self._sandbox(options)

    def stop_decoding(self, file: IO[bytes] | None = None) -> None:
        """End the decoding of a file, from another thread; of None, of any. No other file is hit by it."""
        with self._changed:
            running = self._running
            if running is None or file not in (None, running[0]):
                return
            end = time.monotonic() + _GIVES_UP_S
            # What had not quite begun starts its process anew, which has to be ended as well.
            while self._running is running and time.monotonic() < end:
                if running[1] is not None:
                    running[1].close()
                self._changed.wait(_AGAIN_S)

    def _sandbox(self, options: ExtractOptions) -> Sandbox | None:
        if not self._sandboxed:
            return None
        key = (options.detector, options.link_identities)
        if key not in self._sandboxes:
            made = Sandbox(options.detector, link_identities=options.link_identities)
            self._sandboxes[key] = self._stack.enter_context(made)
        return self._sandboxes[key]
