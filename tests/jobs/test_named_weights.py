"""Weights from a bucket: the very bytes that were meant, or nothing."""

import hashlib
from pathlib import Path

import pytest

from detector.errors import SettingsError, WeightsError
from jobs import s3
from jobs.named_weights import open_weights
from tests.jobs.conftest import Command
from tests.media import moving_face, write_video

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture
def stored(bucket: str, seeded: Path) -> str:
    s3.client().upload_file(str(seeded), bucket, "weights/seeded.safetensors")
    return f"s3://{bucket}/weights/seeded.safetensors"


def test_a_scan_takes_weights_from_a_bucket(
    command: Command, stored: str, seeded: Path, tmp_path: Path
) -> None:
    write_video(tmp_path / "videos.mp4", moving_face(12, (320, 240), face_px=90))
    digest = hashlib.sha256(seeded.read_bytes()).hexdigest()
    scan = ["scan", tmp_path / "videos.mp4", "--output", tmp_path / "out", "--address", "in-process"]
    done = command(*scan, "--weights", f"{stored}#sha256={digest}")
    assert done.code == 0, done.err
    again = command(*scan, "--weights", seeded)
    assert "1 done" in again.err, "the same weights by a path are the same weights"


@pytest.mark.parametrize("end", ["", "#sha256=", f"#sha512={'0' * 64}", f"?sha256={'0' * 64}"])
def test_a_name_without_the_sha256_is_refused(stored: str, end: str) -> None:
    with pytest.raises(SettingsError, match="named together with its sha256"):
        open_weights(stored + end)


@pytest.mark.parametrize("digits", [3, 63, 65, 128])
def test_a_sha256_of_another_length_is_told_as_such(stored: str, digits: int) -> None:
    with pytest.raises(SettingsError, match=f"its sha256 has {digits} digits, not 64"):
        open_weights(f"{stored}#sha256={'a' * digits}")


def test_verify_takes_weights_from_a_bucket_and_digits_as_any_program_writes_them(
    command: Command, stored: str, seeded: Path
) -> None:
    digest = hashlib.sha256(seeded.read_bytes()).hexdigest()
    done = command("weights", "verify", f"{stored}#sha256={digest.upper()}")
    assert done.code == 0, done.err
    assert "whole; weights_id" in done.out
    assert digest in done.out


def test_other_bytes_than_those_that_were_meant_are_refused(stored: str) -> None:
    with pytest.raises(WeightsError, match=r"the sha256 is [0-9a-f]{16}\.\.\., the setting says 0000"):
        open_weights(f"{stored}#sha256={'0' * 64}")


def test_an_object_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(WeightsError, match="NoSuchKey"):
        open_weights(f"s3://{bucket}/gone.safetensors#sha256={'0' * 64}")
