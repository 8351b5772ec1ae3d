"""A scan as a job of a Ray cluster: looked over, uploaded and submitted; `jobs.follow` is what comes then.

Beyond what Ray's job client does: the upload is shown before it is sent, and what would not be there on the
cluster is refused, as is a cluster that takes anybody's code.
"""

from __future__ import annotations

import logging
import os
import shlex
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from detector.errors import SettingsError
from jobs.config_sources import ENVIRONMENT_PREFIX
from jobs.job_server import Say, authenticate, submitted
from jobs.local import local_path
from jobs.schema import printable
from jobs.units import rounded_size

if TYPE_CHECKING:
    from jobs.config import ScanSettings

_MOST_BYTES = 100 << 20  # of Ray's job server, which refuses more without saying why
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Upload:
    """A working directory as it travels: a ZIP without what .gitignore and .rayignore leave out."""

    path: Path
    size: int
    files: Sequence[tuple[str, int]]
    """Name and compressed size, bytes; the largest first."""

    def in_words(self) -> str:
        """Its size, and what most of it is."""
        largest = ", ".join(f"{name} {rounded_size(size)}" for name, size in self.files[:_SHOWN])
        return f"{len(self.files)} files, {rounded_size(self.size)}; the largest: {largest}"


def submit(
    words: Sequence[str],
    settings: ScanSettings,
    files: Sequence[Path],
    *,
    address: str,
    folder: Path,
    say: Say,
) -> str:
    """Hand a scan to a cluster, and return the id of its job.

    Args:
        words: of the command `scan`.
        settings: what they come to, here.
        files: with settings, that the words name.
        address: of the cluster's job server, as http://HOST:8265.
        folder: what the job finds as its working directory; names that are relative begin there.
        say: takes a line about what goes on.

    Raises:
        SettingsError: something that is needed would not be there, or the upload is too large.
        ClusterError: the cluster cannot be reached, takes anybody or not us.
    """
    with _packed(folder) as upload:
        say(f"upload: {upload.in_words()}")
        if found := [*misplaced(settings), *_missing(upload, settings, files, folder)]:
            raise SettingsError("\n".join(found))
        authenticate(address, insecure=settings.insecure, say=say)
        return submitted(address, entrypoint(as_there(words, folder), os.environ), upload.path, say)


def entrypoint(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """The shell line of a job: what was found right here would be another scan without our variables."""
    # Not by the runtime environment, in which Ray replaces what looks like a variable.
    settings = [f"{name}={environment[name]}" for name in environment if name.startswith(ENVIRONMENT_PREFIX)]
    scan = ["python", "-m", "jobs", "scan", "--address", "auto", *words]
    return shlex.join(["env", *settings, *scan] if settings else scan)


def as_there(words: Sequence[str], folder: Path) -> list[str]:
    """The words of `scan`, with absolute names of settings files in `folder` as the job finds them."""
    there: list[str] = []
    for number, word in enumerate(words):
        if word == "--":
            return [*there, *words[number:]]
        option = next((o for o in ("--config=", "-c") if word.startswith(o)), "")
        names_a_file = option or there[-1:] in (["--config"], ["-c"])
        there.append(option + _from(folder, word.removeprefix(option)) if names_a_file else word)
    return there


def _from(folder: Path, name: str) -> str:
    """An absolute name as one that begins in `folder`, where it lies there."""
    path = Path(name)
    place = path.parent.resolve() / path.name
    inside = path.is_absolute() and place.is_relative_to(folder.resolve())
    return str(place.relative_to(folder.resolve())) if inside else name


def misplaced(settings: ScanSettings) -> Iterator[str]:
    """Say what would be read from or written into the job's copy of the folder, which is gone after it."""
    named = [("inputs", name) for name in settings.inputs]
    named += [("output", settings.output or ""), ("metrics_file", settings.metrics_file or "")]
    for key, name in named:
        path = local_path(name)
        if path and not PurePath(path).is_absolute():
            places = "an absolute path" if key == "metrics_file" else "s3://... or an absolute path"
            yield (
                f"{key}: {printable(name)} is relative; a job takes {places} that all nodes see, such as "
                "that of a mount"
            )


@contextmanager
def _packed(folder: Path) -> Iterator[Upload]:
    # Ray's own packing, not part of its promised interface, so that what is shown is what is sent.
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    with tempfile.TemporaryDirectory(prefix="deepfake-scan-") as scratch:
        path = Path(scratch, "working-directory.zip")
        quiet = logging.getLogger(f"{__name__}.packing")
        quiet.setLevel(logging.CRITICAL)
        excludes = get_runtime_env_default_excludes()
        create_package(str(folder), path, include_gitignore=True, excludes=excludes, logger=quiet)
        with zipfile.ZipFile(path) as packed:
            sizes = [
                (entry.filename, entry.compress_size) for entry in packed.infolist() if not entry.is_dir()
            ]
        yield Upload(path, path.stat().st_size, sorted(sizes, key=lambda file: -file[1]))


def _missing(upload: Upload, settings: ScanSettings, files: Sequence[Path], folder: Path) -> Iterator[str]:
    """Say what would fail on the cluster, or fail there in words that help nobody."""
    if upload.size > _MOST_BYTES:
        yield (
            f"{printable(str(folder))} makes an upload of {rounded_size(upload.size)}, and job servers take "
            f"{rounded_size(_MOST_BYTES)}: leave something out in .rayignore"
        )
    there = {name for name, _ in upload.files}
    # Names of shipped weights, addresses and paths inside the image are left to the job itself.
    here = [name for name in (settings.weights, *settings.manifests) if not PurePath(name).is_absolute()]
    for name in [*map(str, files), *(name for name in here if (folder / name).is_file())]:
        if os.path.normpath(_from(folder, name)) not in there:
            yield (
                f"{printable(name)} is not part of the upload: it has to lie in {printable(str(folder))} by "
                "that very name, and .gitignore and .rayignore must not leave it out"
            )
