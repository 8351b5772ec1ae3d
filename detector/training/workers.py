"""What a process that reads pictures for a training is set up with."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Worker:
    """Makes a reading process polite, single-threaded and deaf to signals, which the training handles."""

    nice: int = 19

    def __call__(self, _number: int) -> None:
        """Called in the process with its number."""
        import cv2

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os.nice(self.nice)
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
