"""Shell lines of shipped files, run with stand-ins for the commands that they call."""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def ends(command: Sequence[str], folder: Path, stand_ins: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run a command; its exit code, and the calls of the stand-ins, in order.

    Args:
        command: and its arguments.
        folder: empty; the stand-ins lie there, before /usr/bin in the search path.
        stand_ins: a line of shell for each command, after its call was noted.
    """
    run, log = _started(command, folder, stand_ins)
    return run.wait(), log.read_text().splitlines()


def ends_when_told(
    command: Sequence[str], folder: Path, stand_ins: Mapping[str, str], calls: int
) -> tuple[int, list[str]]:
    """As `ends`, where SIGTERM comes to the command alone once so many calls were made."""
    run, log = _started(command, folder, stand_ins)
    began = time.monotonic()
    while len(log.read_text().splitlines()) < calls:
        assert run.poll() is None, f"it ended with {run.returncode} before the signal"
        assert time.monotonic() - began < 60, f"only these calls were made: {log.read_text()}"
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    return run.wait(60), log.read_text().splitlines()


def _started(
    command: Sequence[str], folder: Path, stand_ins: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], Path]:
    log = folder / "called"
    log.write_text("")
    for name, line in stand_ins.items():
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n{line}\n')
        (folder / name).chmod(0o755)
    path = {"PATH": f"{folder}:/usr/bin:/bin"}
    return subprocess.Popen(list(command), env=path, stdin=subprocess.DEVNULL), log


def ends_with(folder: Path, codes: Sequence[int]) -> str:
    """A line of shell that ends with the first code, at the next call with the second, and so on."""
    left = folder / "codes"
    left.write_text("".join(f"{code}\n" for code in codes))
    return f'code=$(head -1 {left}); sed -i 1d {left}; exit "$code"'
