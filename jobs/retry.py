"""How long an object is asked for again, and who is to blame in the end: the object, the store, or we."""

from __future__ import annotations

import random
import time

from detector.errors import StorageError, VideoError
from detector.types import Reason
from jobs.s3 import Address, client, is_answering
from jobs.s3_errors import CREDENTIALS, error_code, is_about_us, is_outage
from jobs.schema import printable

_TRYING_S = 120.0
# A slower body is as good as none: a video plays faster than it comes.
_SLOWEST_BYTES_S = 256 << 10
_BAD_BODIES = 3
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
_REASONS = {
    "PreconditionFailed": (Reason.CHANGED_DURING_READ, "the object is not the one that was listed"),
    "412": (Reason.CHANGED_DURING_READ, "the object is not the one that was listed"),
    "NoSuchKey": (Reason.NOT_FOUND, "the object is gone"),
    "404": (Reason.NOT_FOUND, "the object is gone"),
    "NoSuchVersion": (Reason.NOT_FOUND, "this version of the object is gone"),
    "AccessDenied": (Reason.ACCESS_DENIED, "the store refuses to hand the object out"),
    "403": (Reason.ACCESS_DENIED, "the store refuses to hand the object out"),
    "InvalidObjectState": (Reason.ARCHIVED, "the object lies in an archive class and must be restored first"),
}


class BadBodyError(Exception):
    """The body is not the one that was listed."""


class SlowBodyError(Exception):
    """The body comes so slowly that the time for trying is over."""


class Retry:
    """The tries at one object, each of them a whole read.

    Its clock runs while nothing comes and between two tries; it stands still while a body comes at 256 KiB a
    second or faster. So a large object has all the time that it takes, also when it has to be read twice,
    and a store that is gone is noticed as soon with a large object as with a small one.

    Args:
        where: The object.
    """

    def __init__(self, where: Address) -> None:
        self._where = where
        self._began, self._flowed = time.monotonic(), 0.0
        self._waits = self._bad = 0
        self._renewed = False

    def note(self, length: int, seconds: float) -> None:
        """So many bytes came in that time.

        Raises:
            SlowBodyError: they are too few.
        """
        self._flowed += min(seconds, length / _SLOWEST_BYTES_S)
        if self._left() <= 0:
            raise SlowBodyError(f"less than {_SLOWEST_BYTES_S >> 10} KiB a second came")

    def wait_after(self, error: Exception) -> None:
        """Wait until the object may be asked for again.

        Raises:
            VideoError: this object cannot be had.
            StorageError: no object can be had, because the store is gone or our credentials are refused.
        """
        if is_outage(error) or isinstance(error, SlowBodyError):
            if self._left() <= 0:
                raise self._given_up(error) from error
        elif is_about_us(error):
            self._renew(error)
        elif error_code(error) in _REASONS:
            raise VideoError(*_REASONS[error_code(error)]) from error
        else:
            self._bad += 1
            if self._bad == _BAD_BODIES:
                raise _failed(error) from error
        longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**self._waits)
        self._waits += 1
        time.sleep(random.uniform(0, min(longest, max(0.0, self._left()))))

    def _left(self) -> float:
        return _TRYING_S - (time.monotonic() - self._began - self._flowed)

    def _renew(self, error: Exception) -> None:
        """Let go of the client once, because files that it read may hold newer credentials by now."""
        if self._renewed:
            raise StorageError(
                f"s3://{self._where.bucket}: videos cannot be read: {_words(error)}",
                hint=f"{CREDENTIALS} What is committed is kept; the same command does the rest.",
            ) from error
        self._renewed = True
        client.cache_clear()

    def _given_up(self, error: Exception) -> StorageError | VideoError:
        """Two small requests tell whether it is the store, or this object alone."""
        if any(is_answering(self._where.bucket) for _ in range(2)):
            return _failed(error)
        return StorageError(
            f"s3://{self._where.bucket} does not answer any more: {_words(error)}",
            hint="What is committed is kept. When the store is back, the same command does the rest.",
        )


def _words(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}")


def _failed(error: Exception) -> VideoError:
    return VideoError(Reason.FETCH_FAILED, f"{type(error).__name__}: {error}")
