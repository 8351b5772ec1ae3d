"""Policy files: calibration and thresholds of a user's own, from `calibrate` to `scan` and `query`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from detector.errors import SettingsError
from detector.evaluation.calibration import named
from detector.types import Policy
from detector.weights import WeightsFile
from jobs.files import write_whole
from jobs.schema import printable

_HINT = "Make one with `deepfake-scan calibrate`."
_MAX_BYTES = 1 << 20


class PolicyFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A policy, and the scores that it was made for: how closely videos are looked at changes thresholds."""

    format: Literal[1] = 1
    policy: Policy
    weights: str
    weights_id: str
    settings_id: str
    made_at: datetime


def write(path: Path, policy: Policy, weights: str, weights_id: str, settings_id: str) -> None:
    """Writes a policy file, whole or not at all.

    Raises:
        StorageError: It cannot be written there.
    """
    content = PolicyFile(
        policy=policy,
        weights=weights,
        weights_id=weights_id,
        settings_id=settings_id,
        made_at=datetime.now(UTC).replace(microsecond=0),
    )
    text = msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
    write_whole(path, f"{text}\n")


def read(path: str) -> PolicyFile:
    """Reads and checks a policy file.

    Raises:
        SettingsError: There is none, or it is not as it was written.
    """
    where = f"policy {printable(path)}"
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        found = msgspec.json.decode(data, type=PolicyFile)
    except OSError as error:
        raise SettingsError(f"{where}: {error.strerror}", hint=_HINT) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise SettingsError(f"{where}: not a policy file: {printable(str(error))}", hint=_HINT) from error
    policy = found.policy
    if named(policy).policy_id != policy.policy_id:
        raise SettingsError(f"{where}: it was changed by hand, and its id is that of before", hint=_HINT)
    return found


def policy_for(path: str | None, weights: WeightsFile, settings_id: str | None = None) -> Policy:
    """The policy of a file, or the one in the weights where none is named.

    Args:
        path: Of the file.
        weights: That it is to judge.
        settings_id: Of the videos that it is to judge; None for crops, of which nobody sets thresholds.

    Raises:
        SettingsError: It cannot be read, or was made for other weights or settings.
    """
    if path is None:
        return weights.header.policy
    found = read(path)
    if found.weights_id != weights.weights_id:
        raise SettingsError(
            f"policy {printable(path)}: it was made for the weights {printable(found.weights)} "
            f"({printable(found.weights_id)}), not for {weights.header.name} ({weights.weights_id})",
            hint="Calibrate anew: logits of other weights mean something else.",
        )
    if settings_id not in (None, found.settings_id):
        raise SettingsError(
            f"policy {printable(path)}: its thresholds were measured with other settings "
            f"({printable(found.settings_id)}), not with these ({settings_id})",
            hint="Use the profile and settings of then, or calibrate with those of now.",
        )
    return found.policy
