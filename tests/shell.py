"""Shell lines of shipped files, run with stand-ins for the commands that they call."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def ends(command: Sequence[str], folder: Path, stand_ins: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run a command; its exit code, and the calls of the stand-ins, in order.

    Args:
        command: and its arguments.
        folder: empty; the stand-ins lie there, before /usr/bin in the search path.
        stand_ins: a line of shell for each command, after its call was noted.
    """
    log = folder / "called"
    log.write_text("")
    for name, line in stand_ins.items():
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n{line}\n')
        (folder / name).chmod(0o755)
    path = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(list(command), check=False, env=path, stdin=subprocess.DEVNULL)
    return done.returncode, log.read_text().splitlines()


def ends_with(folder: Path, codes: Sequence[int]) -> str:
    """A line of shell that ends with the first code, at the next call with the second, and so on."""
    left = folder / "codes"
    left.write_text("".join(f"{code}\n" for code in codes))
    return f'code=$(head -1 {left}); sed -i 1d {left}; exit "$code"'
