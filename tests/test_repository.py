"""What holds for the repository as a whole: its settings file, imports, locks, shipped files and wheel."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

from jobs.config import ScanSettings
from jobs.config_load import load_as
from jobs.config_template import template
from jobs.train_config import TrainSettings
from tests.media import moving_face, write_video

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Folders in which people have their checkouts. What is committed names none of them.
HOME = re.compile(r"(?<![\w.$}])/(?:home|root|Users|work|workspace|workspaces)/[\w.-]")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        check=False,  # the assertion below shows what was printed
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def locked(name: str) -> dict[str, str]:
    """Version by canonical name; fails for a requirement without a hash."""
    entries = re.split(r"\n(?=[a-zA-Z])", (ROOT / name).read_text())
    assert all("--hash=sha256:" in entry for entry in entries)
    pins = [Requirement(entry.split(" \\", 1)[0]) for entry in entries]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


@pytest.mark.parametrize(("command", "model"), [("scan", ScanSettings), ("train", TrainSettings)])
def test_the_shipped_settings_files_hold_every_key_with_its_default(
    command: str, model: type[BaseModel]
) -> None:
    file = ROOT / "configs" / f"{command}.yaml"
    assert list(yaml.safe_load(file.read_text())) == list(model.model_fields)
    assert load_as(model, [file]).settings == model()
    assert file.read_text() == template(command), f"run: python -m jobs.config_template {command} > {file}"


def test_the_command_line_starts_without_anything_heavy() -> None:
    code = (
        "import sys, jobs.cli; "
        "heavy = {'torch', 'torchvision', 'ray', 'cv2', 'pandas', 'duckdb', 'deltalake', 'av', 'dlib'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run(sys.executable, "-c", code) == "[]\n"


def test_imports_point_down() -> None:
    run(Path(sys.executable).with_name("lint-imports"), "--no-cache")


def test_every_shipped_file_is_in_the_manifest_with_its_sha256() -> None:
    manifest = json.loads((ROOT / "weights" / "manifest.json").read_text())
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "weights").iterdir()
        if path.suffix in {".onnx", ".safetensors"}
    }
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == present
    assert manifest["default"] in present


def test_nothing_committed_names_a_folder_of_the_machine_it_was_written_on() -> None:
    found = []
    for name in run("git", "ls-files", "-z").split("\0"):
        path = ROOT / name
        if name and path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            found += [f"{name}: {match[0]}" for match in HOME.finditer(text)]
    assert found == []


def test_the_locks_hold_what_the_project_asks_for() -> None:
    run_time, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    assert dev.items() >= run_time.items()
    assert "dlib" not in dev  # dlib-bin stands in for it
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["identities"]]:
        asked = Requirement(text)
        pin = run_time[canonicalize_name(asked.name)]
        assert asked.specifier.contains(pin), f"{asked} is locked as {pin}; run: make lock"


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version("deepfake-scan") == PROJECT["version"]
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_make_target_is_in_the_help() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert re.findall(r"^  make (\S+)", run("make", "help"), re.MULTILINE) == phony[1].split()


@pytest.mark.parametrize("target", ["soak", "bench"])
def test_a_bar_without_a_name_lists_the_names(target: str) -> None:
    script = f"$(call run_bar,{target})"
    done = subprocess.run(
        ["make", "-f", "Makefile", "--eval", f"bars:\n\t@{script}", "bars"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 2
    assert f"make {target} BAR=name, where name is one of:" in done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wheel")
    source = made / "source"  # setuptools writes into the folder that it builds from
    for folder in ("detector", "jobs", "weights"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", made, cwd=source)
    (built,) = made.glob("*.whl")
    return built


def test_a_wheel_holds_the_weights_their_licences_and_the_command(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {"manifest.json", *json.loads((ROOT / "weights" / "manifest.json").read_text())["files"]}
    assert names >= {f"weights/{name}" for name in shipped}
    assert names >= {
        "weights/LICENSE-face_detection_yunet",
        "detector/py.typed",
        "jobs/py.typed",
        "jobs/cli.py",
    }
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]
    (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert names >= {f"{info}/licenses/{name}" for name in ("LICENSE", "NOTICE")}
    commands = zipfile.ZipFile(wheel).read(f"{info}/entry_points.txt").decode()
    assert "deepfake-scan = jobs.cli:main" in commands


def test_a_wheel_scans_elsewhere_with_the_weights_that_it_brings(wheel: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(elsewhere)
    video = write_video(tmp_path / "face.mp4", moving_face(30))
    # -P and the path: the checkout that is installed in this environment must not be what runs.
    program = f"import sys; sys.path.insert(0, {str(elsewhere)!r}); from jobs.cli import main; main()"
    scan = ("scan", video, "--output", tmp_path / "out", "--address", "in-process", "--json")
    summary = json.loads(run(sys.executable, "-P", "-c", program, *scan, cwd=tmp_path))
    assert summary["status"] == {"scored": 1}
    assert summary["weights"] == json.loads((ROOT / "weights" / "manifest.json").read_text())["default"][:-12]
    where = run(sys.executable, "-P", "-c", program.replace("main()", "import jobs; print(jobs.__file__)"))
    assert where.startswith(str(elsewhere)), "the checkout ran, not the wheel"


def test_what_others_wrote_is_byte_for_byte_what_the_notice_names() -> None:
    named = re.findall(
        r"^(\S+\.js)\n.*?sha256 ([0-9a-f]{64})", (ROOT / "NOTICE").read_text(), re.MULTILINE | re.DOTALL
    )
    assert named, "the notice names no script"
    for path, digest in named:
        assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == digest, path
