from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer

from detector import pipeline
from detector.types import Reason
from detector.weights import read
from jobs import cli
from jobs.explain import explain, in_words
from jobs.table import ResultsTable
from tests.conftest import Scanned
from tests.jobs.conftest import Command
from tests.jobs.samples import sample_row
from tests.scans import read_rows, scan_settings, touch
from tests.soak.agreement import compare

# A terminal would clear the screen, colour what follows, turn the name around, ring, and go up a line.
HOSTILE = "\x1b[2J\x1b[31mred\u202egpj.\x07\x9b1A\u2066\u200b\r.mp4"
SPELLED_OUT = r"\x1b[2J\x1b[31mred\u202egpj.\x07\x9b1A\u2066\u200b\r.mp4"


def leaves(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from leaves(found, *path, name)
        else:
            yield (*path, name), found


def all_commands() -> list[Any]:
    found = leaves(typer.main.get_command(cli.app))
    return [pytest.param(path, leaf, id=" ".join(path)) for path, leaf in found]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A table in which every text that a stranger chooses is hostile."""
    with ResultsTable.create(str(tmp_path)).claim("s") as table:
        table.append(
            [
                sample_row(HOSTILE) | {"codec": HOSTILE},
                sample_row("b" + HOSTILE, Reason.CORRUPT) | {"message": HOSTILE},
            ]
        )
    return tmp_path


# --- help -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "found"), all_commands())
def test_every_command_has_help_and_an_example_that_parses(path: tuple[str, ...], found: Any) -> None:
    assert found.help
    assert all(parameter.help for parameter in found.params)
    (example,) = [line for line in found.help.splitlines() if line.startswith("Example: ")]
    words = shlex.split(example.removeprefix("Example: "))
    assert words[: len(path) + 1] == ["deepfake-scan", *path]
    with found.make_context(path[-1], words[len(path) + 1 :]):
        pass  # a wrong option or a missing argument would have raised


def test_no_command_shows_the_help_and_a_wrong_one_exits_2(command: Command) -> None:
    assert "Scan collections of videos" in command("--help").out
    bare = command()
    assert (bare.code, bare.out) == (2, "")
    assert "Scan collections of videos" in bare.err
    wrong = command("skan")
    assert (wrong.code, wrong.out) == (2, "")
    assert "skan" in wrong.err


# --- settings ---------------------------------------------------------------------------------------------


def test_all_mistakes_in_settings_are_said_at_once_before_anything_starts(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scan.yaml"
    file.write_text("profil: fast\nwindows: many\n")
    monkeypatch.setenv("DEEPFAKE_SCAN_LIMIT", "0")
    flags = ["--config", file, "--set", "devise=cpu", "--profile", "fats", "--max-failed", "200%"]
    done = command("scan", tmp_path, "--output", tmp_path / "out", *flags)
    assert (done.code, done.out) == (2, "")
    for mistake in (
        f"{file}:1: profil is not a key. Did you mean profile?",
        f"{file}:2: windows: ",
        "DEEPFAKE_SCAN_LIMIT",
        "devise is not a key. Did you mean device?",
        "'fats' is not one of fast, balanced, thorough. Did you mean fast?",
        "200%",
    ):
        assert mistake in done.err
    assert len(done.err.splitlines()) == 6
    assert not (tmp_path / "out").exists()


def test_what_is_not_given_is_asked_for(command: Command) -> None:
    done = command("scan")
    assert done.code == 2
    assert "not given: inputs and output" in done.err
    assert "deepfake-scan scan videos/ --output results/" in done.err


def test_errors_that_were_foreseen_are_a_sentence(command: Command, tmp_path: Path, seeded: Path) -> None:
    for words, code in (
        (["scan", tmp_path / "none", "-o", tmp_path / "out", "--weights", seeded], 2),
        (["scan", touch(tmp_path / "v", "a.mp4"), "-o", tmp_path / "out", "--weights", tmp_path / "none"], 2),
        (["query", "summary", tmp_path / "none"], 2),
        (["explain", tmp_path / "none.mp4", "--weights", seeded], 2),
        (["explain", tmp_path, "--weights", seeded], 2),
        (["weights", "verify", tmp_path / "none"], 2),
        (["config", "check", tmp_path / "none.yaml"], 2),
    ):
        done = command(*words)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith("deepfake-scan: ")
        assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


# --- JSON -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["query", "summary"],
        ["query", "flagged"],
        ["query", "failed"],
        ["query", "sql", "SELECT * FROM latest"],
        ["query", "sql", "SELECT 1 WHERE false"],
    ],
    ids=" ".join,
)
def test_queries_print_json_and_nothing_else(command: Command, hostile: Path, words: list[str]) -> None:
    done = command(*words[:2], hostile, *words[2:], "--json")
    assert (done.code, done.err) == (0, "")
    rows = json.loads(done.out)
    assert isinstance(rows, list)
    assert done.out.isascii()
    if words[1] == "failed":
        assert rows[0]["message"] == HOSTILE, "a program gets the text as it is"


def test_shipped_weights_and_settings_are_listed_as_json(command: Command) -> None:
    weights = json.loads(command("weights", "list", "--json").out)
    assert [file["default"] for file in weights].count(True) == 1
    shown = json.loads(command("config", "show", "--set", "limit=7", "--json").out)
    (limit,) = [setting for setting in shown if setting["key"] == "limit"]
    assert (limit["value"], "--set" in limit["origin"]) == (7, True)


def test_a_scan_prints_json_and_nothing_else(command: Command, tmp_path: Path, seeded: Path) -> None:
    videos = touch(tmp_path / "videos", "empty.mp4")
    words = [
        "scan",
        videos,
        "-o",
        tmp_path / "out",
        "--weights",
        seeded,
        "--set",
        "address=in-process",
        "--json",
    ]
    dry = command(*words, "--dry-run")
    assert (dry.code, dry.err, json.loads(dry.out)["to_do"]) == (0, "", 1)
    done = command(*words)
    assert (done.code, done.err) == (3, "")
    assert json.loads(done.out)["reasons"] == {"empty_file": 1}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == json.loads(done.out)


# --- names from strangers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["query", "summary"],
        ["query", "flagged"],
        ["query", "failed"],
        ["query", "sql", "SELECT uri, codec, message FROM latest"],
        ["query", "sql", f'SELECT uri AS "{HOSTILE}" FROM latest'],  # noqa: S608
    ],
    ids=["summary", "flagged", "failed", "sql", "column"],
)
def test_a_hostile_name_is_spelled_out(command: Command, hostile: Path, words: list[str]) -> None:
    done = command(*words[:2], hostile, *words[2:])
    assert done.code == 0
    assert SPELLED_OUT in done.out
    assert all(c.isprintable() or c == "\n" for c in done.out)


def test_a_hostile_name_in_an_error_is_spelled_out(command: Command, hostile: Path, seeded: Path) -> None:
    for words in (
        ["scan", hostile / HOSTILE, "-o", hostile / "out", "--weights", seeded],
        ["explain", hostile / HOSTILE, "--weights", seeded],
        ["query", "summary", hostile / HOSTILE],
        ["query", "sql", hostile, f'SELECT "{HOSTILE}" FROM latest'],  # noqa: S608
        ["weights", "verify", hostile / HOSTILE],
    ):
        done = command(*words)
        assert done.code == 2
        assert all(c.isprintable() or c == "\n" for c in done.err), words[0]


# --- explain ----------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("scans")
@pytest.mark.parametrize("name", ["two-faces.mp4", "half.mp4", "face-too-small.mp4", "empty.mp4"])
def test_explain_gives_the_row_of_the_scan(scanned: Scanned, seeded: Path, name: str) -> None:
    (row,) = [row for row in read_rows(scanned.output) if row["uri"].endswith(f"/{name}")]
    settings = scan_settings(scanned.videos, scanned.output, seeded)
    found, _ = explain(str(scanned.videos / name), settings, crops=None, sandboxed=True)
    assert found.keys() == row.keys()
    different, distance = compare(row, found)
    assert different == []
    assert distance < 1e-5
    assert found["settings_id"] == row["settings_id"]


@pytest.mark.xdist_group("scans")
def test_explain_writes_the_crops_that_were_scored_a_sheet_per_person(
    command: Command, scanned: Scanned, seeded: Path, tmp_path: Path
) -> None:
    video = scanned.videos / "two-faces.mp4"
    done = command("explain", video, "--weights", seeded, "--crops", tmp_path / "crops", "--json")
    assert done.code == 0
    answer = json.loads(done.out)
    persons = [person["person_id"] for person in answer["persons"]]
    sheets = [tmp_path / "crops" / f"{answer['video_id']}-person-{person}.png" for person in persons]
    assert len(sheets) == 2
    assert sorted((tmp_path / "crops").iterdir()) == sorted(sheets)
    assert done.err.split("\n")[:-1] == [f"crops: {sheet}" for sheet in sheets]
    assert (tmp_path / "crops").stat().st_mode & 0o077 == 0, "faces are for the user alone"

    options = scan_settings(video, tmp_path, seeded).extract_options(read(seeded).header)
    with video.open("rb") as file:
        extraction = pipeline.extract(file, options, None)
    for person, path in zip(persons, sheets, strict=True):
        clips = [t.clip for t in extraction.facts.tracks if t.person_id == person and t.clip is not None]
        sheet = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        size, frames = options.crop.size, options.sampling.frames
        assert sheet.shape == (len(clips) * size, frames * size, 3)
        for row, clip in enumerate(clips):
            for frame in range(frames):
                shown = sheet[row * size :, frame * size :][:size, :size]
                np.testing.assert_array_equal(shown, extraction.clips.pixels[clip, frame])


@pytest.mark.xdist_group("scans")
def test_explain_speaks_in_words(command: Command, scanned: Scanned, seeded: Path) -> None:
    scored = command("explain", scanned.videos / "face 1, José.mp4", "--weights", seeded)
    assert scored.code == 0
    assert "face 1, José.mp4\n  h264 in mov, 320 x 240, 1.2 s; 1 window looked at" in scored.out
    assert "p_fake 0." in scored.out
    failed = command("explain", scanned.videos / "text.mp4", "--weights", seeded, "--no-sandbox")
    assert failed.code == 3
    assert "failed: not_video: this is text, not a video" in failed.out


@pytest.mark.parametrize(
    ("complete", "warnings", "said"),
    [
        (
            False,
            ["truncated", "damaged_frames"],
            "not complete: a part is missing or damaged (truncated, damaged",
        ),
        (False, [], "not complete: a part is missing or damaged"),
        (None, [], "it cannot be known whether all of it is there"),
        (True, ["resolution_changed"], "warning: resolution changed"),
    ],
)
def test_explain_says_what_is_missing_before_it_says_what_it_thinks(
    complete: bool | None, warnings: list[str], said: str
) -> None:
    lines = in_words(sample_row("a.mp4") | {"complete": complete, "warnings": warnings}).splitlines()
    assert lines[2].strip().startswith(said), lines
    assert "p_fake" in lines[3]


@pytest.mark.parametrize("level", ["none", "crop"])
def test_explain_says_when_thresholds_were_never_measured(level: str) -> None:
    assert ("never measured" in in_words(sample_row() | {"threshold_level": level})) is (level == "none")


def test_a_gpu_that_is_asked_for_and_not_there_is_said_so(
    command: Command, scanned: Scanned, seeded: Path, tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    wanted = ["--weights", seeded, "--set", "device=cuda"]
    for words in (
        ["explain", scanned.videos / "face-2.mp4"],
        ["scan", scanned.videos, "--output", tmp_path / "out", "--address", "in-process"],
    ):
        done = command(*words, *wanted)
        assert done.code == 2
        assert "PyTorch finds no GPU" in done.err
