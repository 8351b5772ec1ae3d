"""What is said of every odd file: `tests/expectations.csv` against the real sandbox."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detector.sandbox import Sandbox
from detector.types import ExtractOptions, Facts, Reason
from tests.oddities import CATALOGUE, HEALTHY, Answer, answer, expectations

BUGS = {Reason.INTERNAL_ERROR, Reason.DECODER_CRASH, Reason.DECODE_TIMEOUT}
MADE, ODD = expectations("made"), expectations("odd")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the path of a made file, which is written when it is first asked for."""
    folder = tmp_path_factory.mktemp("oddities")

    def path_of(name: str) -> Path:
        path = folder / name
        if not path.exists():
            CATALOGUE[name](path)
        return path

    return path_of


def extract(path: Path, sandbox: Sandbox) -> Facts:
    with path.open("rb") as file:
        return sandbox.extract(file, ExtractOptions()).facts


def complaint(name: str, facts: Facts, expected: Answer) -> str:
    """What is wrong with the answer, nothing where it is as expected."""
    got = answer(facts)
    if facts.failure in BUGS and str(facts.failure) not in expected.reason.split("|"):
        return f"{name}: {facts.failure}: {facts.message}"
    if facts.failure is not None and not facts.message:
        return f"{name}: {facts.failure} without a message"
    if expected.admits(got):
        return ""
    return f"{name}: {got}\n    where {expected} is right\n    message: {facts.message!r}, {facts.warnings}"


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_made_file_gets_the_answer_that_a_person_agrees_with(
    name: str, made: Callable[[str], Path], sandbox: Sandbox
) -> None:
    wrong = complaint(name, extract(made(name), sandbox), MADE[name])
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_odd_file_gets_the_answer_that_a_person_agrees_with(
    shared_data: Path, sandbox: Sandbox
) -> None:
    folder = shared_data / "videos" / "odd"
    wrong = [complaint(name, extract(folder / name, sandbox), expected) for name, expected in ODD.items()]
    told = [words for words in wrong if words]
    assert not told, "\n".join([f"{len(told)} of {len(ODD)} files:", *told])


def test_the_table_lists_every_made_file_and_no_other() -> None:
    assert sorted(MADE) == sorted(CATALOGUE)


@pytest.mark.slow
def test_the_table_lists_every_odd_file_and_no_other(shared_data: Path) -> None:
    folder = shared_data / "videos" / "odd"
    with (folder / "index.csv").open(newline="") as file:
        indexed = {row["file"] for row in csv.DictReader(file)}
    assert set(ODD) == indexed == {path.name for path in folder.iterdir()} - {"index.csv"}


def test_every_healthy_file_is_to_be_scored() -> None:
    others = {name: MADE[name] for name in HEALTHY if MADE[name].status != "scored"}
    assert not others, f"healthy files that are expected not to be scored: {others}"


def test_every_expectation_is_one_that_can_be_met() -> None:
    for name, expected in (MADE | ODD).items():
        assert ("failed" in expected.status or expected.status == "*") == bool(expected.reason), name
        assert set(expected.reason.split("|")) <= {"", "*", *Reason}, f"{name}: {expected.reason}"
        assert expected.complete in {"", "*", "true", "false"}, f"{name}: {expected.complete}"
