"""`deepfake-scan report`: pages of evidence, and the page of a night that links to them.

DIR/index.html               the scan: `--scan`
DIR/<video_id>.html          the evidence of one video
DIR/manifest.sha256          with `--zip`, inside DIR.zip: what `sha256sum --check` takes
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from detector.errors import InputError
from jobs import night, night_page, query
from jobs.equipment import Equipment
from jobs.evidence import Examiner
from jobs.evidence_page import page
from jobs.files import make_folder, write_whole
from jobs.local import scheme_of
from jobs.policies import read
from jobs.schema import printable

INDEX, MANIFEST = "index.html", "manifest.sha256"
_FLAGGED_KEYS = """
SELECT video_id FROM today WHERE verdict_today = 'flagged' ORDER BY p_fake_today DESC, uri LIMIT $limit
"""
# Zip knows no earlier time, and none at all would make each archive of the same pages another one.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which pages are wanted: of videos by key, of all that are flagged, of a scan and its flagged ones.

    `limit` is that of flagged videos; `weights` and `policy` are as for an `Examiner`.
    """

    keys: Sequence[str] = ()
    flagged: bool = False
    scan: str | None = None
    limit: int = 100
    clear: bool = False
    pack: bool = False
    weights: str | None = None
    policy: str | None = None
    sandboxed: bool = True


@dataclass(frozen=True, slots=True)
class Written:
    """Files that were written, and videos whose source was gone, changed, or came out otherwise."""

    files: Sequence[Path]
    doubts: Sequence[str]


def write(output: str, folder: Path, wish: Wish, say: Callable[[str], None] = lambda _: None) -> Written:
    """Write pages into a folder; what it held under the same names is replaced.

    Raises:
        InputError: a key or scan is not in the table, or pages must not lie there.
        StorageError: the table cannot be read, or the folder cannot be written.
    """
    folder = _checked(folder, output)
    given = read(wish.policy) if wish.policy else None
    connection = query.connect(output, given)
    looked = night.look(connection, wish.scan) if wish.scan else None
    with Equipment(sandboxed=wish.sandboxed) as equipment:
        examiner = Examiner(connection, equipment, weights=wish.weights, policy=given)
        keys = _keys(connection, wish, [video.video_id for video in looked.flagged] if looked else [])
        rows = {row["video_id"]: row for row in map(examiner.find, keys)}
        make_folder(folder)
        files, doubts = [], []
        for number, row in enumerate(rows.values(), 1):
            say(f"{number:,} of {len(rows):,}: {printable(row['uri'])}")
            evidence = examiner.examine(row)
            files.append(folder / f"{row['video_id']}.html")
            write_whole(files[-1], page(evidence, clear=wish.clear, index=INDEX if looked else None))
            if evidence.again is None or evidence.agrees is False:
                doubts.append(row["uri"])
    if looked:
        files.insert(0, folder / INDEX)
        write_whole(files[0], night_page.page(looked, {video_id: f"{video_id}.html" for video_id in rows}))
    return Written([*files, *([_packed(folder, files)] if wish.pack else [])], doubts)


def _checked(folder: Path, output: str) -> Path:
    """The folder, absolute.

    Raises:
        InputError: it is none on this machine, or lies in that of the table.
    """
    where = printable(str(folder))
    if folder.parts[:1] and folder.parts[0].endswith(":"):  # of s3:// a path leaves s3:/
        raise InputError(f"--to {where}: pages are written to a folder of this machine", hint="Name one.")
    absolute = folder.expanduser().resolve()
    inside = next((one for one in (absolute, *absolute.parents) if one.exists() and not one.is_dir()), None)
    if inside is not None:
        raise InputError(f"--to {where}: {printable(str(inside))} is a file", hint="Name a folder.")
    if scheme_of(output) is None and absolute.is_relative_to(Path(output).expanduser().resolve()):
        raise InputError(
            f"--to {where}: that is the folder of the table, whose readers want no pages with faces",
            hint="Name a folder beside it.",
        )
    return absolute


def _keys(connection: duckdb.DuckDBPyConnection, wish: Wish, of_scan: Iterable[str]) -> list[str]:
    """Keys of the videos that get a page, in order, each once."""
    keys = [*wish.keys, *list(of_scan)[: wish.limit]]
    if wish.flagged:
        found: list[tuple[Any, ...]] = connection.execute(_FLAGGED_KEYS, {"limit": wish.limit}).fetchall()
        keys += [video_id for (video_id,) in found]
        if not keys and wish.limit:
            raise InputError(
                "no video is flagged by the thresholds of today",
                hint="`--video KEY` writes the page of any video, `--scan latest` that of the scan.",
            )
    return list(dict.fromkeys(keys))


def _packed(folder: Path, files: Sequence[Path]) -> Path:
    """The files as one archive, with their hashes."""
    path = folder.with_name(f"{folder.name}.zip")
    contents = {file.name: file.read_bytes() for file in files}
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items()]
    contents[MANIFEST] = "".join(lines).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), data, zipfile.ZIP_DEFLATED)
    write_whole(path, packed.getvalue())
    return path
