"""A scan as a job: handed to the job server of a real Ray cluster, from a bucket into a bucket."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from jobs import s3
from jobs.output import open_output
from jobs.table import ResultsTable
from tests.job_server import JobServer, job_server
from tests.media import moving_face, write_video
from tests.soak.counts import counts

pytestmark = [pytest.mark.xdist_group("s3"), pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_MANY = 150  # the command that stops the job takes seconds to start


@pytest.fixture(scope="module")
def jobs(s3_server: dict[str, str]) -> Iterator[JobServer]:
    with job_server(s3_server) as server:
        yield server


def run(server: JobServer, *words: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "deepfake-scan"), *map(str, words)]
    environment = os.environ | server.environment
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800, check=False
    )


def submit(server: JobServer, *words: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run(server, "submit", "--address", server.address, *words, folder=folder)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("faces")
    films = [moving_face(12, (320, 240), face_px=90, seed=seed) for seed in range(3)]
    return [write_video(folder / f"{seed}.mp4", film) for seed, film in enumerate(films)]


def fill(bucket: str, faces: list[Path], count: int) -> str:
    for number in range(count):
        s3.client().upload_file(str(faces[number % len(faces)]), bucket, f"in/{number:03}.mp4")
    return f"s3://{bucket}/in/"


def test_a_job_shows_its_upload_names_what_failed_and_ends_with_the_code_of_the_scan(
    jobs: JobServer, bucket: str, faces: list[Path], seeded: Path
) -> None:
    inputs, output = fill(bucket, faces, 3), f"s3://{bucket}/out"
    s3.client().put_object(Bucket=bucket, Key="in/broken.mp4", Body=b"This is not a video.\n" * 50)
    done = submit(jobs, inputs, "--output", output, "--weights", seeded)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "files, " in done.stderr
    assert "the largest: weights/resnext_lstm.safetensors" in done.stderr
    assert f"failed: s3://{bucket}/in/broken.mp4: not_video" in done.stdout
    assert "4 videos in" in done.stdout
    assert set(counts(output).values()) == {4}
    summary = json.loads(s3.client().get_object(Bucket=bucket, Key="out/summary.json")["Body"].read())
    assert summary["exit_code"] == 3

    # By the environment, which the job has as well.
    here = JobServer(jobs.address, dict(jobs.environment) | {"DEEPFAKE_SCAN_OUTPUT": output})
    again = submit(here, inputs, "--weights", seeded)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to scan" in again.stdout

    left = submit(here, inputs, "--weights", seeded, "--no-wait")
    assert left.returncode == 0, left.stderr
    assert f"job {left.stdout.strip()};" in left.stderr


def test_who_has_no_token_or_a_wrong_one_is_told_so(jobs: JobServer, tmp_path: Path) -> None:
    for token in ("", "0" * 64):
        without = JobServer(jobs.address, dict(jobs.environment) | {"RAY_AUTH_TOKEN": token})
        refused = submit(without, tmp_path, "--output", tmp_path / "out")
        assert refused.returncode == 4
        assert "asks for a token; ours is missing or not the right one" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_mistakes_are_told_before_anything_is_sent(jobs: JobServer, tmp_path: Path) -> None:
    wrong = submit(jobs, tmp_path, "--set", "commitrows=3", "--set", "score_batch=0")
    assert wrong.returncode == 2
    assert "commitrows" in wrong.stderr
    assert "score_batch" in wrong.stderr
    nothing = submit(jobs, tmp_path)
    assert nothing.returncode == 2
    assert "not given: output" in nothing.stderr

    (tmp_path / "night.yaml").write_text("inputs: [s3://b/in/]\noutput: s3://b/out\n")
    (tmp_path / ".rayignore").write_text("*.yaml\n")
    left_out = submit(jobs, "--config", "night.yaml", folder=tmp_path)
    assert left_out.returncode == 2
    assert "night.yaml is not part of the upload" in left_out.stderr
    assert "job raysubmit_" not in left_out.stderr

    (tmp_path / "large.bin").write_bytes(os.urandom(101 << 20))
    large = submit(jobs, "s3://b/in/", "--output", "s3://b/out", folder=tmp_path)
    assert large.returncode == 2
    assert "the largest: large.bin 105.9 MB" in large.stderr
    assert "leave something out in .rayignore" in large.stderr


def ray_job(server: JobServer, *words: object) -> str:
    command = [str(BIN / "ray"), "job", words[0], "--address", server.address, *words[1:]]
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=os.environ | server.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def committed(output: str) -> int:
    if not ResultsTable.exists(output):
        return 0
    root = open_output(output)
    return DeltaTable(root.at("results"), storage_options=root.storage_options).count()


@pytest.mark.slow
def test_a_job_that_is_stopped_half_way_is_submitted_again_and_does_the_rest(
    jobs: JobServer, bucket: str, faces: list[Path], seeded: Path
) -> None:
    inputs, output = fill(bucket, faces, _MANY), f"s3://{bucket}/out"
    scan = ["--config", "configs/nightly.yaml", "--set", "min_age=1s", "--set", "commit_rows=5"]
    scan += [inputs, "--output", output, "--weights", str(seeded)]
    command = ["python", "-m", "jobs", "scan", *scan, "--address", "auto"]
    ray_job(jobs, "submit", "--working-dir", ".", "--no-wait", "--submission-id", "half", "--", *command)
    began = time.monotonic()
    while committed(output) < 15:
        assert time.monotonic() - began < 300, ray_job(jobs, "logs", "half")
        time.sleep(0.2)
    ray_job(jobs, "stop", "half")
    assert "STOPPED" in ray_job(jobs, "list")
    kept = committed(output)
    assert 15 <= kept < _MANY

    done = submit(jobs, *scan)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kept} done · {_MANY - kept} to do" in done.stdout, shlex.join(scan)
    assert set(counts(output).values()) == {_MANY}
