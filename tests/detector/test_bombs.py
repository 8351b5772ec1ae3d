"""A small file that costs a great deal is refused for the right reason, within a child's memory and 20 s."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.sandbox import Sandbox
from tests.bombs import BOMBS, complaint, cost


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if bomb.quick else pytest.mark.slow) for name, bomb in BOMBS.items()],
)
def test_a_bomb_is_refused_for_the_right_reason_and_costs_little(
    name: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / name
    BOMBS[name].write(path)
    wrong = complaint(name, cost(sandbox, path))
    assert not wrong, wrong
