"""What the documentation says is so: its commands exist, its code runs, its files are there."""

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import typer

from detector.model import Model
from detector.types import Clips, Reason, Status, TrackReason, Verdict
from detector.weights import manifest, read, resolve
from jobs import duck
from jobs.cli import app
from jobs.config import ScanSettings, load
from jobs.fence import Parquet
from jobs.page import strings
from jobs.query import view
from jobs.scan import run
from jobs.schema import RESULTS, SCANS
from jobs.summary import Summary
from jobs.train_config import TrainSettings
from tests.media import no_face, write_video
from tests.seeded import seeded_weights

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    groups = {"": app} | {f"{group.name} ": group.typer_instance for group in app.registered_groups}
    return [
        prefix + (command.name or command.callback.__name__)  # type: ignore[union-attr]
        for prefix, group in groups.items()
        for command in group.registered_commands
    ]


@pytest.mark.parametrize("command", commands())
def test_every_command_stands_in_the_documentation(command: str) -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert re.search(rf"(deepfake-scan |`){re.escape(command)}\b", text), f"`{command}` is described nowhere"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to what is not there: {missing}"


def test_the_page_on_evidence_says_how_fine_the_heat_maps_are() -> None:
    text = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    said = re.search(r"It has (\w+) by \1 places in a crop \((\w+) by \2 with the ResNeXt\)", text)
    assert said, "docs/evidence.md does not say it"
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
    for name, word in zip(("efficientnet_lite0_lstm", "resnext_lstm"), said.groups(), strict=True):
        assert _map_side(Model(read(resolve(name)))) == words.index(word), name


def _map_side(model: Model) -> int:
    """Side of the maps of the last block, in places."""
    sides: list[int] = []
    model.last_block.register_forward_hook(lambda _, __, maps: sides.append(maps.shape[-1]))
    size = model.header.input.size
    model.score(Clips(np.zeros((1, 1, size, size, 3), np.uint8), np.ones((1, 1), np.bool_)))
    return sides[0]


def test_code_of_the_readme_reads_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert code, "the README shows no Python"
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "empty-room.mp4", no_face(25))
    seeded_weights(tmp_path / "seeded.safetensors")
    flags = {
        "inputs": [str(tmp_path / "videos")],
        "output": str(tmp_path / "results"),
        "weights": str(tmp_path / "seeded.safetensors"),
        "address": "in-process",
    }
    run(load(overrides=flags).settings, quiet=True)
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})  # noqa: S102  # running it is the test


def test_readme_stays_short() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").count("\n")
    assert lines <= 200, f"the README has {lines} lines"


TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
NEW_PAGES = [TROUBLESHOOTING, ROOT / "docs" / "privacy.md"]
# What stands for a value in a quoted message, and what joins the parts of one.
_JOINTS = re.compile(r"\.\.\.|: | · |[()]|(?<!\w)\d+(?!\w)")
_LEAST_LETTERS = 8
# Long options of other programs that the pages name.
_FOREIGN_OPTIONS = {"--gpus", "--shm-size"}
# Words with an underscore that are neither a setting nor a column, nor a value of one.
_OTHER_WORDS = {"pipeline_version", "scored_by", "ended_at"}


@cache
def written_texts() -> tuple[str, ...]:
    """Texts in the code of both packages, docstrings left out; one that goes over several lines is one."""
    found: list[str] = []
    for path in sorted([*ROOT.glob("jobs/*.py"), *ROOT.glob("detector/*.py")]):
        tree = ast.parse(path.read_text("utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        ]
    return tuple(found)


def unknown_parts(line: str) -> list[str]:
    """The fixed parts of a quoted message that no text of the code holds; of a line without any, the line."""
    parts = [part.strip() for part in _JOINTS.split(line.removeprefix("deepfake-scan: "))]
    parts = [part for part in parts if re.search(r"\w", part)]
    if max((sum(map(str.isalpha, part)) for part in parts), default=0) < _LEAST_LETTERS:
        return [line]
    return [part for part in parts if not _is_written(part) and not _is_written(part.replace(" ", "_"))]


def _is_written(part: str) -> bool:
    return any(part in text for text in written_texts())


def quoted_lines() -> list[str]:
    blocks = re.findall(r"```text\n(.*?)```", TROUBLESHOOTING.read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("line", quoted_lines())
def test_a_quoted_message_is_one_that_the_code_prints(line: str) -> None:
    assert not unknown_parts(line)


@pytest.mark.parametrize(
    "line",
    [
        "deepfake-scan: another scan holds the tables: scan ... on ... (process ...)",
        "failed: decode_memory: decoding needs more memory than permitted",
        "deepfake-scan: ...: ...",
    ],
)
def test_a_message_that_the_code_does_not_print_is_found_out(line: str) -> None:
    assert unknown_parts(line)


def code_of(page: Path) -> list[str]:
    """Pieces of code: each line of an unmarked block, each span between backticks."""
    text = page.read_text("utf-8")
    blocks = [block for kind, block in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL) if not kind]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`]+)`", prose)


def options_of(command: typer.core.TyperCommand) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


@cache
def command_options() -> dict[str, set[str]]:
    """Long options by command: `scan`, `query failed`."""
    found: dict[str, set[str]] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = {f"{name} {inner}": leaf for inner, leaf in getattr(command, "commands", {}).items()}
        found |= {full: options_of(leaf) for full, leaf in (below or {name: command}).items()}
    return found


@pytest.mark.parametrize("page", NEW_PAGES, ids=lambda page: page.name)
def test_commands_and_options_of_the_page_exist(page: Path) -> None:
    known, wrong = command_options(), []
    for code in code_of(page):
        options = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", code)) - _FOREIGN_OPTIONS
        words = code.removeprefix("deepfake-scan ").split()
        command = next((name for name in (" ".join(words[:2]), *words[:1]) if name in known), None)
        if code.startswith("deepfake-scan ") and command is None:
            wrong.append(code)
        allowed = known[command] if command else set().union(*known.values())
        wrong += [f"{option} in `{code}`" for option in options - allowed]
    assert not wrong, f"{page.name} names what does not exist: {wrong}"


@pytest.mark.parametrize("page", NEW_PAGES, ids=lambda page: page.name)
def test_settings_and_columns_of_the_page_exist(page: Path) -> None:
    settings = {*ScanSettings.model_fields, *TrainSettings.model_fields}
    enums = (Reason, Status, TrackReason, Verdict)
    known = settings | {str(value) for values in enums for value in values} | _OTHER_WORDS
    known |= {*RESULTS.names, *SCANS.names, *(field.name for field in fields(Summary))}
    known |= {name.removesuffix(".safetensors") for name in manifest()["files"]}
    code = code_of(page)
    words = {word for word in code if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", word)}
    assert not words - known, f"{page.name} names what does not exist: {sorted(words - known)}"
    for text in code:
        if match := re.fullmatch(r"([a-z_]+): (\S+)", text):
            load(overrides={match[1]: match[2]})


def test_questions_of_the_page_about_trouble_can_be_asked() -> None:
    questions = re.findall(r"```sql\n(.*?)```", TROUBLESHOOTING.read_text("utf-8"), re.DOTALL)
    assert questions
    with duck.connect() as connection:
        duck.register(connection, "results", Parquet([], RESULTS), RESULTS)
        for name in ("latest", "tracks"):
            connection.execute(view(name))
        for question in questions:
            connection.execute(question).fetchall()


def test_every_string_of_the_pages_is_used() -> None:
    sources = [*ROOT.glob("jobs/pages/*.j2"), *ROOT.glob("jobs/*.py"), *ROOT.glob("jobs/review/*.py")]
    sources += [ROOT / "jobs/pages/static/upload.js", ROOT / "jobs/pages/static/review.js"]
    text = "\n".join(path.read_text("utf-8") for path in sources)
    # These are looked up by a value: a verdict, a reason, a warning.
    by_value = {"verdict", "warning", "track_reason", "advice"}
    unused = [
        f"{table}.{name}"
        for table, names in strings().items()
        if table not in by_value
        for name in names
        if name not in strings()["verdict"]
        and not re.search(rf"""(\.|\[["']|get\("){re.escape(name)}\b""", text)
    ]
    assert not unused, f"nothing shows {unused}"
