"""`evaluate` on crops and on videos: its figures are those of the scores that a scan writes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from detector.evaluation.conditions import CONDITIONS
from detector.model import Model
from detector.training.data import read_samples
from detector.training.finish import labels_of, logits_of
from detector.weights import read
from jobs import s3
from tests.jobs.conftest import Command
from tests.toy import make_toy_set

HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 40 crops with a tar beside it: 20 people, a real and a fake of each, two kinds of fakes."""
    path = tmp_path_factory.mktemp("crops") / "faces.csv"
    rng = np.random.default_rng(0)
    with tarfile.open(path.with_suffix(".tar"), "w") as tar, path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "group", "split", "manipulation", "face_px"])
        for number in range(40):
            person, fake = divmod(number, 2)
            picture = rng.integers(0, 160 + 60 * fake, (80, 80, 3), np.uint8)
            data = cv2.imencode(".png", picture)[1].tobytes()
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            kind = ("", HOSTILE if person % 2 else "swap")[fake]
            split = "val" if person < 5 else "test"
            rows.writerow([entry.name, fake, f"person {person}", split, kind, 40 + 3 * number])
    return path


def _evaluated(command: Command, *words: object) -> dict[str, Any]:
    done = command("evaluate", *words, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_figures_of_crops_are_those_of_their_scores(command: Command, crops: Path, seeded: Path) -> None:
    found = _evaluated(command, "--crops", crops, "--weights", seeded)
    samples = read_samples(crops)
    labels, logits = labels_of(samples), logits_of(Model(read(seeded)), samples)
    assert found["schema"] == 1
    assert found["unit"] == "frame"
    assert found["video"] is None
    assert found["frame"]["auc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-6)
    ap = average_precision_score(labels, logits)
    assert found["frame"]["average_precision"] == pytest.approx(ap, abs=1e-6)
    assert (found["frame"]["reals"], found["frame"]["fakes"], found["frame"]["groups"]) == (20, 20, 20)
    low, high = found["frame"]["intervals"]["auc"]
    assert low <= found["frame"]["auc"] <= high
    assert found["frame"]["tpr_at_fpr_0_1"] is None, "20 people say nothing of one false alarm in 1,000"
    assert found["outcomes"] == {"scored": 40}
    assert sum(found["frame"]["confusion"].values()) == 40
    assert found["weights"]["weights_id"] == read(seeded).weights_id


def test_every_condition_is_scored_and_held_against_the_same_crops(
    command: Command, crops: Path, seeded: Path
) -> None:
    found = _evaluated(command, "--crops", crops, "--weights", seeded, "--split", "test")
    assert [one["condition"] for one in found["robustness"]] == list(CONDITIONS)
    for one in found["robustness"]:
        assert one["items"] == 30
        assert one["auc_change"] == pytest.approx(one["auc"] - found["frame"]["auc"])
    assert any(one["auc_change"] for one in found["robustness"]), "nothing was changed at all"


def test_fakes_of_one_kind_are_held_against_all_reals(command: Command, crops: Path, seeded: Path) -> None:
    found = _evaluated(command, "--crops", crops, "--weights", seeded, "--no-robustness")
    slices = {(one["column"], one["value"]): one for one in found["slices"]}
    swap = slices["manipulation", "swap"]
    assert (swap["against"], swap["reals"], swap["fakes"]) == ("all reals", 20, 10)
    samples = [s for s in read_samples(crops) if dict(s.facets)["manipulation"] in ("", "swap")]
    logits = logits_of(Model(read(seeded)), samples)
    assert swap["auc"] == pytest.approx(roc_auc_score(labels_of(samples), logits), abs=1e-6)
    sizes = [one for one in found["slices"] if one["column"] == "face_px"]
    assert [one["reals"] + one["fakes"] for one in sizes] == [10, 10, 10, 10], "numbers come in four bins"
    assert found["robustness"] == []


def test_the_page_reads_without_script_and_network(
    command: Command, crops: Path, seeded: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = command("evaluate", "--crops", crops, "--weights", seeded, "--split", "val", "--page", page)
    assert done.code == 0, done.err
    assert "AUC" in done.out
    text = page.read_text()
    parsed = _Parsed()
    parsed.feed(text)
    assert parsed.tags.count("svg") == 3
    assert "script" not in parsed.tags, "a name from the CSV became a tag"
    assert parsed.links == [], f"the page asks for {parsed.links}"
    assert not re.search(r"url\((?!#)", text)
    assert "NaN" not in text
    assert "None" not in text
    for condition in CONDITIONS:
        assert condition in text


class _Parsed(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            v for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")
        ]


def test_videos_are_judged_as_a_scan_judges_them(command: Command, seeded: Path, tmp_path: Path) -> None:
    data = make_toy_set(tmp_path / "data", videos=6)
    (data / "fake" / "broken.mp4").write_bytes(b"\0" * 5000)
    scan = command("scan", data, "-o", tmp_path / "out", "--weights", seeded, "--address", "in-process")
    assert scan.code == 3, scan.err
    rows = json.loads(
        command("query", "sql", tmp_path / "out", "SELECT uri, logit FROM latest", "--json").out
    )
    by_name = {row["uri"].rsplit("/", 2)[1:][0] + row["uri"][-6:]: row["logit"] for row in rows}
    labels = [int(name.startswith("fake")) for name, logit in by_name.items() if logit is not None]
    logits = [logit for logit in by_name.values() if logit is not None]
    assert len(logits) == 6, "the toy videos show a face each"

    found = _evaluated(command, data, "--weights", seeded, "--address", "in-process", "--no-robustness")
    assert found["video"]["auc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-6)
    assert found["video"]["abstained_fakes"] == 1
    assert found["video"]["coverage"] == pytest.approx(6 / 7)
    worst = [(label, logit) for label, logit in zip(labels, logits, strict=True)] + [(1, -1e9)]
    as_wrong = roc_auc_score(*zip(*worst, strict=True))
    assert found["video"]["all"]["auc"] == pytest.approx(as_wrong, abs=1e-6), (
        "the broken fake counts as missed"
    )
    assert found["outcomes"]["scored"] == 6
    assert found["frame"]["fakes"] > found["video"]["fakes"], "every frame of every clip is an item"


def test_pipes_and_devices_are_no_pictures(command: Command, seeded: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "list.csv").write_text("uri,label,group\npipe.png,0,a\nzero.png,1,b\n")
    found = _evaluated(command, "--crops", tmp_path / "list.csv", "--weights", seeded)
    assert found["outcomes"] == {"unreadable": 2}
    assert found["frame"]["coverage"] == 0.0
    assert found["frame"]["auc"] is None, "what cannot be said is null, not missing"
    words = ("--crops", tmp_path / "list.csv", "--weights", seeded, "--page", tmp_path / "page.html")
    assert command("evaluate", *words).code == 0, "a set without a score is told, too"


def test_what_a_list_of_strangers_holds_does_not_reach_the_terminal(
    command: Command, crops: Path, seeded: Path
) -> None:
    lines = crops.read_text().splitlines()
    notes = ["note", *("\x1b[31m\u202eevil" if number % 2 else "z" * 500 for number in range(len(lines) - 1))]
    crops.with_name("hostile.tar").symlink_to(crops.with_suffix(".tar"))
    crops.with_name("hostile.csv").write_text("\n".join(map(",".join, zip(lines, notes, strict=True))))
    words = ("--crops", crops.with_name("hostile.csv"), "--weights", seeded, "--slice-by", "note")
    done = command("evaluate", *words, "--no-robustness")
    assert done.code == 0, done.err
    assert "note \\x1b[31m\\u202eevil: 20 real" in done.out
    assert "\x1b" not in done.out + done.err
    assert f"note {'z' * 100}: " in done.out, "a cell is cut where an array of its length would cost memory"


def test_few_people_give_figures_and_no_intervals(command: Command, crops: Path, seeded: Path) -> None:
    few = [line for line in crops.read_text().splitlines() if "split" in line or ",val," in line]
    crops.with_name("few.tar").symlink_to(crops.with_suffix(".tar"))
    crops.with_name("few.csv").write_text("\n".join(few))
    found = _evaluated(command, "--crops", crops.with_name("few.csv"), "--weights", seeded)["frame"]
    assert (found["reals"], found["fakes"]) == (5, 5)
    assert found["auc"] is not None
    assert found["intervals"]["auc"] is None, "five people of a class say too little of others"
    assert found["intervals"]["recall"] is not None, "shares of flagged items are exact for any number"


def test_videos_without_a_face_can_be_sliced_by_its_size(
    command: Command, seeded: Path, tmp_path: Path
) -> None:
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "broken.mp4").write_bytes(bytes(5000))
    words = ("--weights", seeded, "--address", "in-process", "--no-robustness", "--slice-by", "face_px")
    found = _evaluated(command, tmp_path, *words)
    assert (found["video"]["coverage"], found["slices"]) == (0.0, [])


@pytest.mark.xdist_group("s3")
def test_videos_may_lie_on_s3(command: Command, seeded: Path, tmp_path: Path, bucket: str) -> None:
    data = make_toy_set(tmp_path / "data", videos=4)
    lines = ["uri,label,group,manipulation"]
    for path in sorted(data.rglob("*.mp4")):
        key = f"{path.parent.name}/{path.name}"
        s3.client().upload_file(str(path), bucket, key)
        lines.append(f"s3://{bucket}/{key},{path.parent.name},{path.stem},{path.parent.name}")
    lines.append(f"s3://{bucket}/fake/gone.mp4,fake,gone,fake")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    found = _evaluated(
        command, tmp_path / "labels.csv", "--weights", seeded, "--address", "in-process", "--no-robustness"
    )
    assert found["outcomes"] == {"scored": 4, "not_found": 1}
    assert (found["video"]["fakes"], found["video"]["abstained_fakes"]) == (3, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "not given: labelled videos or --crops"),
        (("nowhere/",), "nowhere does not exist"),
        (("--crops", "CROPS", "--split", "train"), "no samples of split train"),
        (("--crops", "CROPS", "--slice-by", "colour"), "no column colour to slice by"),
        (("CROPS",), "is no video"),
        (("--crops", "CROPS", "--page", "nowhere/page.html"), "there is no folder nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_is_scored(
    command: Command,
    crops: Path,
    seeded: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr("jobs.evaluate.score_pictures", lambda *_: pytest.fail("scored for hours before"))
    told = [str(crops) if word == "CROPS" else word for word in words]
    done = command("evaluate", *told, "--weights", seeded, "--no-robustness")
    assert done.code == 2
    assert message in done.err
