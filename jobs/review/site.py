"""What the review server knows and does, apart from HTTP: whose turn it is, deciding, and undoing."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from detector.errors import DeepfakeScanError, InputError
from jobs.page import strings
from jobs.review.decisions import Decision, Reviews, Row, standing
from jobs.review.guard import Door
from jobs.review.queue import Item, Lease, Leases, Queue, neighbour
from jobs.review.videos import Videos
from jobs.schema import shown

log = logging.getLogger(__name__)


class ConflictError(Exception):
    """Somebody else was faster; the message is for the one who asked."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks: a browser, and the name that was given in it."""

    session: str
    name: str


class Site:
    """One server's state. For several threads.

    Args:
        output: Of the scans.
        door: Who is let in.
        user: Decides in every browser; None where each is asked.
        clock: Seconds that never go back.
    """

    def __init__(
        self, output: str, door: Door, user: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.output, self.door, self.user, self.clock = output, door, user, clock
        self.videos, self.reviews, self.leases = Videos(output, clock), Reviews(output), Leases(clock)
        self.queue = Queue(
            lambda: self.videos.waiting(lambda: set(standing(self.reviews.rows()))),
            clock,
            lambda error: log.warning("the list is that of before: %s", shown(str(error))),
            DeepfakeScanError,
        )
        # Held from the check that nothing has changed until the row is written.
        self._deciding = threading.Lock()

    def next(self, person: Person, video_id: str | None = None, step: int = 1) -> Item | None:
        """The next video that nobody else holds, after one; None where there is no other."""
        return neighbour(self.queue.items(), video_id, self.leases.by_others(person.session), step)

    def open(self, person: Person, video_id: str) -> tuple[Lease, str]:
        """Take a video where it is free; the lease in force, and the name of the page that shows it."""
        page = secrets.token_hex(4)
        return self.leases.take(video_id, person.session, person.name, page), page

    def stands(self, row: Row) -> Row | None:
        """The decision that stands on a video."""
        return standing(self.reviews.rows()).get((row["uri"], row["version"]))

    def seen(self, row: Row, stands: Row | None) -> str:
        """What a page showed, in short: a decision on something else is none on this."""
        facts = (row["settings_id"], row["policy_today"], row["p_fake_today"], stands and stands["review_id"])
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def decide(
        self, person: Person, video_id: str, decision: Decision, seen: str, **more: Any
    ) -> Item | None:
        """Record a decision; the video that comes next.

        Args:
            person: Decides.
            video_id: Of the video.
            decision: What.
            seen: Of the page on which it was decided.
            **more: note, shown.

        Raises:
            ConflictError: somebody else holds the video, or it was decided or scored anew meanwhile.
            InputError: it is no longer in the table.
            StorageError: nothing was written.
        """
        words = strings()["review"]["conflict"]
        with self._deciding:
            row = self.videos.one(video_id, now=True)
            if row is None:
                raise InputError(words["gone"])
            if self.seen(row, self.stands(row)) != seen:
                raise ConflictError(words["changed"])
            self.take(person, video_id)
            of_today = row | {"policy_id": row["policy_today"], "p_fake": row["p_fake_today"]}
            self.reviews.add(of_today, person.name, decision, **more)
        following = self.next(person, video_id)
        self.queue.forget(video_id)
        self.leases.release(video_id, person.session)
        return following

    def undo(self, person: Person) -> Row:
        """Take back the newest decision of a person that stands; its row.

        Raises:
            ConflictError: there is none, or somebody else holds that video.
            StorageError: nothing was written.
        """
        with self._deciding:
            own = [row for row in standing(self.reviews.rows()).values() if row["who"] == person.name]
            if not own:
                raise ConflictError(strings()["review"]["conflict"]["nothing"])
            last = max(own, key=lambda row: (row["at"], row["review_id"]))
            self.take(person, last["video_id"])
            self.reviews.add(
                last | {"note": None, "shown": None}, person.name, Decision.UNDONE, undoes=last["review_id"]
            )
        self.queue.read_again()
        return last

    def take(self, person: Person, video_id: str) -> None:
        """Hold a video, or go on holding it.

        Raises:
            ConflictError: somebody else holds it.
        """
        lease = self.leases.take(video_id, person.session, person.name)
        if lease.holder != person.session:
            raise ConflictError(strings()["review"]["conflict"]["held"].format(name=lease.name))
