"""Whose turn which video is: what is left to be decided, in order, and who holds it for five minutes.

Nothing here reads a table or a clock by itself. Leases live in the memory of one server: they keep two people
from deciding one video at the same time, and what was decided is kept whatever becomes of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

LEASE_S = 300.0
REFRESH_S = 60.0


@dataclass(frozen=True, slots=True)
class Item:
    """A video that waits for a decision."""

    video_id: str
    verdict: str
    p_fake: float


@dataclass(frozen=True, slots=True)
class Lease:
    """A video in somebody's hands until a time of the clock, in seconds."""

    holder: str
    """The browser's session."""
    name: str
    """Who sits there, for others to read."""
    page: str
    """The page that was opened last: leaving an earlier one gives nothing back."""
    until: float


class Leases:
    """Who holds what; at most one holder per video. For several threads.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float], seconds: float = LEASE_S) -> None:
        self._clock, self._seconds = clock, seconds
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()

    def take(self, video_id: str, holder: str, name: str, page: str | None = None) -> Lease:
        """Take or renew a video where nobody else holds it; the lease that is in force then.

        Args:
            video_id: Of the video.
            holder: Takes it.
            name: Of the holder.
            page: That shows it; None renews that which was shown last.
        """
        with self._lock:
            held = self._valid(video_id)
            if held is not None and held.holder != holder:
                return held
            shown = page if page is not None else held.page if held else ""
            lease = Lease(holder, name, shown, self._clock() + self._seconds)
            self._held[video_id] = lease
            return lease

    def release(self, video_id: str, holder: str, page: str | None = None) -> None:
        """Give a video back, if that holder has it, and by that page where one is named."""
        with self._lock:
            held = self._held.get(video_id)
            if held is not None and held.holder == holder and page in (None, held.page):
                del self._held[video_id]

    def of(self, video_id: str) -> Lease | None:
        """The lease of a video that is in force."""
        with self._lock:
            return self._valid(video_id)

    def by_others(self, holder: str) -> set[str]:
        """Videos that somebody else holds."""
        with self._lock:
            return {
                video_id
                for video_id in list(self._held)
                if (held := self._valid(video_id)) is not None and held.holder != holder
            }

    def seconds_left(self, lease: Lease) -> float:
        """How long a lease is still in force."""
        return max(0.0, lease.until - self._clock())

    def _valid(self, video_id: str) -> Lease | None:
        held = self._held.get(video_id)
        if held is not None and held.until <= self._clock():
            del self._held[video_id]
            return None
        return held


@dataclass(frozen=True, slots=True)
class _Read:
    items: tuple[Item, ...]
    at: float


class Queue:
    """What waits for a decision, read again every minute. For several threads.

    Args:
        read: All that waits now, in order.
        clock: Seconds that never go back.
        failed: Told when reading again fails; the list of before stays.
        errors: That `read` may raise; the first time they are passed on.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[Item]],
        clock: Callable[[], float],
        failed: Callable[[Exception], None],
        errors: type[Exception] | tuple[type[Exception], ...],
    ) -> None:
        self._read, self._clock, self._failed, self._errors = read, clock, failed, errors
        self._lock = threading.Lock()
        self._last: _Read | None = None

    def items(self) -> tuple[Item, ...]:
        """What waits, the most urgent first."""
        with self._lock:
            last = self._last
            if last is not None and self._clock() - last.at < REFRESH_S:
                return last.items
            try:
                last = _Read(tuple(self._read()), self._clock())
            except self._errors as error:
                if last is None:
                    raise
                self._failed(error)
                last = replace(last, at=self._clock())
            self._last = last
            return last.items

    def forget(self, video_id: str) -> None:
        """Take out what has been decided, without reading anything."""
        with self._lock:
            if self._last is not None:
                left = tuple(item for item in self._last.items if item.video_id != video_id)
                self._last = replace(self._last, items=left)

    def read_again(self) -> None:
        """Read at the next question, as after something came back."""
        with self._lock:
            if self._last is not None:
                self._last = replace(self._last, at=float("-inf"))


def neighbour(
    items: Sequence[Item], video_id: str | None, busy: Collection[str], step: int = 1
) -> Item | None:
    """The next free video after one, around the end; the first where that one is not in the list.

    Args:
        items: In order.
        video_id: From where; None begins at the first.
        busy: Videos that are not free.
        step: 1 goes on, -1 back.

    Returns:
        None where no other is free.
    """
    places = {item.video_id: place for place, item in enumerate(items)}
    start = places.get(video_id or "", -1 if step > 0 else len(items))
    for offset in range(1, len(items) + 1):
        item = items[(start + step * offset) % len(items)]
        if item.video_id not in busy and item.video_id != video_id:
            return item
    return None
