"""The user's way, as a program: a folder of videos, one command, stopped and called again, then a scan."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scans import read_rows
from tests.toy import make_toy_set

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

OPTIONS = ["--images", "320", "--set", "validation=40%", "--set", "clips=20", "--set", "validate_every=5"]


@pytest.fixture(scope="module")
def toy_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_set(tmp_path_factory.mktemp("toy"))


def _start(toy_set: Path, output: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "jobs", "train", str(toy_set), "--output", str(output), "--json", *OPTIONS]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def _finish(run: subprocess.Popen[str]) -> dict:
    out, err = run.communicate()
    assert run.returncode == 0, err
    return json.loads(out)


def test_the_toy_set_is_learned_and_a_stopped_training_ends_in_the_same_weights(
    toy_set: Path, tmp_path: Path
) -> None:
    undisturbed = _finish(_start(toy_set, tmp_path / "whole"))
    assert undisturbed["figures"]["auc"] == 1.0

    run, log = _start(toy_set, tmp_path / "stopped"), tmp_path / "stopped" / "validation.csv"
    while not log.exists():
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGTERM)
    run.communicate()
    assert run.returncode == 143
    assert not (tmp_path / "stopped" / "trained.safetensors").exists()
    continued = _finish(_start(toy_set, tmp_path / "stopped"))
    assert continued["weights_id"] == undisturbed["weights_id"]

    words = [sys.executable, "-m", "jobs", "scan", str(toy_set), "-o", str(tmp_path / "scan")]
    subprocess.run([*words, "--weights", continued["weights"]], check=True)
    rows = read_rows(tmp_path / "scan")
    assert len(rows) == 20
    assert {row["weights_id"] for row in rows} == {continued["weights_id"]}
