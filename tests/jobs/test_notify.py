"""How a scan ended arrives: signed, once more where the receiver failed, and as metrics."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook, WebhookVerificationError

from detector.errors import SettingsError, TableHeldError
from jobs.notify import SECRET
from jobs.scan import run
from jobs.summary import Summary
from jobs.table import ResultsTable
from tests.canned import Canned
from tests.scans import scan_settings, touch

_KEY = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


@dataclass
class Receiver:
    """An HTTP server that keeps what it was sent, and fails as often as it is told to."""

    url: str = ""
    failures: int = 0
    got: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv(SECRET, _KEY)
    monkeypatch.setattr("jobs.notify.time.sleep", lambda _: None)
    here = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            here.got.append((body, dict(self.headers)))
            self.send_response(500 if len(here.got) <= here.failures else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield here
    server.shutdown()
    server.server_close()


def _scan(tmp_path: Path, seeded: Path, **flags: Any) -> Summary:
    videos = touch(tmp_path / "videos", *(f"{i}.mp4" for i in range(3)))
    return run(scan_settings(videos, tmp_path / "out", seeded, **flags), quiet=True, extract=Canned)


def _metrics(path: Path) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_the_summary_arrives_signed(receiver: Receiver, tmp_path: Path, seeded: Path) -> None:
    summary = _scan(tmp_path, seeded, notify=[receiver.url])
    [(body, headers)] = receiver.got
    event = Webhook(_KEY).verify(body, headers)
    assert event["type"] == "scan.ended"
    assert event["data"]["scan_id"] == summary.scan_id
    assert event["data"]["status"] == {"scored": 3}
    assert event["data"]["exit_code"] == 0
    with pytest.raises(WebhookVerificationError):
        Webhook(_KEY).verify(body.replace(b"scored", b"passed"), headers)


def test_a_receiver_that_failed_is_told_again_under_the_same_id(
    receiver: Receiver, tmp_path: Path, seeded: Path
) -> None:
    receiver.failures = 2
    _scan(tmp_path, seeded, notify=[receiver.url])
    assert len(receiver.got) == 3
    assert len({headers["webhook-id"] for _, headers in receiver.got}) == 1


def test_a_receiver_that_is_not_there_changes_nothing_but_a_warning(
    tmp_path: Path, seeded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SECRET, _KEY)
    monkeypatch.setattr("jobs.notify.time.sleep", lambda _: None)
    videos = touch(tmp_path / "videos", "a.mp4")
    settings = scan_settings(videos, tmp_path / "out", seeded, notify=["http://127.0.0.1:9/"])
    assert run(settings, extract=Canned).exit_code == 0
    assert "http://127.0.0.1:9/*** was not told: ConnectionError" in capsys.readouterr().err


def test_metrics_tell_the_last_success_from_the_last_end(
    receiver: Receiver, tmp_path: Path, seeded: Path
) -> None:
    file = tmp_path / "deepfake_scan.prom"
    began = time.time()
    _scan(tmp_path, seeded, metrics_file=str(file))
    first = _metrics(file)
    assert began <= first["deepfake_scan_last_success_timestamp_seconds"] <= time.time()
    assert first["deepfake_scan_status_videosscored"] == 3
    assert first["deepfake_scan_reason_videosnot_video"] == 0, "labels are closed: all of them, always"

    touch(tmp_path / "videos", "new.mp4")
    with ResultsTable.open(str(tmp_path / "out")).claim("other"), pytest.raises(TableHeldError):
        _scan(tmp_path, seeded, metrics_file=str(file), notify=[receiver.url])
    second = _metrics(file)
    assert second["deepfake_scan_exit_code"] == 5
    assert json.loads(receiver.got[0][0])["data"]["exit_code"] == 5
    key = "deepfake_scan_last_success_timestamp_seconds"
    assert second[key] == first[key] < second["deepfake_scan_last_end_timestamp_seconds"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{", b"a{b=\n", b"deepfake_scan_x one\n"])
def test_a_metrics_file_that_cannot_be_read_is_written_anew(
    tmp_path: Path, seeded: Path, content: bytes
) -> None:
    file = tmp_path / "deepfake_scan.prom"
    file.write_bytes(content)
    with ResultsTable.create(str(tmp_path / "out")).claim("other"), pytest.raises(TableHeldError):
        _scan(tmp_path, seeded, metrics_file=str(file))
    assert _metrics(file)["deepfake_scan_exit_code"] == 5


@pytest.mark.parametrize(
    ("flags", "secret", "message"),
    [
        ({"notify": ["ftp://a/b"]}, _KEY, "no http:// or https:// URL"),
        ({"notify": ["https://a/b"]}, None, "holds no secret to sign with"),
        ({"notify": ["https://a/b"]}, "whsec_*", "holds no secret to sign with"),
        ({"metrics_file": "/not/there/x.prom"}, None, "lies in no folder"),
    ],
)
def test_what_could_not_be_told_stops_a_scan_before_it_starts(
    flags: dict[str, Any],
    secret: str | None,
    message: str,
    tmp_path: Path,
    seeded: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    if secret:
        monkeypatch.setenv(SECRET, secret)
    with pytest.raises(SettingsError, match=message) as refused:
        _scan(tmp_path, seeded, **flags)
    if "secret" in message:
        assert "in the environment of the head" in refused.value.hint, "where a job has to have it"
    assert not (tmp_path / "out").exists()
