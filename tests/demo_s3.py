"""`make demo-s3`: videos into a bucket, a scan of the bucket into a table in it, a question to that table."""

import os
import subprocess
import sys
from pathlib import Path

import boto3

from tests.media import make_demo_folder
from tests.s3 import server

COMMAND = str(Path(sys.executable).parent / "deepfake-scan")


def main(folder: Path) -> None:
    """Runs it; the server and its data are gone afterwards."""
    with server(folder / "server") as reached:
        os.environ.update(reached)
        client = boto3.client("s3")
        client.create_bucket(Bucket="demo")
        make_demo_folder(folder / "videos")
        for path in sorted((folder / "videos").iterdir()):
            client.upload_file(str(path), "demo", f"videos/{path.name}")
        _run("scan", "s3://demo/videos/", "--output", "s3://demo/results", accepted=(0, 3))
        _run("scan", "s3://demo/videos/", "--output", "s3://demo/results", accepted=(0, 3))
        _run("query", "summary", "s3://demo/results")
        _run("query", "people", "s3://demo/results", "--limit", "5")


def _run(*words: str, accepted: tuple[int, ...] = (0,)) -> None:
    print("$ deepfake-scan", *words, flush=True)
    code = subprocess.run([COMMAND, *words], check=False).returncode
    if code not in accepted:
        sys.exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
