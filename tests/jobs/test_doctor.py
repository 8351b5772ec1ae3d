import pytest

from jobs import doctor
from jobs.doctor import Check, examine
from tests.jobs.conftest import Command


def test_every_check_runs_the_real_thing_and_passes_here() -> None:
    found = {check.name: check for check in examine()}
    assert list(found) == list(doctor._CHECKS)
    shared_memory = found.pop("shared memory")  # a container may have little of it, and then this is right
    assert "GiB free" in shared_memory.detail or "--shm-size" in shared_memory.detail
    assert {name: check.detail for name, check in found.items() if not check.ok} == {}
    assert "gives its golden answer" in found["weights"].detail


@pytest.mark.parametrize(
    "error", [RuntimeError("it is broken"), ImportError("it is broken"), SystemExit("it is broken")]
)
def test_a_check_that_ends_in_any_way_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken() -> str:
        raise error

    monkeypatch.setattr(doctor, "_CHECKS", {"one": broken, "two": lambda: "as it should be"})
    one, two = examine()
    assert (one.name, one.ok, one.detail) == ("one", False, f"{type(error).__name__}: it is broken")
    assert two == Check("two", True, "as it should be")


def test_the_command_shows_every_check_and_exits_2_if_one_failed(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(doctor, "_CHECKS", {"one": lambda: "fine", "two": lambda: str(1 / 0)})
    done = command("doctor")
    assert done.code == 2
    assert done.out == "ok    one: fine\nFAIL  two: ZeroDivisionError: division by zero\n"
    monkeypatch.setattr(doctor, "_CHECKS", {"one": lambda: "fine"})
    assert command("doctor").code == 0
