"""Starts and stops the review server: where it listens, who is let in, what it says on the terminal."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import secrets
import socket
import stat
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import uvicorn
from starlette.types import ASGIApp

from detector.errors import SettingsError
from jobs.live import warm
from jobs.named_weights import open_weights
from jobs.review.app import open_app
from jobs.review.asked import is_name
from jobs.review.connections import Connection
from jobs.review.decisions import WHO_CHARS
from jobs.review.guard import Door
from jobs.review.site import Site
from jobs.schema import printable
from jobs.table import ResultsTable

_LEAST_TOKEN = 32
_TOKEN = re.compile(r"[!-~]+")
_STOPS_S = 3
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def serve(
    output: str, *, user: str | None, port: int, bind: str, token_file: Path | None, keep: Path | None
) -> None:
    """Serve until Ctrl-C or SIGTERM; the address is printed on stdout once it is listened on.

    Args:
        output: Of the scans.
        user: Decides; None asks in each browser.
        port: 0 takes a free one.
        bind: Address or name to listen on; other than this machine's own only with `token_file`.
        token_file: Holds the token; None makes one for this start.
        keep: Folder in which uploads are kept; None: they are deleted once they are judged.

    Raises:
        SettingsError: it may not listen there, or cannot, or the file is not safe.
        InputError: there is no table.
    """
    ResultsTable.open(output)
    if user is not None and not is_name(user):
        raise SettingsError(f"--user: a name has 1 to {WHO_CHARS} characters, and no control characters")
    token = secrets.token_urlsafe(32) if token_file is None else read_token(token_file)
    listening = listen(bind, port, own_only=token_file is None)
    port = listening.getsockname()[1]
    site = Site(output, Door(hosts(bind, port), port, token), user)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with open_app(site, keep) as app:
        weights = open_weights("default")
        for equipment in app.state.equipment:
            threading.Thread(target=warm, args=(weights, equipment), daemon=True).start()
        print(f"http://{_in_address(bind)}:{port}/?token={quote(token, safe='')}", flush=True)
        print("review: open that address; Ctrl-C ends it", file=sys.stderr, flush=True)
        uvicorn.Server(configuration(app)).run(sockets=[listening])


def configuration(app: ASGIApp) -> uvicorn.Config:
    """How the server runs: plain HTTP/1.1, no header of a proxy believed, no token in any log."""
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_STOPS_S,
    )
    # It would have the query in it, where the token stands; the guard writes one that has not.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return config


def listen(bind: str, port: int, *, own_only: bool) -> socket.socket:
    """A socket that listens.

    Args:
        bind: Address or name of this machine.
        port: 0 takes a free one.
        own_only: Refuse what other machines reach.

    Raises:
        SettingsError: it may not, or cannot.
    """
    where = f"--bind {printable(bind)}"
    try:
        family, _, _, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except (OSError, ValueError) as error:
        raise SettingsError(f"{where}: no such address: {error}") from error
    if ip.is_unspecified:
        raise SettingsError(
            f"{where}: names no address", hint="Name the one address that others use: --bind 192.0.2.7"
        )
    if own_only and not ip.is_loopback:
        raise SettingsError(
            f"{where}: other machines reach that, so it needs --token-file",
            hint="docs/review.md says how to make one, and how to put TLS in front.",
        )
    try:
        return socket.create_server((str(address[0]), port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"--port {port}: cannot listen there, the port is in use",
                hint="Name another --port, or none: then a free one is taken.",
            ) from error
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"{where}: cannot listen on port {port}: {why}") from error


def hosts(bind: str, port: int) -> frozenset[str]:
    """Values of `Host` that a browser sends to what was bound to."""
    name = _in_address(bind)
    names = _LOOPBACK_NAMES if name in _LOOPBACK_NAMES else (name,)
    found = {f"{one}:{port}" for one in names}
    return frozenset(found | (set(names) if port == 80 else set()))  # browsers leave that one out


def _in_address(bind: str) -> str:
    return f"[{bind.lower()}]" if ":" in bind else bind.lower()


def read_token(path: Path) -> str:
    """The token in a file that nobody else may read.

    Raises:
        SettingsError: others may, or it is no token.
    """
    where = f"--token-file {printable(str(path))}"
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read(4096).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where}: cannot be read: {error}") from error
    if mode & 0o077:
        raise SettingsError(f"{where}: others may read it", hint=f"chmod 600 {printable(str(path))}")
    if len(token) < _LEAST_TOKEN or not _TOKEN.fullmatch(token):
        raise SettingsError(
            f"{where}: a token has at least {_LEAST_TOKEN} letters, digits and signs, and no spaces",
            hint="Make one: (umask 077; openssl rand -hex 32 > FILE)",
        )
    return token
