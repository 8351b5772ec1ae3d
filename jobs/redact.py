"""Secrets, kept out of what others read: messages, logs, rows, the settings that a scan notes."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

HIDDEN = "***"
_SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("RAY_AUTH_TOKEN", "DEEPFAKE_WEBHOOK_SECRET"),
)
# What is shorter is no secret, and would be found in the middle of words.
_LEAST_CHARS = 8
# Before the host a name and a password, behind the path a query: of neither the server's name is a part.
_URL = re.compile(r"""(?i)\b(https?://)(?:[^\s/?#@'"]*@)?([^\s?#'"]*)(?:[?#][^\s'"]*)?""")


def redacted(text: str) -> str:
    """`text` without the secrets of this process's environment, and without those that a URL carries."""
    for name in _SECRETS:
        if len(value := os.environ.get(name, "")) >= _LEAST_CHARS:
            text = text.replace(value, HIDDEN)
    return _URL.sub(_without_secrets, text)


def _without_secrets(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    whole = found[0] == scheme + rest
    return found[0] if whole else f"{scheme}{rest}?{HIDDEN}"


def server_of(url: str) -> str:
    """`https://host:port/***` of the URL of a webhook, all of which may be a secret but its server."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return HIDDEN
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}/{HIDDEN}"
