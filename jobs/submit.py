"""A scan as a job of a Ray cluster: uploaded, submitted, followed, and ended with its own exit code.

Beyond what Ray's job client does: the upload is shown before it is sent, a cluster that takes anybody's code
is refused, and the exit code is the scan's, where `ray job submit` makes every one but 0 into 1.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import shlex
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from detector.errors import ClusterError, SettingsError
from jobs.config_sources import ENVIRONMENT_PREFIX
from jobs.schema import printable
from jobs.summary import TERMINATED
from jobs.units import rounded_size

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

Say = Callable[[str], None]

_MOST_BYTES = 100 << 20  # of Ray's job server, which refuses more without saying why
_SHOWN = 3
_PATIENCE_S = 300.0
_RETRY_S = 2.0
_REQUEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Upload:
    """A working directory as it travels: a ZIP without what .gitignore and .rayignore leave out."""

    path: Path
    size: int
    files: Sequence[tuple[str, int]]
    """Name and compressed size, bytes; the largest first."""

    def in_words(self) -> str:
        """Its size, and what most of it is."""
        largest = ", ".join(f"{name} {rounded_size(size)}" for name, size in self.files[:_SHOWN])
        return f"{len(self.files)} files, {rounded_size(self.size)}; the largest: {largest}"


def submit(
    words: Sequence[str], needed: Sequence[str], *, address: str, folder: Path, insecure: bool, say: Say
) -> str:
    """Hand a scan to a cluster, and return the id of its job.

    Args:
        words: of the command `scan`.
        needed: names of files that they and the settings name; what is a file here has to be one there.
        address: of the cluster's job server, as http://HOST:8265.
        folder: what the job finds as its working directory.
        insecure: also to a cluster elsewhere that asks for no token.
        say: takes a line about what goes on.

    Raises:
        SettingsError: something that is needed would not be there, or the upload is too large.
        ClusterError: the cluster cannot be reached, takes anybody or not us.
    """
    _authenticate(address, insecure=insecure)
    with _packed(folder) as upload:
        say(f"upload: {upload.in_words()}")
        _check(upload, needed, folder)
        command = ["python", "-m", "jobs", "scan", *words, "--address", "auto"]
        # What was found right with the settings of this environment would be another scan without them.
        settings = {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT_PREFIX)}
        with _told(address):
            job: str = _client(address).submit_job(
                entrypoint=shlex.join(command),
                runtime_env={"working_dir": str(upload.path), "env_vars": settings},
            )
    return job


def follow(job: str, address: str, log: Say) -> int:
    """Hand a job's log to `log` as it grows, and return the exit code of its command.

    Raises:
        ClusterError: the cluster was not to be reached for minutes, or the job never ran.
    """
    with _told(address):
        details = _followed(job, address, log)
    if str(details.status) == "STOPPED":
        return TERMINATED
    if details.driver_exit_code is None:
        raise ClusterError(f"job {job} {details.status.lower()}: {details.message}")
    code: int = details.driver_exit_code
    return code if code >= 0 else 128 - code


@contextmanager
def _packed(folder: Path) -> Iterator[Upload]:
    # Ray's own packing, not part of its promised interface, so that what is shown is what is sent.
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    with tempfile.TemporaryDirectory(prefix="deepfake-scan-") as scratch:
        path = Path(scratch, "working-directory.zip")
        quiet = logging.getLogger(f"{__name__}.packing")
        quiet.setLevel(logging.CRITICAL)
        excludes = get_runtime_env_default_excludes()
        create_package(str(folder), path, include_gitignore=True, excludes=excludes, logger=quiet)
        with zipfile.ZipFile(path) as packed:
            sizes = [
                (entry.filename, entry.compress_size) for entry in packed.infolist() if not entry.is_dir()
            ]
        yield Upload(path, path.stat().st_size, sorted(sizes, key=lambda file: -file[1]))


def _check(upload: Upload, needed: Sequence[str], folder: Path) -> None:
    """Refuse what would fail on the cluster, or fail there in words that help nobody."""
    found = []
    if upload.size > _MOST_BYTES:
        found.append(
            f"{printable(str(folder))} makes an upload of {rounded_size(upload.size)}, and job servers take "
            f"{rounded_size(_MOST_BYTES)}: leave something out in .rayignore"
        )
    there = {name for name, _ in upload.files}
    for name in needed:
        # Names of shipped weights, addresses and paths inside the image are left to the job itself.
        path = PurePath(name)
        if not path.is_absolute() and Path(path).is_file() and os.path.normpath(path) not in there:
            found.append(
                f"{printable(name)} is not part of the upload: it has to lie in {printable(str(folder))} by "
                "that very name, and .gitignore and .rayignore must not leave it out"
            )
    if found:
        raise SettingsError("\n".join(found))


def _authenticate(address: str, *, insecure: bool) -> None:
    """Find out whether the cluster wants a token, and have Ray's client send one.

    Raises:
        ClusterError: it wants none and is not this machine, or it cannot be reached.
    """
    try:
        # Without a token on purpose: whether that is refused is the question.
        answer = requests.get(f"{address.rstrip('/')}/api/jobs/", timeout=_REQUEST_S, allow_redirects=False)
    except requests.RequestException as error:
        raise _unreachable(address, error) from error
    if answer.status_code in (401, 403):
        os.environ["RAY_AUTH_MODE"] = "token"
        return
    if not insecure and not _is_loopback(urlsplit(address).hostname or ""):
        raise ClusterError(
            f"{address} takes anybody's code: its cluster asks for no token",
            hint="Start it with RAY_AUTH_MODE=token, or use --insecure where nobody else reaches it.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):  # they tell of every connection
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    return JobSubmissionClient(address)


@contextmanager
def _told(address: str) -> Iterator[None]:
    """What Ray's client raises, in words."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"{address} asks for a token; ours is missing or not the right one",
            hint="RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token has to hold that of the cluster.",
        ) from error
    except (ConnectionError, requests.RequestException) as error:
        raise _unreachable(address, error) from error
    except RuntimeError as error:
        raise ClusterError(f"{address}: {error}") from error


def _unreachable(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"{address} cannot be reached: {error}",
        hint="It is the address of the head's dashboard; `ray dashboard cluster.yaml` makes a tunnel to it.",
    )


def _followed(job: str, address: str, log: Say) -> JobDetails:
    """Until the job has ended; a connection that is lost is made again, and nothing is shown twice."""
    from aiohttp import ClientError

    shown, lost_at = _Shown(log), None
    while True:
        try:
            client = _client(address)
            asyncio.run(shown.tail(client, job))
            details = client.get_job_info(job)
            if details.status.is_terminal():
                return details
            lost_at = None
        except (OSError, RuntimeError, ClientError, requests.RequestException) as error:
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > _PATIENCE_S:
                raise ClusterError(
                    f"{address} has not answered for {_PATIENCE_S:.0f} s: {error}",
                    hint=f"The job may go on; `ray job logs --follow {job}` takes up its log again.",
                ) from error
        time.sleep(_RETRY_S)


class _Shown:
    """How much of a job's log was handed on."""

    def __init__(self, log: Say) -> None:
        self._log = log
        self._characters = 0

    async def tail(self, client: JobSubmissionClient, job: str) -> None:
        """Hand on what is new, until the server closes the log."""
        position = 0
        lines: Any = client.tail_job_logs(job)
        async for text in lines:
            new = text[max(0, self._characters - position) :]
            position += len(text)
            if new:
                self._log(new)
                self._characters = position
