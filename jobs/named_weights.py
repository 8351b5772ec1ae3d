"""Weights as settings name them: shipped, by a path, or an object in a bucket with its sha256."""

from __future__ import annotations

import hashlib
import re

from detector.errors import SettingsError, StorageError, WeightsError
from detector.weights import MAX_BYTES, WeightsFile, parse, read, resolve
from jobs import s3
from jobs.local import scheme_of
from jobs.s3_errors import error_code

_DIGITS = 64
_DIGEST = re.compile(r"(?P<uri>s3://.*)#sha256=(?P<digest>[0-9a-fA-F]+)", re.DOTALL)


def open_weights(named: str) -> WeightsFile:
    """The weights file that a setting names: `default`, a shipped file, a path, or `s3://...#sha256=HEX`.

    Raises:
        SettingsError: an object is named without its sha256.
        WeightsError: there is no such file, it is damaged, or not the one that was meant.
        StorageError: the store cannot be reached.
    """
    if scheme_of(named) != "s3":
        return read(resolve(named))
    found = _DIGEST.fullmatch(named)
    if found is None:
        raise SettingsError(
            f"weights {named}: a file from a bucket has to be named together with its sha256",
            hint="Write s3://bucket/key.safetensors#sha256=... with the digits that `sha256sum FILE` prints.",
        )
    uri, expected = found["uri"], found["digest"].lower()
    if len(expected) != _DIGITS:
        raise SettingsError(
            f"weights {named}: its sha256 has {len(expected)} digits, not {_DIGITS}",
            hint="`sha256sum FILE` prints the whole of it.",
        )
    data = _fetch(uri)
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise WeightsError(
            f"weights {uri}: the sha256 is {digest[:16]}..., the setting says {expected[:16]}...",
            hint="Nothing of it was used. Find out which of both is right.",
        )
    return parse(data, uri, digest)


def _fetch(uri: str) -> bytes:
    from botocore.exceptions import BotoCoreError, ClientError

    where = s3.parse(uri)
    try:
        found = s3.client().get_object(Bucket=where.bucket, Key=where.key)
        if found["ContentLength"] > MAX_BYTES:
            raise WeightsError(f"weights {uri}: {found['ContentLength']:,} bytes are no weights file of ours")
        return found["Body"].read()
    except ClientError as error:
        raise WeightsError(
            f"weights {uri}: the store says {error_code(error)}",
            hint="Check the name, and that s3:GetObject is allowed on it.",
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"weights {uri}: {error}", hint="Check credentials and endpoint.") from error
