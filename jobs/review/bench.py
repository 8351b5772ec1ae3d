"""Work of seconds that browsers wait for: one piece after the other, each made once, few of them in wait.

Who waits awaits, and occupies no thread of the pool that answers everybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

MOST_WAITING = 2
_LOOKS_EVERY_S = 5.0
_ENDS_WITHIN_S = 5.0

T = TypeVar("T")


class CrowdedError(Exception):
    """Too many pieces wait already."""


class Kept(Generic[T]):
    """The last few values, each for so many seconds after it was put. For several threads."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """The value of a key; None without one."""
        self.forget()
        with self._lock:
            found = self._values.get(key)
        return found[1] if found else None

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value, and drop the oldest beyond the most."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = (time.monotonic(), value)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def forget(self) -> None:
        """Drop what is too old."""
        with self._lock:
            late = time.monotonic() - self._seconds
            for key in [key for key, (at, _) in self._values.items() if at < late]:
                del self._values[key]


@dataclass(slots=True, eq=False)
class _Piece:
    key: Hashable
    make: Callable[[], bytes]
    done: Future[bytes] = field(default_factory=Future)
    wanted_by: int = 0


class Bench:
    """A thread that makes one piece after the other.

    Args:
        idle: Called every few seconds in which there is nothing to make.
    """

    def __init__(self, idle: Callable[[], None]) -> None:
        self._idle = idle
        self._lock = threading.Lock()
        self._pieces: dict[Hashable, _Piece] = {}
        self._closed = False
        self._waiting: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="bench", daemon=True)
        self._thread.start()

    async def made(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What `make` returns or raises, of whoever asked for that key first.

        Cancelling it ends nothing that has begun; what has not begun and nobody waits for is not made.

        Raises:
            CrowdedError: too many pieces wait.
        """
        piece = self._piece(key, make)
        try:
            return await asyncio.shield(asyncio.wrap_future(piece.done))
        finally:
            with self._lock:
                piece.wanted_by -= 1
                if not piece.wanted_by and piece.done.cancel():
                    self._drop(piece)

    def close(self, stop: Callable[[], None]) -> None:
        """Drop what waits, and have `stop` end what is being made; it may have some seconds to end."""
        with self._lock:
            self._closed = True
            for piece in self._pieces.values():
                piece.done.cancel()
        self._waiting.put(None)
        stop()
        self._thread.join(_ENDS_WITHIN_S)

    def _piece(self, key: Hashable, make: Callable[[], bytes]) -> _Piece:
        with self._lock:
            piece = self._pieces.get(key)
            if piece is None:
                waiting = sum(not one.done.running() for one in self._pieces.values())
                # Where none is being made, the first of those that wait is about to be.
                if self._closed or waiting >= MOST_WAITING + (waiting == len(self._pieces)):
                    raise CrowdedError
                piece = self._pieces[key] = _Piece(key, make)
                self._waiting.put(piece)
            piece.wanted_by += 1
            return piece

    def _drop(self, piece: _Piece) -> None:
        if self._pieces.get(piece.key) is piece:
            del self._pieces[piece.key]

    def _work(self) -> None:
        while True:
            piece = None
            with contextlib.suppress(queue.Empty):
                piece = self._waiting.get(timeout=_LOOKS_EVERY_S)
                if piece is None:
                    return
            if piece is None:
                self._idle()
            elif piece.done.set_running_or_notify_cancel():
                self._make(piece)

    def _make(self, piece: _Piece) -> None:
        made, failed = b"", None
        try:
            made = piece.make()
        except Exception as error:  # noqa: BLE001  # those who wait raise it
            failed = error
        with self._lock:
            self._drop(piece)
        if failed is None:
            piece.done.set_result(made)
        else:
            piece.done.set_exception(failed)
