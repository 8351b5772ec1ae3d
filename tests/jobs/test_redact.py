"""What is struck out of messages, and what is left of them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from detector.types import Reason
from jobs.redact import redacted, server_of
from jobs.schema import failed_row
from tests.jobs.conftest import Command
from tests.jobs.samples import CONTEXT, planned

SECRETS: Mapping[str, str] = {
    "AWS_SECRET_ACCESS_KEY": "a/secret+key",
    "AWS_SESSION_TOKEN": "a-token==",
    "RAY_AUTH_TOKEN": "f00dfeed" * 8,
    "DEEPFAKE_WEBHOOK_SECRET": "whsec_MDEyMw==",
}


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")  # too short to be one


@pytest.mark.parametrize("value", SECRETS.values())
def test_a_secret_of_the_environment_is_struck_out(value: str) -> None:
    assert redacted(f"<Token-0>{value}</Token-0> key") == "<Token-0>***</Token-0> key"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("no answer from http://127.0.0.1:9000/a/b.mp4.", "no answer from http://127.0.0.1:9000/a/b.mp4."),
        ("'https://me:pass@host:8/x' failed", "'https://host:8/x?***' failed"),
        ("https://host/x?X-Amz-Signature=abc&y=1 failed", "https://host/x?*** failed"),
        ("https://host#token", "https://host?***"),
        ("s3://bucket/a?b=1#c @ d", "s3://bucket/a?b=1#c @ d"),
        ("/videos/50%?x=1.mp4", "/videos/50%?x=1.mp4"),
    ],
)
def test_of_an_address_what_may_be_secret_is_struck_out(said: str, left: str) -> None:
    assert redacted(said) == left


@pytest.mark.parametrize(
    ("url", "server"),
    [
        (
            "https://me:pass@hooks.example.com:8443/services/T0/B0?token=1",
            "https://hooks.example.com:8443/***",
        ),
        ("http://host", "http://host/***"),
        ("ftp://me:pass@host", "ftp://host/***"),
        ("https://[half", "***"),
        ("https://host:port/x", "***"),
    ],
)
def test_of_a_webhook_the_server_is_left(url: str, server: str) -> None:
    assert server_of(url) == server


def test_a_row_tells_no_secret_and_keeps_its_name() -> None:
    name = f"{SECRETS['AWS_SESSION_TOKEN']}.mp4"
    row = failed_row(planned(name), Reason.FETCH_FAILED, f"no {SECRETS['AWS_SESSION_TOKEN']}", CONTEXT)
    assert row["message"] == "no ***"
    assert row["uri"] == f"/videos/{name}", "a name is what it is"


def test_settings_are_shown_without_what_webhooks_are_called_by(command: Command, tmp_path: Path) -> None:
    (tmp_path / "scan.yaml").write_text("notify: ['https://me:pass@host/T0?token=1']\n")
    shown = command("config", "show", "--config", tmp_path / "scan.yaml", "--json")
    [row] = [row for row in json.loads(shown.out) if row["key"] == "notify"]
    assert row["value"] == ["https://host/***"]
    wrong = command("config", "check", tmp_path / "scan.yaml")
    assert wrong.code == 0
    refused = command("scan", tmp_path, "--output", tmp_path / "out", "--set", "notify=ftp://me:pass@host/T0")
    assert refused.code == 2
    assert "ftp://host/*** is no http:// or https:// URL" in refused.err
