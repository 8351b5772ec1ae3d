"""Files that somebody hands over: received under limits, judged one after the other, forgotten.

What is received lies in a file without a name, which the system deletes when it is closed: after the verdict,
on cancelling, when the browser goes away, and when this process dies. Pages are kept in memory for a while.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from detector.errors import DeepfakeScanError, SettingsError
from jobs.config import ScanSettings
from jobs.equipment import Equipment, StoppedError
from jobs.evidence import Evidence, Stage
from jobs.live import Given, judge
from jobs.schema import printable, shown

log = logging.getLogger(__name__)

MOST_RECEIVING = 4
MOST_WAITING = 8
_MOST_KEPT = 8
_KEPT_S = 1800.0
_ENDS_WITHIN_S = 10.0
_CHUNK = 1 << 20


class State(StrEnum):
    """Where a file is on its way; `Stage` says more while it is at work."""

    WAITING = "waiting"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BusyError(Exception):
    """No room right now."""


@dataclass(slots=True)
class Upload:
    """One file and what became of it.

    Attributes:
        session: Of the browser that handed it over; nobody else gets to see it.
        evidence: Once it is done.
        message: Why it failed, in words.
        not_kept: Why it could not be kept, where it should have been.
    """

    upload_id: str
    session: str
    given: Given
    settings: ScanSettings
    state: State = State.WAITING
    stage: Stage | None = None
    evidence: Evidence | None = None
    message: str = ""
    not_kept: str = ""
    ended: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in (State.DONE, State.FAILED, State.CANCELLED)


class Uploads:
    """All of them, and the thread that judges. For several threads; `close` ends it.

    Args:
        equipment: To decode and score with.
        clock: Seconds that never go back.
        keep: Folder in which files are kept once they are judged, by their sha256; None: they are not.

    Raises:
        SettingsError: nothing can be kept there.
    """

    def __init__(self, equipment: Equipment, clock: Callable[[], float], keep: Path | None = None) -> None:
        self._equipment, self._clock, self._keep = equipment, clock, keep
        if keep is not None:
            _usable(keep)
        self._lock = threading.RLock()
        self._receiving = 0
        self._all: dict[str, Upload] = {}
        self._waiting: queue.SimpleQueue[Upload | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and what it is at."""
        with self._lock:
            everything = list(self._all.values())
        for upload in everything:
            self._cancel(upload)
        self._waiting.put(None)
        self._equipment.close()
        self._thread.join(_ENDS_WITHIN_S)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Room to receive one file.

        Raises:
            BusyError: too many are being received, or wait.
        """
        with self._lock:
            if self._receiving >= MOST_RECEIVING or self.ahead() >= MOST_WAITING:
                raise BusyError
            self._receiving += 1
        try:
            yield
        finally:
            with self._lock:
                self._receiving -= 1

    def ahead(self, upload: Upload | None = None) -> int:
        """Files that are not done yet; with `upload`, those before it."""
        with self._lock:
            everything = list(self._all.values())
        found = 0
        for one in everything:
            if one is upload:
                break
            found += not one.is_over
        return found

    def add(self, session: str, given: Given, settings: ScanSettings) -> Upload:
        """Put a file that was received whole in the queue, and forget the oldest pages."""
        upload = Upload(secrets.token_hex(8), session, given, settings)
        with self._lock:
            over = [one for one in self._all.values() if one.is_over]
            late = [one for one in over if self._clock() - one.ended > _KEPT_S]
            for old in {
                id(one): one for one in (*over[: max(0, len(over) - _MOST_KEPT + 1)], *late)
            }.values():
                del self._all[old.upload_id]
            self._all[upload.upload_id] = upload
        self._waiting.put(upload)
        return upload

    def find(self, upload_id: str, session: str) -> Upload | None:
        """A file of this browser; None where there is none, or it was forgotten."""
        upload = self._all.get(upload_id)
        return upload if upload is not None and upload.session == session else None

    def cancel(self, upload: Upload) -> None:
        """Stop it wherever it is; its file is closed, and so deleted, when the stage that it is at ends."""
        if self._cancel(upload):
            self._equipment.stop_decoding(upload.given.file)

    def _cancel(self, upload: Upload) -> bool:
        """Whether it was being worked on."""
        with self._lock:
            if upload.is_over:
                return False
            working = upload.state is State.WORKING
            upload.state, upload.ended = State.CANCELLED, self._clock()
            if not working:  # else the thread that reads it does
                upload.given.file.close()
            return working

    def _work(self) -> None:
        while (upload := self._waiting.get()) is not None:
            with self._lock:
                if upload.is_over:
                    continue
                upload.state = State.WORKING
            with contextlib.closing(upload.given.file):
                self._judge(upload)

    def _judge(self, upload: Upload) -> None:
        def at(stage: Stage) -> None:
            upload.stage = stage
            self._go_on(upload)

        evidence, message = None, ""
        with contextlib.ExitStack() as stack:
            try:
                evidence = judge(upload.given, upload.settings, self._equipment, at)
                copy = self._copied(upload, self._keep, stack) if self._keep is not None else None
            except StoppedError:
                return
            except DeepfakeScanError as error:
                message, copy = shown(str(error)), None
            except Exception as error:  # one file must not end the thread that all others wait for
                log.exception("an upload failed")
                message, copy = shown(f"{type(error).__name__}: {error}"), None
            with self._lock:
                if upload.state is State.CANCELLED:
                    return
                if copy is not None:
                    copy.replace(copy.with_name(f"{upload.given.sha256}.video"))
                upload.evidence, upload.message, upload.ended = evidence, message, self._clock()
                upload.state = State.DONE if evidence is not None else State.FAILED

    def _copied(self, upload: Upload, folder: Path, stack: contextlib.ExitStack) -> Path | None:
        """A copy of the file in the folder to keep, deleted with `stack` unless it is renamed before.

        None where there cannot be one, which its page then says.
        """
        try:
            return stack.enter_context(_store(folder, upload.given, lambda: self._go_on(upload)))
        except OSError as error:
            upload.not_kept = shown(error.strerror or str(error))
            log.warning("an upload cannot be kept: %s", upload.not_kept)
            return None

    def _go_on(self, upload: Upload) -> None:
        if upload.state is State.CANCELLED:
            raise StoppedError("cancelled")


def _usable(folder: Path) -> None:
    """Make the folder to keep files in, and try whether one can be written.

    Raises:
        SettingsError: it is none, or cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"--keep {printable(str(folder))}: cannot keep files there: {error}") from error


@contextmanager
def _store(folder: Path, given: Given, go_on: Callable[[], None]) -> Iterator[Path]:
    """A copy of the whole file, for its owner alone; deleted at the end unless it was renamed."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{given.sha256}.{secrets.token_hex(4)}"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as kept:
            given.file.seek(0)  # the child that decoded shares its offset
            while chunk := given.file.read(_CHUNK):
                kept.write(chunk)
                go_on()
        yield path
    finally:
        path.unlink(missing_ok=True)
