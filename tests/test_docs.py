"""What the documentation says is so: its commands exist, its code runs, its files are there."""

import re
from pathlib import Path

import pytest

from jobs.cli import app
from jobs.config import load
from jobs.scan import run
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
