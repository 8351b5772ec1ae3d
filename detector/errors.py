"""The exception tree.

DeepfakeScanError          message says what happened and to what; hint says what to do
├── SettingsError          a setting is wrong; stops the job before it starts          exit 2
├── InputError             nothing to scan, or an input that cannot be listed          exit 2
├── WeightsError           weights missing, damaged or not made for this release       exit 2
├── StorageError           the table or the input store cannot be used                 exit 4
├── ClusterError           the plan cannot be scheduled on this cluster                exit 4
├── SandboxError           the kernel gives less than was required                     exit 4
├── TableHeldError         another scan holds the table                                exit 5
└── VideoError             one video cannot be scored: becomes that video's row, never stops a job
"""

from __future__ import annotations

from detector.types import Reason


class DeepfakeScanError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class SettingsError(DeepfakeScanError):
    """One or more settings are wrong; the message lists every one of them."""

    exit_code = 2


class InputError(DeepfakeScanError):
    """An input does not exist, cannot be listed, or holds no videos."""

    exit_code = 2


class WeightsError(DeepfakeScanError):
    """A weights file is missing, damaged, or asks for something this release cannot do."""

    exit_code = 2


class StorageError(DeepfakeScanError):
    """The table or the store of the videos cannot be read or written."""

    exit_code = 4


class ClusterError(DeepfakeScanError):
    """Ray cannot be reached, or the plan does not fit on the cluster."""

    exit_code = 4


class SandboxError(DeepfakeScanError):
    """Videos are not decoded here: the kernel holds the decoding process in by less than was required."""

    exit_code = 4


class TableHeldError(DeepfakeScanError):
    """Another scan holds the table."""

    exit_code = 5


class VideoError(DeepfakeScanError):
    """One video cannot be scored; `reason` is the value of its row's column."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
