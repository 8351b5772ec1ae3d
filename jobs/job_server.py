"""The job server of a Ray cluster: whether it is one, whom it takes, and its client with errors in words."""

from __future__ import annotations

import ipaddress
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from detector.errors import ClusterError, SettingsError
from jobs.schema import printable

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

Say = Callable[[str], None]

_REQUEST_S = 30.0
_START_S = 60.0  # of a tunnel that was opened a moment ago
_PAUSE_S = 1.0
_AGENT_PAUSE_S, _AGENT_S = 5.0, 300.0
_NO_AGENT = "No available agent"  # Ray's words; nothing was submitted then
_TAKEN, _REFUSED = 200, (401, 403)


def authenticate(address: str, *, insecure: bool, say: Say) -> None:
    """Find out whether the cluster wants a token, and have Ray's client send one.

    Args:
        address: of the job server, as http://HOST:8265.
        insecure: also a cluster elsewhere that asks for no token.
        say: takes a line if it has to be waited for.

    Raises:
        SettingsError: the address is none of a job server.
        ClusterError: it wants no token and is not this machine, it cannot be reached, or is something else.
    """
    if not address.startswith(("http://", "https://")):
        raise SettingsError(
            f"--address: {printable(address)} does not begin with http:// or https://",
            hint="It is the address of the head's dashboard, such as http://127.0.0.1:8265.",
        )
    answer = _answer(address, say)
    if answer.status_code in _REFUSED:
        os.environ["RAY_AUTH_MODE"] = "token"
        return
    if answer.status_code != _TAKEN:
        onward = f", to {printable(answer.headers['location'])}" if "location" in answer.headers else ""
        raise ClusterError(
            f"{address} answered {answer.status_code} {printable(answer.reason)}{onward}",
            hint="It has to be the head's dashboard itself, without a proxy that answers in its place.",
        )
    try:
        jobs = answer.json()
    except requests.exceptions.JSONDecodeError as error:
        raise _something_else(address) from error
    if not isinstance(jobs, list):
        raise _something_else(address)
    if not insecure and not _is_loopback(urlsplit(address).hostname or ""):
        raise ClusterError(
            f"{address} takes anybody's code: its cluster asks for no token",
            hint="Start it with RAY_AUTH_MODE=token, or use --insecure where nobody else reaches it.",
        )


def client(address: str) -> JobSubmissionClient:
    """Ray's client of the job server; what it raises is for `in_words`."""
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):  # they tell of every connection
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    return JobSubmissionClient(address)


def submitted(address: str, entrypoint: str, working_dir: Path, say: Say) -> str:
    """The id of a job that the server has taken; a cluster whose agents are still starting is waited for.

    Raises:
        ClusterError: as `in_words` has it.
    """
    began, told = time.monotonic(), False
    with in_words(address):
        server = client(address)
        while True:
            try:
                job: str = server.submit_job(
                    entrypoint=entrypoint, runtime_env={"working_dir": str(working_dir)}
                )
            except RuntimeError as error:
                if _NO_AGENT not in str(error) or time.monotonic() - began > _AGENT_S:
                    raise
            else:
                return job
            if not told:
                say(f"{address} has no agent yet that takes jobs; waiting up to {_AGENT_S:.0f} s for one")
                told = True
            time.sleep(_AGENT_PAUSE_S)


@contextmanager
def in_words(address: str) -> Iterator[None]:
    """What Ray's client raises, as a `ClusterError`."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"{address} asks for a token; ours is missing or not the right one",
            hint="RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token has to hold that of the cluster.",
        ) from error
    except requests.exceptions.JSONDecodeError as error:
        raise _something_else(address) from error
    except (ConnectionError, requests.RequestException) as error:
        raise _unreachable(address, error) from error
    except RuntimeError as error:
        raise ClusterError(f"{address}: {error}") from error


def _answer(address: str, say: Say) -> requests.Response:
    """What the server says to somebody without a token: whether that is refused is the question."""
    began, told = time.monotonic(), False
    while True:
        try:
            return requests.get(f"{address.rstrip('/')}/api/jobs/", timeout=_REQUEST_S, allow_redirects=False)
        except requests.RequestException as error:
            if not _may_be_starting(error) or time.monotonic() - began > _START_S:
                raise _unreachable(address, error) from error
        if not told:
            say(f"{address} refuses connections; waiting up to {_START_S:.0f} s for it")
            told = True
        time.sleep(_PAUSE_S)


def _may_be_starting(error: BaseException | None) -> bool:
    """Whether nobody listens yet, or a tunnel does whose far end is not there yet."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError | ConnectionResetError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _something_else(address: str) -> ClusterError:
    return ClusterError(
        f"{address} is no job server of Ray: something else answers there",
        hint="It is the address of the head's dashboard, on port 8265 if nobody chose another one.",
    )


def _unreachable(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"{address} cannot be reached: {error}",
        hint="It is the address of the head's dashboard; `ray dashboard cluster.yaml` makes a tunnel to it.",
    )
