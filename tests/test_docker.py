"""The Dockerfiles install what is locked, run as no one in particular, and name the terms of an image."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs" / "docker").glob("Dockerfile.*"))
# Of the libraries that FFmpeg can be built with, those under the GPL.
GPL = {"libx264", "libx265", "libxvidcore", "libxavs", "libxavs2", "libdavs2", "libvidstab", "librubberband"}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix[1:])


def instructions(path: Path) -> list[tuple[str, str]]:
    """What a Dockerfile does, one instruction an entry."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(" ", 1) for line in joined.splitlines() if line.strip()]
    return [(name, rest) for name, rest in pairs]


def of_kind(path: Path, name: str) -> list[str]:
    return [rest for kind, rest in instructions(path) if kind == name]


def commands(path: Path) -> list[str]:
    """The single commands of its RUN lines."""
    return [command.strip() for run in of_kind(path, "RUN") for command in run.split("&&")]


def lint(text: str) -> list[str]:
    """The rules of hadolint that a Dockerfile breaks."""
    tool = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [str(tool), "--format", "json", "--failure-threshold", "style", "-"],
        input=text,
        capture_output=True,
        check=False,
        text=True,
    )
    broken = [found["code"] for found in json.loads(done.stdout)]
    assert done.returncode == (1 if broken else 0), done.stderr
    return broken


def test_there_is_one_with_cuda_and_one_without() -> None:
    assert [path.suffix for path in FILES] == [".cpu", ".gpu"]


@every_file
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    text = path.read_text()
    assert lint(text) == []
    assert "DL3002" in lint(text.replace("USER 10001:10001", "USER root"))  # it does look
    assert lint(text.replace("# hadolint ignore=DL3008\n", "")) == ["DL3008"]


@every_file
def test_the_image_runs_as_the_user_whom_kubernetes_expects(path: Path) -> None:
    assert of_kind(path, "USER") == ["10001:10001"]
    assert [name for name, _ in instructions(path)].index("USER") > len(instructions(path)) - 4
    job = yaml.safe_load((ROOT / "configs" / "kubernetes" / "rayjob.yaml").read_text())
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 10001
    [home] = re.findall(r"HOME=(\S+)", path.read_text())
    assert home in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert any(
        f"useradd --uid 10001 --user-group --home-dir {home} " in command for command in commands(path)
    )


@every_file
def test_bases_are_named_exactly(path: Path) -> None:
    bases = {base.split()[0] for base in of_kind(path, "FROM")}
    [base] = bases  # both stages: the environment points to the Python that it was made with
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    minor = re.match(r"python:(3\.\d+)", base)
    assert minor
    assert f"/lib/python{minor[1]}/" in path.read_text()
    assert f"--python-version {minor[1]} " in (ROOT / "Makefile").read_text()


@every_file
def test_nothing_is_installed_that_is_not_locked(path: Path) -> None:
    installs = [command for command in commands(path) if command.startswith("pip ")]
    assert all(command.startswith("pip install --no-deps ") for command in installs)
    without_hashes = [command for command in installs if "--require-hashes" not in command]
    assert without_hashes.pop() == "pip install --no-deps --no-build-isolation ."
    if path.suffix == ".cpu":
        assert without_hashes == [
            "pip install --no-deps --index-url https://download.pytorch.org/whl/cpu -r torch.txt"
        ]
    else:
        assert without_hashes == []
        assert installs[1].endswith("-r requirements.lock")


def test_the_two_differ_in_the_installing_step_alone() -> None:
    cpu, gpu = (instructions(path) for path in FILES)
    different = [(one, other) for one, other in zip(cpu, gpu, strict=True) if one != other]
    [((_, one), (_, other))] = different
    assert "-r setuptools.lock" in one
    assert "-r setuptools.lock" in other


def written(path: Path, folder: Path) -> dict[str, str]:
    """The lists that the installing step writes for pip, by name."""
    shutil.copy(ROOT / "requirements.lock", folder)
    for command in commands(path):
        if re.match(r"(awk|sed) ", command):
            subprocess.run(["/bin/bash", "-c", command], check=True, cwd=folder)
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_without_cuda_everything_else_is_installed_by_hash(tmp_path: Path) -> None:
    lists = written(FILES[0], tmp_path)
    names = {name: re.findall(r"^([\w.-]+)==", text, re.MULTILINE) for name, text in lists.items()}
    assert names["setuptools.lock"] == ["setuptools"]
    left_out = set(names["requirements.lock"]) - set(names["cpu.lock"])
    assert {"torch", "torchvision", "triton"} < left_out
    assert all(re.match(r"torch|triton|nvidia-|cuda-", name) for name in left_out)
    assert names["torch.txt"] == ["torch", "torchvision"]
    entries = re.split(r"\n(?=\w)", lists["cpu.lock"].strip())
    assert len(entries) == len(names["cpu.lock"])
    assert all("--hash=sha256:" in entry for entry in entries)
    # One way of leaving out: the Makefile's.
    program = re.compile(r"awk ('/\^\[a-z\]/ \{ skip = .*?')")
    [ours] = program.findall(FILES[0].read_text())
    assert program.findall((ROOT / "Makefile").read_text()) == [ours]


def test_with_cuda_the_lock_is_installed_as_it_is(tmp_path: Path) -> None:
    assert written(FILES[1], tmp_path).keys() == {"requirements.lock", "setuptools.lock"}


@every_file
def test_a_shipped_file_that_is_not_the_manifests_ends_the_build(path: Path, tmp_path: Path) -> None:
    [check] = [run.split(" && ")[0] for run in of_kind(path, "RUN") if "sha256sum" in run]
    content = b"weights"
    (tmp_path / "one.onnx").write_bytes(content)
    manifest = {"files": {"one.onnx": {"sha256": hashlib.sha256(content).hexdigest()}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shell = ["/bin/bash", "-o", "pipefail", "-c", check.replace("python", sys.executable, 1)]
    assert of_kind(path, "SHELL") == ['["/bin/bash", "-o", "pipefail", "-c"]']
    assert subprocess.run(shell, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "one.onnx").write_bytes(b"other weights")
    assert subprocess.run(shell, cwd=tmp_path, check=False).returncode != 0
    (tmp_path / "one.onnx").unlink()
    assert subprocess.run(shell, cwd=tmp_path, check=False).returncode != 0


@every_file
def test_the_label_names_the_codecs_under_the_gpl_that_pyav_brings(path: Path) -> None:
    spec = find_spec("av")
    assert spec
    assert spec.origin
    libraries = Path(spec.origin).parents[1] / "av.libs"
    inside = {library.name.split("-")[0] for library in libraries.iterdir()} & GPL
    [label] = re.findall(r'gpl-codecs="([^"]+)"', " ".join(of_kind(path, "LABEL")))
    assert set(label.split()) == inside
    assert "GPL-2.0-or-later" in " ".join(of_kind(path, "LABEL"))
    notice = (ROOT / "NOTICE").read_text()
    assert all(codec in notice for codec in inside)


@every_file
def test_what_is_copied_passes_the_ignore_list_and_nothing_else_does(path: Path) -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    first, *rest = lines
    assert first == "*"
    let_through = {line[1:] for line in rest if line.startswith("!")}
    copied = {word for copy in of_kind(path, "COPY") if "--from" not in copy for word in copy.split()[:-1]}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)
    assert "**/__pycache__" in rest
