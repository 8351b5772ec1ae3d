"""Damaged files through the real child: a seeded sample, and each kind of damage that was once missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detector.sandbox import Sandbox
from detector.types import ExtractOptions, Facts, Sampling, Warn
from tests.containers import write
from tests.healthy import face
from tests.mutants import LIMITS, SEEDS, Trials, container_of, write_seeds
from tests.mutations import mutated

SAMPLE = 300
# Fewer frames than a scan looks at, over as much of the video.
OPTIONS = ExtractOptions(sampling=Sampling(windows=1, frames=4, spacing_s=0.45), limits=LIMITS)
# They say nowhere how long they are.
ENDLESS = {"webm, live", "ts, h264", "mpg, mpeg2"}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return write_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def test_damaged_files_break_nothing_and_are_seldom_taken_for_complete(
    bodies: dict[str, bytes], sandbox: Sandbox, tmp_path: Path
) -> None:
    trials = Trials(bodies, tmp_path, sandbox, look=False, options=OPTIONS)
    for name in SEEDS:
        whole = trials.undamaged(name)
        assert whole.outcome == ("complete is not known" if name in ENDLESS else "complete"), (name, whole)
    found = [trials(seed) for seed in range(SAMPLE)]

    wrong = [f"SEED={trial.seed} {trial.container}: {trial.complaint}" for trial in found if trial.complaint]
    assert not wrong, "make fuzz COUNT=1 makes them again:\n" + "\n".join(wrong)
    assert {trial.container for trial in found} == set(SEEDS), "a container was not damaged at all"
    outcomes = Counter(trial.outcome.split(" as ")[0] for trial in found)
    assert outcomes["failed"] >= SAMPLE // 8, outcomes
    assert outcomes["not complete"] >= SAMPLE // 8, outcomes
    assert outcomes["complete"] <= SAMPLE // 2, outcomes


@pytest.mark.parametrize("seed", [1360, 5275, 6174])
def test_a_header_that_points_before_the_file_is_a_fault_of_the_file(
    bodies: dict[str, bytes], sandbox: Sandbox, tmp_path: Path, seed: int
) -> None:
    trial = Trials(bodies, tmp_path, sandbox, look=False, options=OPTIONS)(seed)
    assert trial.container == "wmv, wmv2"
    assert trial.complaint is None, "PyAV raised what the file object raised when it was to seek there"


def test_a_seed_always_makes_the_same_damage(bodies: dict[str, bytes]) -> None:
    lengths = Counter[str]()
    for seed in range(120):
        body = bodies[container_of(seed)]
        damaged = mutated(body, seed)
        assert damaged == mutated(body, seed), seed
        kind = "as long" if len(damaged) == len(body) else "longer" if len(damaged) > len(body) else "shorter"
        lengths[kind if damaged != body else "none"] += 1
    assert min(lengths[kind] for kind in ("as long", "longer", "shorter")) > 0, lengths
    assert lengths["none"] <= 6, lengths


# --- what was once missed -------------------------------------------------------------------------------


def _told_longer(body: bytes) -> bytes:
    """Matroska that says of its pictures that they go on for 9 s."""
    return body.replace(b"00:00:02.000000000", b"00:00:09.000000000")


def _chunk_renamed(body: bytes) -> bytes:
    """AVI of which the tenth picture has a name that means nothing."""
    at = body.index(b"movi")
    for _ in range(10):
        at = body.index(b"00dc", at + 4)
    return body[:at] + b"\x180" + body[at + 2 :]


def _written_over(body: bytes) -> bytes:
    """4 kB from the start laid over some pictures near the end: the file is as long as before."""
    at = len(body) * 3 // 4
    return body[:at] + body[:4000] + body[at + 4000 :]


def _put_in(body: bytes) -> bytes:
    """The same put in between: the file goes on behind its end."""
    at = len(body) * 3 // 4
    return body[:at] + body[:4000] + body[at:]


@pytest.mark.parametrize(
    ("container", "damage", "complete"),
    [
        ("mkv", _told_longer, None),
        ("avi", _chunk_renamed, False),
        ("mkv", _written_over, False),
        ("webm", _written_over, False),
        ("mkv", _put_in, False),
        ("avi", _put_in, False),
    ],
)
def test_damage_that_was_once_taken_for_complete_is_not(
    container: str, damage: Callable[[bytes], bytes], complete: bool | None, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = write(tmp_path, container, face(50))
    assert _facts(path, sandbox).complete is True
    body = path.read_bytes()
    path.write_bytes(damage(body))
    assert path.read_bytes() != body
    facts = _facts(path, sandbox)
    assert facts.failure is None, facts.message
    assert facts.complete is complete, facts.warnings
    assert (Warn.TRUNCATED in facts.warnings) is (complete is False), facts.warnings


def _facts(path: Path, sandbox: Sandbox) -> Facts:
    with path.open("rb") as file:
        return sandbox.extract(file, ExtractOptions()).facts
