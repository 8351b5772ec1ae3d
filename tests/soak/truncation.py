"""`make soak BAR=truncation`: a file that is cut short never passes as complete.

Each of the containers that say how long they are is cut 150 times at random, and each cut goes through the
extraction child as a scan would send it: it has to fail, or to be scored with `complete` false. Transport
streams and live WebM carry no size; what becomes of theirs is told beside it, and what becomes of files of
which twenty bits were flipped.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from detector.sandbox import Sandbox
from detector.types import ExtractOptions
from tests.containers import SIZED, UNSIZED, write
from tests.film import moving_face
from tests.soak.report import write_report

_CUTS = 150
_FLIPPED_FILES, _FLIPS = 50, 20
_SEED = 18
_LEAST = 900


def main(cuts: int = _CUTS) -> int:
    """Run the bar; 0 if it holds."""
    started, chance = time.monotonic(), random.Random(_SEED)
    figures: dict[str, object] = {}
    passed = injected = 0
    with tempfile.TemporaryDirectory() as made, Sandbox() as sandbox:
        film = list(moving_face(50, (320, 240), face_px=90))
        for name in SIZED | UNSIZED:
            body = write(Path(made), name, film).read_bytes()
            whole = _outcome(sandbox, Path(made, "whole"), body)
            found = Counter(
                _outcome(sandbox, Path(made, "cut"), body[: chance.randrange(1, len(body))])
                for _ in range(cuts)
            )
            complete = found["complete"] + found["complete is not known"]
            if name in SIZED:
                passed, injected = passed + complete + (whole != "complete"), injected + cuts
            told = ", ".join(f"{n} {outcome}" for outcome, n in found.most_common())
            figures[f"{name}; uncut: {whole}"] = told
            flipped = Counter(
                _outcome(sandbox, Path(made, "flipped"), _flipped(body, chance))
                for _ in range(min(cuts, _FLIPPED_FILES))
            )
            damaged = ", ".join(f"{n} {outcome}" for outcome, n in flipped.most_common())
            figures[f"{name}; {_FLIPS} bits flipped"] = damaged
            print(name, whole, told, "; flipped:", damaged, flush=True)
    holds = passed == 0 and injected >= min(_LEAST, cuts * len(SIZED))
    write_report(
        "truncation",
        holds,
        {
            **figures,
            "cuts of sized containers": f"{injected:,}",
            "of these that passed as complete or not known": passed,
            "seconds": round(time.monotonic() - started),
        },
    )
    return 0 if holds else 1


def _flipped(body: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(body)
    for _ in range(_FLIPS):
        damaged[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _outcome(sandbox: Sandbox, path: Path, body: bytes) -> str:
    path.write_bytes(body)
    with path.open("rb") as file:
        facts = sandbox.extract(file, ExtractOptions()).facts
    if facts.failure is not None:
        return f"failed as {facts.failure}"
    return {True: "complete", False: "not complete", None: "complete is not known"}[facts.complete]


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
