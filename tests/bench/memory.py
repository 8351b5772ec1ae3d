"""`make bench BAR=memory`: what it is worth that a scoring process keeps the memory that it freed.

The shipped weights score the same clips on one core, each time in a fresh process and, as Ray does it, in a
thread that is not the first; medians of five pairs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from detector.memory import ONE_HEAP

_PAIRS, _RUNS, _CLIPS = 5, 5, 8
_PROGRAM = f"""
import sys, threading, time
import numpy as np, torch
from detector.memory import keep_freed_memory
from detector.model import Model
from detector.types import Clips
from detector.weights import read, resolve
torch.set_num_threads(1)
if sys.argv[2] == "keep":
    keep_freed_memory()
model = Model(read(resolve(sys.argv[1])))
size, frames = model.header.input.size, model.header.input.frames
pixels = np.random.default_rng(0).integers(0, 256, ({_CLIPS}, frames, size, size, 3), np.uint8)
clips, seconds = Clips(pixels, np.ones(({_CLIPS}, frames), np.bool_)), []
def score():
    for _ in range({_RUNS} + 1):
        began = time.perf_counter()
        model.score(clips)
        seconds.append(time.perf_counter() - began)
thread = threading.Thread(target=score)
thread.start()
thread.join()
print({_CLIPS} * frames / sorted(seconds[1:])[{_RUNS} // 2])
"""


def main() -> None:
    """Prints a line for each shipped file."""
    for name in ("efficientnet_lite0_lstm", "resnext_lstm"):
        pairs = [(_frames_per_s(name, "plain"), _frames_per_s(name, "keep")) for _ in range(_PAIRS)]
        ratio = statistics.median(keep / plain for plain, keep in pairs)
        plain, keep = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(f"{name}: {plain:.0f} frames/s, with freed memory kept {keep:.0f}; ratio {ratio:.2f}")


def _frames_per_s(name: str, how: str) -> float:
    words = [sys.executable, "-c", _PROGRAM, name, how]
    environment = os.environ | (ONE_HEAP if how == "keep" else {})
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
