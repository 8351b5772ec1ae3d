import av
import pytest

from detector.confinement import TEST_LACKING
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


@pytest.mark.parametrize("library", ["libavformat", "libavcodec"])
def test_an_ffmpeg_with_known_holes_is_a_finding(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    older = av.library_versions | {library: (62, 12, 101)}
    monkeypatch.setattr(av, "library_versions", older)
    decoder = doctor._run("decoder", doctor._CHECKS["decoder"])
    assert not decoder.ok
    assert f"({library} 62.12.101) has known holes: 8.1.2 or newer is needed" in decoder.detail


def test_walls_that_do_not_hold_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TEST_LACKING, "landlock,seccomp")
    sandbox = doctor._run("sandbox", doctor._CHECKS["sandbox"])
    assert not sandbox.ok
    assert "a child can open files, use TCP" in sandbox.detail
