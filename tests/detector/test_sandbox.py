"""Whatever happens in the child costs one video one row; nothing else is lost and nothing is left behind."""

import json
import os
import pkgutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from detector import faces, faults, sandbox_child
from detector.confinement import ATTEMPTS, TEST_LACKING, Walls
from detector.extraction import extract_clips
from detector.sandbox import DURATION_AT, TEST_FAULTS, Request, Sandbox, wall_limit_s
from detector.types import Extraction, ExtractOptions, Facts, Limits, Reason, Sampling
from tests.bombs import BOMBS
from tests.media import long_gop_clip, moving_face, write_video
from tests.waiting import wait_for

OPTIONS = ExtractOptions(sampling=Sampling(windows=1, frames=4))
# Tight where a fault runs into a limit: one second of CPU or wall time, an eighth of a gigabyte.
LIMITS = {
    "hang": Limits(wall_s=1),
    "spin": Limits(cpu_s=1),
    "leak": Limits(memory_bytes=128 << 20),
}
UNCONFINED = "landlock,seccomp"
REASONS = {
    "segfault": (Reason.DECODER_CRASH, "SIGSEGV"),
    "hang": (Reason.DECODE_TIMEOUT, "after 1 s"),
    "spin": (Reason.DECODE_TIMEOUT, "CPU time"),
    "leak": (Reason.DECODE_MEMORY, "memory"),
    "exit": (Reason.DECODER_CRASH, "no answer"),
    "garbage": (Reason.DECODER_CRASH, "garbage"),
    "huge_count": (Reason.DECODER_CRASH, "garbage"),
    "bad_text": (Reason.DECODER_CRASH, "garbage"),
    "deep": (Reason.DECODER_CRASH, "garbage"),
    "more_clips": (Reason.DECODER_CRASH, "do not fit"),
    "fork": (Reason.DECODER_CRASH, "code 9"),
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TEST_FAULTS, "1")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-children")
        with Sandbox() as made:
            yield made


@pytest.fixture(scope="module")
def open_sandbox() -> Iterator[Sandbox]:
    """One without walls, as where the kernel has none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TEST_FAULTS, "1")
        patch.setenv(TEST_LACKING, UNCONFINED)
        with Sandbox() as made:
            yield made


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One face, 1 s."""
    frames = moving_face(10, (320, 180), fps=10, face_px=90)
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", frames, fps=10)


@pytest.fixture(scope="module")
def expected(video: Path) -> Extraction:
    """What the video gives without a sandbox."""
    with video.open("rb") as file:
        return extract_clips(file, OPTIONS, faces.load("yunet"))


def extract(sandbox: Sandbox, path: Path, options: ExtractOptions = OPTIONS) -> Extraction:
    with path.open("rb") as file:
        return sandbox.extract(file, options)


def fault(folder: Path, name: str) -> Path:
    path = folder / f"{name}.mp4"
    path.write_bytes(faults.MARK + name.encode() + b"\n")
    return path


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """A process that runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Hanging:
    """A video that hangs in its own thread, so that the test can look at the processes."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.result: Extraction | None = None
        path = fault(folder, "hang")
        options = replace(OPTIONS, limits=Limits(wall_s=60))
        assert sandbox.helper_pid is not None
        self.helper = sandbox.helper_pid
        self._thread = threading.Thread(target=lambda: self._run(sandbox, path, options))
        self._thread.start()
        wait_for("the child of the hanging video", lambda: children(self.helper))
        (self.child,) = children(self.helper)

    def _run(self, sandbox: Sandbox, path: Path, options: ExtractOptions) -> None:
        self.result = extract(sandbox, path, options)

    def end(self) -> Facts:
        self._thread.join(30)
        assert self.result is not None, "the hanging video has no answer"
        return self.result.facts


# --- the same answer ------------------------------------------------------------------------------------


def test_the_sandbox_changes_nothing_about_the_answer(
    sandbox: Sandbox, video: Path, expected: Extraction
) -> None:
    got = extract(sandbox, video)

    assert got.facts == expected.facts
    assert len(got.clips) == 1
    assert np.array_equal(got.clips.pixels, expected.clips.pixels)
    assert np.array_equal(got.clips.mask, expected.clips.mask)
    assert got.cpu_s > 0


def test_a_refusal_comes_through_with_its_words(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("This is not a video.\n" * 20)
    facts = extract(sandbox, path).facts

    assert (facts.failure, facts.message) == (Reason.NOT_VIDEO, "this is text, not a video")


def test_each_video_gets_its_own_child_of_one_helper(sandbox: Sandbox, video: Path) -> None:
    helper = sandbox.helper_pid
    for _ in range(3):
        extract(sandbox, video)

    assert sandbox.helper_pid == helper
    assert helper is not None
    assert children(helper) == []


# --- faults ---------------------------------------------------------------------------------------------


def test_every_fault_has_its_test() -> None:
    assert set(faults._FAULTS) == {*REASONS, "environment"}


@pytest.mark.parametrize("name", REASONS)
def test_a_fault_costs_its_video_one_row_and_its_neighbours_nothing(
    sandbox: Sandbox, video: Path, expected: Extraction, tmp_path: Path, name: str
) -> None:
    reason, word = REASONS[name]
    helper = sandbox.helper_pid
    broken = extract(
        sandbox, fault(tmp_path, name), replace(OPTIONS, limits=LIMITS.get(name, OPTIONS.limits))
    )

    assert broken.facts.failure is reason, broken.facts.message
    assert word in broken.facts.message
    assert broken.facts.message.endswith("also in a second try")
    assert len(broken.clips) == 0
    assert sandbox.helper_pid == helper, "the helper did not survive"
    assert extract(sandbox, video).facts == expected.facts, "the next video got another answer"


def test_opening_a_file_has_little_time_and_decoding_has_more(sandbox: Sandbox, tmp_path: Path) -> None:
    limits = Limits(cpu_s=60, opening_cpu_s=1)
    BOMBS["100000-edits.mp4"].write(tmp_path / "edits.mp4")
    failed = extract(sandbox, tmp_path / "edits.mp4", replace(OPTIONS, limits=limits))
    assert failed.facts.failure is Reason.DECODE_TIMEOUT, failed.facts.message
    assert "opening the file was stopped after 1 s of CPU time" in failed.facts.message
    film = write_video(tmp_path / "long.mp4", moving_face(150, (1920, 1080), 25, face_px=300))
    closely = ExtractOptions(sampling=Sampling(windows=10, frames=15, spacing_s=0.04), limits=limits)
    took = extract(sandbox, film, closely)
    assert took.facts.failure is None, took.facts.message
    assert took.cpu_s > 1.2, "it was decoded too fast to say anything of limits"


def test_faults_run_nowhere_but_in_tests(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TEST_FAULTS, raising=False)
    with Sandbox() as plain:
        assert extract(plain, fault(tmp_path, "segfault")).facts.failure is Reason.NOT_VIDEO


def test_the_child_sees_no_environment_and_no_files_but_its_own(
    open_sandbox: Sandbox, tmp_path: Path
) -> None:
    seen = json.loads(extract(open_sandbox, fault(tmp_path, "environment")).facts.message)

    assert seen["environ"] == {}
    assert set(seen["started_with"]) <= {"LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    # three standard ones to nowhere, the video, the buffer twice (mmap keeps its own), the list itself
    assert seen["descriptors"] <= 7


# --- walls ----------------------------------------------------------------------------------------------


def test_a_child_can_open_nothing_reach_nobody_and_start_nothing(sandbox: Sandbox) -> None:
    isolation = sandbox.isolation

    assert isolation.possible == []
    assert isolation.complete, isolation.in_words()
    assert isolation.in_words() == f"limits, Landlock {isolation.landlock}, seccomp"


@pytest.mark.parametrize(
    ("lacking", "possible"),
    [
        ("landlock", []),
        ("seccomp", ["use UDP", "start processes"]),
        (UNCONFINED, list(ATTEMPTS)),
    ],
)
def test_what_a_kernel_without_walls_leaves_open_is_found_by_trying(
    lacking: str, possible: list[str]
) -> None:
    isolation = Walls(lacking).isolation()

    assert isolation.possible == possible
    assert not isolation.complete


def test_nothing_that_a_child_started_outlives_it_where_no_wall_kept_it_from_that(
    open_sandbox: Sandbox, tmp_path: Path
) -> None:
    helper = open_sandbox.helper_pid
    assert helper is not None
    broken = extract(open_sandbox, fault(tmp_path, "fork"))

    assert broken.facts.failure is Reason.DECODER_CRASH
    assert children(helper) == [], "a process of the child is left"
    assert open_sandbox.helper_pid == helper


def test_walls_change_nothing_about_the_answer(
    open_sandbox: Sandbox, video: Path, expected: Extraction
) -> None:
    assert extract(open_sandbox, video).facts == expected.facts


def test_no_module_of_pyav_is_left_to_be_imported_in_a_child() -> None:
    known = {"av.__main__", "av.datasets"}  # nothing that decodes
    there = {module.name for module in pkgutil.walk_packages(av.__path__, "av.")} - known
    words = "import sys, detector.sandbox_child; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", words], check=True, capture_output=True, text=True
    ).stdout.split()

    assert there - set(loaded) == set(), "a child would fail where a file needs these"


# --- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration_s", "limit_s"),
    [(0.0, 100), (10.0, 110), (150.0, 250), (7200.0, 300), (None, 300), (1e308, 300)],
)
def test_a_short_video_has_less_time_than_a_long_one(duration_s: float | None, limit_s: float) -> None:
    assert wall_limit_s(ExtractOptions(), duration_s) == limit_s


def test_who_sets_a_short_limit_gets_it() -> None:
    assert wall_limit_s(ExtractOptions(limits=Limits(wall_s=2)), 3600) == 2


@pytest.mark.parametrize("claim", [float("nan"), float("-inf"), -1.0])
def test_a_child_that_lies_about_the_duration_gets_no_more_time(claim: float) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(DURATION_AT) + struct.pack("<d", claim))
        file.flush()
        job = sandbox_child._Job(Request(ExtractOptions()), video=0, buffer=file.fileno())
        assert sandbox_child._limit_s(job) == wall_limit_s(ExtractOptions(), 0.0)


# --- processes ------------------------------------------------------------------------------------------


def test_a_helper_that_dies_between_videos_costs_nothing(
    sandbox: Sandbox, video: Path, expected: Extraction
) -> None:
    helper = sandbox.helper_pid
    assert helper is not None
    os.kill(helper, signal.SIGKILL)
    wait_for("the end of the helper", lambda: not alive(helper))

    assert extract(sandbox, video).facts == expected.facts
    assert sandbox.helper_pid != helper


def test_a_helper_that_dies_with_a_video_takes_its_child_along_and_another_tries_again(
    sandbox: Sandbox, video: Path, expected: Extraction, tmp_path: Path
) -> None:
    extract(sandbox, video)
    hanging = Hanging(sandbox, tmp_path)
    os.kill(hanging.helper, signal.SIGKILL)
    wait_for("the end of the child", lambda: not alive(hanging.child))
    wait_for("another helper", lambda: sandbox.helper_pid not in (None, hanging.helper))
    second = sandbox.helper_pid
    assert second is not None
    wait_for("the child of the second try", lambda: sandbox._control and children(second))
    os.kill(second, signal.SIGKILL)

    facts = hanging.end()
    assert facts.failure is Reason.DECODER_CRASH, "it was tried a third time"
    assert facts.message == "the helper of the decoding process died, also in a second try"
    assert extract(sandbox, video).facts == expected.facts


def test_a_child_that_was_killed_once_costs_nothing(
    sandbox: Sandbox, video: Path, expected: Extraction
) -> None:
    extract(sandbox, video)
    helper = sandbox.helper_pid
    assert helper is not None
    os.kill(helper, signal.SIGSTOP)
    got: list[Extraction] = []
    thread = threading.Thread(target=lambda: got.append(extract(sandbox, video)))
    thread.start()
    killer = threading.Thread(target=_kill_first_child, args=(helper,))
    killer.start()
    os.kill(helper, signal.SIGCONT)
    thread.join(60)
    killer.join(60)

    assert got, "the video has no answer"
    assert got[0].facts == expected.facts


def _kill_first_child(helper: int) -> None:
    wait_for("a child", lambda: children(helper))
    os.kill(children(helper)[0], signal.SIGKILL)


def test_closing_leaves_no_process_behind(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TEST_FAULTS, "1")
    sandbox = Sandbox()
    hanging = Hanging(sandbox, tmp_path)
    sandbox.close()

    hanging.end()
    wait_for("the end of helper and child", lambda: not alive(hanging.helper) and not alive(hanging.child))
    assert sandbox.helper_pid is None
    sandbox.close()


def test_a_sandbox_that_was_closed_starts_again(video: Path, expected: Extraction, sandbox: Sandbox) -> None:
    sandbox.close()

    assert extract(sandbox, video).facts == expected.facts


# --- memory ---------------------------------------------------------------------------------------------


def test_a_child_at_1080p_needs_at_most_300_mb_with_its_clips(sandbox: Sandbox, tmp_path: Path) -> None:
    path = long_gop_clip(tmp_path / "long.mp4", 3)
    extraction = extract(sandbox, path, ExtractOptions())

    assert len(extraction.clips) == 2
    assert 50e6 < extraction.peak_bytes <= 300e6, f"{extraction.peak_bytes / 1e6:.0f} MB"
