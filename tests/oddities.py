"""All files whose answers stand in `expectations.csv`: those made here, and those of the shared test data.

In its columns status, reason and complete `a|b` is either, and `*` anything that is no bug: for files whose
damage depends on the encoder's version. The note says why where the answer surprises, or where it is another
than the one in the index of the shared data.
"""

import csv
from pathlib import Path
from typing import NamedTuple

from detector.types import Facts, Status
from tests.broken import BROKEN
from tests.healthy import HEALTHY, Writer
from tests.lies import LIES

__all__ = ["CATALOGUE", "HEALTHY", "Answer", "answer", "expectations"]

CATALOGUE: dict[str, Writer] = HEALTHY | BROKEN | LIES
TABLE = Path(__file__).with_name("expectations.csv")


class Answer(NamedTuple):
    """What is said of a file; `complete` is `true`, `false`, or empty where it cannot be known."""

    status: str
    reason: str
    complete: str

    def admits(self, got: "Answer") -> bool:
        """True if `got` is among what this expectation allows."""
        return all(
            allowed == "*" or value in allowed.split("|") for allowed, value in zip(self, got, strict=True)
        )


def answer(facts: Facts) -> Answer:
    """The answer that follows from the facts alone: `detector.verdict.decide` without the scores."""
    if facts.failure is not None:
        status = Status.FAILED
    elif any(track.reason is None for track in facts.tracks):
        status = Status.SCORED
    else:
        status = Status.NOT_SCORABLE if facts.tracks else Status.NO_FACE
    complete = "" if facts.complete is None else str(facts.complete).lower()
    return Answer(str(status), str(facts.failure or ""), complete)


def expectations(made: str) -> dict[str, Answer]:
    """File -> what ought to be said of it, of the files that are `made` or `odd` (of the shared data)."""
    with TABLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["made"] == made]
    return {row["file"]: Answer(row["status"], row["reason"], row["complete"]) for row in rows}
