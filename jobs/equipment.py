"""Networks and decoding processes for one video after the other in this process, each started once."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Self

from detector.model import Dtype, Model, settle_process
from detector.sandbox import Sandbox
from detector.types import ExtractOptions
from detector.weights import WeightsFile


class Equipment:
    """Use as a context manager.

    Args:
        sandboxed: Decode in a child, as a scan does.

    Attributes:
        lock: Held by whoever decodes or scores: neither is for several threads at once.
    """

    def __init__(self, *, sandboxed: bool = True) -> None:
        self.lock = threading.Lock()
        self._sandboxed = sandboxed
        self._models: dict[tuple[str, Dtype], Model] = {}
        self._sandboxes: dict[tuple[str, bool], Sandbox] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        settle_process()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def model(self, weights: WeightsFile, dtype: Dtype) -> Model:
        """The network of a file."""
        key = (weights.weights_id, dtype)
        if key not in self._models:
            self._models[key] = Model(weights, dtype=dtype)
        return self._models[key]

    def sandbox(self, options: ExtractOptions) -> Sandbox | None:
        """The process that decodes; None without one."""
        if not self._sandboxed:
            return None
        key = (options.detector, options.link_identities)
        if key not in self._sandboxes:
            made = Sandbox(options.detector, link_identities=options.link_identities)
            self._sandboxes[key] = self._stack.enter_context(made)
        return self._sandboxes[key]

    def stop_decoding(self) -> None:
        """End what is being decoded right now, from another thread: that video fails, the next is decoded."""
        for sandbox in self._sandboxes.values():
            sandbox.close()
