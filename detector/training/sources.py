"""Data sets as they lie on disk, as lists of samples: CSV, plain folders, DFDC, FaceForensics++."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from detector.errors import InputError
from detector.training.data import Sample, read_samples

_COLUMNS = ("uri", "label", "group", "split", "pair", "donor", "clip", "reach")
_CLASSES = {"real": 0, "fake": 1}
_HIDDEN = "."
_COMPRESSIONS = ("c23", "raw", "c40")


def find(path: Path) -> list[Sample]:
    """Samples of a data set of any form that is known: a CSV, or a folder that is told by what lies in it.

    Raises:
        InputError: It has no known form, or not what that form needs.
    """
    if path.is_file():
        return read_samples(path)
    if not path.is_dir():
        raise InputError(f"{path} does not exist", hint="Name a CSV file or the folder of a data set.")
    if any((path / name).is_dir() for name in _CLASSES):
        return plain_folders(path)
    if (path / "original_sequences").is_dir():
        held = [c for c in _COMPRESSIONS if any((path / "original_sequences").glob(f"*/{c}/videos"))]
        return faceforensics(path, held[0] if held else _COMPRESSIONS[0])
    if any(path.rglob("metadata.json")):
        return dfdc(path)
    raise InputError(
        f"{path}: not a data set of a form that is known",
        hint="It has to hold real/ and fake/, or original_sequences/ and manipulated_sequences/ of "
        "FaceForensics++, or metadata.json of DFDC; or name a CSV with the columns uri,label,group.",
    )


def plain_folders(root: Path) -> list[Sample]:
    """Samples of `root/real/**` and `root/fake/**`.

    Nothing is known of the people: a file's first folder below the class is its group (`real/anna/1.mp4`), or
    the file itself where it lies directly in `real` or `fake`.

    Raises:
        InputError: One of the two folders is missing or empty.
    """
    samples = [
        Sample(str(file), label, group := _group(file.relative_to(root / name)), pair=group)
        for name, label in _CLASSES.items()
        for file in _files(root / name)
    ]
    missing = [name for name, label in _CLASSES.items() if label not in {sample.label for sample in samples}]
    if missing:
        raise InputError(f"{root}: no files in {' and '.join(f'{name}/' for name in missing)}")
    return samples


def dfdc(root: Path) -> list[Sample]:
    """Samples of every `metadata.json` of the Deepfake Detection Challenge at or below a folder.

    The real video behind a fake is its group and pair; the person put in is not known. Files that the lists
    name but that are not there are left out.

    Raises:
        InputError: No list, or one of another form.
    """
    lists = sorted(root.rglob("metadata.json"))
    if not lists:
        raise InputError(f"{root}: no metadata.json, which each part of DFDC has")
    return [sample for path in lists for sample in _dfdc_part(path)]


def _dfdc_part(path: Path) -> Iterable[Sample]:
    try:
        content: Any = json.loads(path.read_text())
        entries = [(name, entry["label"].lower(), entry.get("original")) for name, entry in content.items()]
        rows = [(path.parent / name, _CLASSES[label], original) for name, label, original in entries]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a list of DFDC: {error!r}") from error
    for file, label, original in rows:
        if file.is_file():
            group = Path(original or file.name).stem
            yield Sample(str(file), label, group, pair=group)


def faceforensics(root: Path, compression: str = "c23") -> list[Sample]:
    """Samples of FaceForensics++ as its download script leaves it.

    `manipulated_sequences/METHOD/c23/videos/033_097.mp4` shows 033 with the face of 097; the real behind it
    is `original_sequences/*/c23/videos/033.mp4`. Videos of actors add a scene: `28_06__walking__X.mp4` and
    `28__walking.mp4`.

    Args:
        root: Holds the two folders.
        compression: `raw`, `c23` or `c40`.

    Raises:
        InputError: There are no originals.
    """
    originals = [
        Sample(str(file), 0, _person(file.stem)[0], pair=_pair(file.stem))
        for file in _videos(root / "original_sequences", compression)
    ]
    if not originals:
        raise InputError(f"{root}: no original_sequences/*/{compression}/videos")
    fakes = [
        Sample(
            str(file),
            1,
            _person(file.stem)[0],
            pair=_pair(file.stem),
            donor=_person(file.stem)[1],
            facets=(("manipulation", file.parents[2].name),),
        )
        for file in _videos(root / "manipulated_sequences", compression)
    ]
    return originals + fakes


def _videos(folder: Path, compression: str) -> list[Path]:
    return sorted(folder.glob(f"*/{compression}/videos/*.mp4"))


def _person(stem: str) -> tuple[str, str]:
    """Person on view and person put in; the second is empty for a real."""
    shown, _, donor = stem.partition("__")[0].partition("_")
    actor = "actor" if "__" in stem else ""
    return actor + shown, actor + donor if donor else ""


def _pair(stem: str) -> str:
    """The name of the real behind a video."""
    people, _, rest = stem.partition("__")
    scene = rest.partition("__")[0]
    shown = people.partition("_")[0]
    return f"{shown}__{scene}" if scene else shown


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(_HIDDEN))


def _group(relative: Path) -> str:
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Writes a CSV that `read_samples` reads; URIs below its folder are written relative to it."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for sample in samples:
            uri = Path(sample.uri)
            relative = uri.relative_to(path.parent) if uri.is_relative_to(path.parent) else uri
            writer.writerow([relative, *(getattr(sample, column) for column in _COLUMNS[1:])])
