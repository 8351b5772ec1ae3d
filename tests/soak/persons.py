"""`make soak BAR=persons`: the persons that a dearer look finds are found, and few tracks show no face.

Every video of the shared data is extracted as a scan does it, and looked at once more with YuNet at three
sizes on every sampled frame (`tests/second_look.py`). What shows no face is in `tests/false_tracks.csv`, made
by looking at every scored track; it counts against the tracks, and not as a person to be found. A portrait,
drawn ones too, that is animated as a person is a face here: whether it is fake is what a scan is asked.
A scored track that neither the second look nor that list knows makes the bar fail: look at it, with
`ARGS="--sheets FOLDER"`, which writes pictures of those tracks, of missed persons, of the listed and the
unscored ones and of a sample of the rest.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detector import faces
from detector.sandbox import Sandbox
from detector.tracks import iou
from detector.types import ExtractOptions, FaceBox
from tests.second_look import (
    SAME_FACE,
    Picture,
    Seen,
    by_product,
    by_second_look,
    find_person,
    persons,
    same_face,
)
from tests.shared import shared_data_folder, why_missing
from tests.soak.report import write_report

FALSE_TRACKS = Path(__file__).resolve().parents[1] / "false_tracks.csv"
LEAST_FOUND = 0.98
MOST_FALSE = 0.02
_SAME_MOMENT_MS = 60
_ROWS, _COLUMNS = 8, 6


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of the list: something that is no face, in px of the displayed frame."""

    video: str
    t_ms: int
    box: FaceBox
    what: str


class Answers:
    """What both looks say of one video."""

    def __init__(self, name: str, product: list[Seen], reference: list[Seen], listed: list[Listed]) -> None:
        self.name, self.product, self.reference = name, product, reference
        self.scored = [one for one in product if one.reason is None]
        self.false = [(one, row) for row in listed if (one := _meant(row, self.scored)) is not None]
        false = {id(one) for one, _ in self.false}
        self.unknown = [one for one in self.scored if id(one) not in false and not self._confirmed(one)]
        no_face = {one.person for row in listed if (one := _meant(row, reference)) is not None}
        wanted = {person: boxes for person, boxes in persons(reference).items() if person not in no_face}
        found = persons(product)
        self.wanted = wanted
        self.missed = [person for person, boxes in wanted.items() if find_person(boxes, found) is None]

    def _confirmed(self, one: Seen) -> bool:
        return any(same_face(one, other) for other in self.reference)

    def covered(self) -> tuple[int, int]:
        """Boxes of the persons to be found, and those of them that a scored track covers."""
        found = [boxes for person in persons(self.product).values() for boxes in person.items()]
        total = hit = 0
        for boxes in self.wanted.values():
            total += len(boxes)
            hit += sum(any(t == u and iou(a, b) >= SAME_FACE for u, b in found) for t, a in boxes.items())
        return total, hit

    def about_missed(self) -> Iterator[str]:
        """A sentence on each missed person: where it is, and what the product says of it."""
        for person in self.missed:
            tracks = [one for one in self.reference if one.person == person and one.reason is None]
            said = {one.reason for one in self.product if any(same_face(one, other) for other in tracks)}
            why = ", ".join(sorted(reason or "scored as someone else" for reason in said)) or "not seen"
            yield (
                f"{self.name}: missed, {tracks[0].face_px:.0f} px from {min(tracks[0].boxes) / 1000:.2f} s, "
                f"{sum(len(one.boxes) for one in tracks)} frames: {why}"
            )


def main() -> int:
    """Run the bar; 0 if it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheets", type=Path, help="folder for pictures of tracks to look at")
    parser.add_argument("--sample", type=int, default=150, help="known scored tracks to show as well")
    asked = parser.parse_args()
    if missing := why_missing(shared_data_folder()):
        print(missing, file=sys.stderr)
        return 2
    answers = list(_answers(shared_data_folder() / "videos"))
    if asked.sheets:
        _write_sheets(asked.sheets, answers, asked.sample)
    return 0 if _report(answers) else 1


def _answers(videos: Path) -> Iterator[Answers]:
    """Of each video that holds a face by either look."""
    options, look = ExtractOptions(), faces.load("yunet")
    with Sandbox() as sandbox:
        for path in sorted(p for name in ("faces", "fake", "odd") for p in (videos / name).iterdir()):
            with path.open("rb") as file:
                facts = sandbox.extract(file, options).facts
            if facts.failure or facts.info is None:
                continue
            product = by_product(facts)
            reference = by_second_look(path, options, look, product)
            name = f"{path.parent.name}/{path.name}"
            rows = [row for row in _listed(facts.info.width, facts.info.height) if row.video == name]
            answer = Answers(name, product, reference, rows)
            if answer.scored or answer.wanted:
                print(f"{name}: {len(answer.scored)} scored, {len(answer.missed)} missed", file=sys.stderr)
                yield answer


def _listed(width: int, height: int) -> Iterator[Listed]:
    """The list as if every row were of a video of this size."""
    with FALSE_TRACKS.open(newline="") as file:
        for row in csv.DictReader(file):
            x, y, w, h = (float(row[name]) for name in "xywh")
            box = FaceBox(x * width, y * height, w * width, h * height, 1.0)
            yield Listed(row["video"], round(1000 * float(row["t_s"])), box, row["what"])


def _meant(row: Listed, tracks: Sequence[Seen]) -> Seen | None:
    """The track that a row of the list means: the one that overlaps it most at its moment."""

    def overlap(one: Seen) -> float:
        t = min(one.boxes, key=lambda t: abs(t - row.t_ms))
        return iou(one.boxes[t], row.box) if abs(t - row.t_ms) <= _SAME_MOMENT_MS else 0.0

    best = max(tracks, key=overlap, default=None)
    return best if best is not None and overlap(best) >= SAME_FACE else None


def _report(answers: Sequence[Answers]) -> bool:
    wanted, missed = (sum(len(getattr(a, name)) for a in answers) for name in ("wanted", "missed"))
    scored, false, unknown = (
        sum(len(getattr(a, name)) for a in answers) for name in ("scored", "false", "unknown")
    )
    boxes, covered = np.sum([a.covered() for a in answers], axis=0)
    reasons = Counter(one.reason for a in answers for one in a.product if one.reason is not None)
    found_share, false_share = 1 - missed / max(1, wanted), false / max(1, scored)
    holds = wanted > 0 and found_share >= LEAST_FOUND and false_share <= MOST_FALSE and not unknown
    folders = {name: [a for a in answers if a.name.startswith(name)] for name in ("faces/", "fake/", "odd/")}
    write_report(
        "persons",
        holds,
        {
            **{
                f"{name}: videos with a face, persons, missed": f"{len(part)}, "
                f"{sum(len(a.wanted) for a in part)}, {sum(len(a.missed) for a in part)}"
                for name, part in folders.items()
            },
            "persons of the second look": wanted,
            f"found by the product (at least {LEAST_FOUND:.0%})": f"{wanted - missed} = {found_share:.1%}",
            "their boxes that a scored track covers": f"{covered} of {boxes} = {covered / max(1, boxes):.1%}",
            "scored tracks": scored,
            f"that show no face (at most {MOST_FALSE:.0%})": f"{false} = {false_share:.1%}",
            "that nobody knows": unknown,
            **{f"tracks listed as {reason}": count for reason, count in sorted(reasons.items())},
        },
        [
            *(sentence for a in answers for sentence in a.about_missed()),
            *(
                f"{a.name}: no face, {one.face_px:.0f} px at {row.t_ms / 1000:.2f} s: {row.what}"
                for a in answers
                for one, row in a.false
            ),
            *(f"{a.name}: to be looked at: {_row(a.name, one)}" for a in answers for one in a.unknown),
        ],
    )
    return holds


def _row(name: str, one: Seen) -> str:
    """What to look for, and where."""
    t = sorted(one.boxes)[len(one.boxes) // 2]
    x, y, w, h = (round(value) for value in one.boxes[t].xywh)
    return f"window {one.window}, {t / 1000:.2f} s, {w} x {h} px at {x}, {y}"


def _write_sheets(folder: Path, answers: Sequence[Answers], sample: int) -> None:
    """Sheets of three pictures a track: unknown ones, missed persons, false ones, a sample of the others."""
    kinds: dict[str, list[tuple[str, Seen]]] = {"unknown": [], "missed": [], "false": [], "unscored": []}
    others: list[tuple[str, Seen]] = []
    for a in answers:
        special = [*a.unknown, *(one for one, _ in a.false)]
        kinds["unknown"] += [(a.name, one) for one in a.unknown]
        kinds["missed"] += [(a.name, one) for one in a.reference if one.person in a.missed and not one.reason]
        kinds["false"] += [(a.name, one) for one, _ in a.false]
        kinds["unscored"] += [(a.name, one) for one in a.product if one.reason is not None]
        others += [(a.name, one) for one in a.scored if not any(one is other for other in special)]
    chosen = np.random.default_rng(0).permutation(len(others))[:sample]
    kinds["sample"] = [others[index] for index in sorted(chosen)]
    folder.mkdir(parents=True, exist_ok=True)
    for kind, shown in kinds.items():
        tiles = [_tile(name, one) for name, one in shown]
        for start in range(0, len(tiles), _ROWS * _COLUMNS):
            part = tiles[start : start + _ROWS * _COLUMNS]
            part += [np.zeros_like(part[0])] * (-len(part) % _COLUMNS)
            rows = [np.hstack(part[i : i + _COLUMNS]) for i in range(0, len(part), _COLUMNS)]
            path = folder / f"{kind}-{start // (_ROWS * _COLUMNS)}.png"
            cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])
            print(path, file=sys.stderr)


def _tile(name: str, one: Seen) -> Picture:
    """Three moments of a track above its label; what is dark is lit up."""
    strip = np.zeros((132, 288, 3), np.uint8)
    for index, picture in enumerate(one.pictures):
        bright = 255 * (picture / 255) ** (0.5 if picture.mean() < 40 else 1.0)
        strip[:96, 96 * index : 96 * (index + 1)] = bright.astype(np.uint8)
    said = f"w{one.window} p{one.person} {one.face_px:.0f}px q{one.quality:.2f} n{len(one.boxes)}"
    for line, text in enumerate((name[-40:], f"{said} {one.reason or ''}")):
        cv2.putText(strip, text, (2, 110 + 16 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    return strip


if __name__ == "__main__":
    sys.exit(main())
