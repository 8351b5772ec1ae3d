"""A job of a Ray cluster, followed until it ends: its log as it grows, and the exit code of its command."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import requests

from detector.errors import ClusterError
from jobs.job_server import Say, client, in_words
from jobs.summary import TERMINATED

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_PATIENCE_S = 300.0
_RETRY_S = 2.0


def follow(job: str, address: str, log: Say, say: Say) -> int:
    """Hand a job's log to `log` as it grows, and return the exit code of its command.

    What `log` raises ends it at once; `say` takes a line when the connection is lost.

    Raises:
        ClusterError: the cluster was not to be reached for minutes, or the job never ran.
    """
    try:
        with in_words(address):
            details = _followed(job, address, _Shown(log), say)
    except _UnshownError as error:
        raise error.why from None
    if str(details.status) == "STOPPED":
        return TERMINATED
    if details.driver_exit_code is None:
        raise ClusterError(f"job {job} {details.status.lower()}: {details.message}")
    code: int = details.driver_exit_code
    return code if code >= 0 else 128 - code


def _followed(job: str, address: str, shown: _Shown, say: Say) -> JobDetails:
    """Until the job has ended; a connection that is lost is made again, and nothing is shown twice."""
    from aiohttp import ClientError

    lost_at = None
    while True:
        try:
            server = client(address)
            asyncio.run(shown.tail(server, job))
            details = server.get_job_info(job)
            if details.status.is_terminal():
                return details
            lost_at = None
        except (OSError, RuntimeError, ClientError, requests.RequestException) as error:
            if lost_at is None:
                lost_at = time.monotonic()
                say(f"{address} does not answer; trying for {_PATIENCE_S:.0f} s, and the job may go on")
            if time.monotonic() - lost_at > _PATIENCE_S:
                raise ClusterError(
                    f"{address} has not answered for {_PATIENCE_S:.0f} s: {error}",
                    hint=f"The job may go on; `ray job logs --follow {job}` takes up its log again.",
                ) from error
        time.sleep(_RETRY_S)


class _UnshownError(Exception):
    """What the taker of the log raised, kept apart from what a connection raises."""

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


class _Shown:
    """How much of a job's log was handed on."""

    def __init__(self, log: Say) -> None:
        self._log = log
        self._characters = 0

    async def tail(self, server: JobSubmissionClient, job: str) -> None:
        """Hand on what is new, until the server closes the log."""
        position = 0
        lines: Any = server.tail_job_logs(job)
        async for text in lines:
            new = text[max(0, self._characters - position) :]
            position += len(text)
            if new:
                try:
                    self._log(new)
                except OSError as error:
                    raise _UnshownError(error) from error
                self._characters = position
