"""Tells others how a scan ended: signed webhooks, and a text file for Prometheus' node exporter.

Webhooks follow https://www.standardwebhooks.com, whose libraries verify them: one id per delivery, which
stays over its tries; a fresh time and signature for each try.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.errors import DeepfakeScanError, SettingsError
from detector.types import Reason, Status, Verdict
from jobs.redact import server_of
from jobs.schema import printable
from jobs.summary import BUG, FINISHED, INTERRUPTED, SOME_FAILED, Summary

if TYPE_CHECKING:
    from jobs.config import ScanSettings

SECRET = "DEEPFAKE_WEBHOOK_SECRET"  # noqa: S105  # the name of the variable that holds it
_TRIES, _TIMEOUT_S = 3, 10.0
_LAST_SUCCESS = "deepfake_scan_last_success_timestamp_seconds"


def check(settings: ScanSettings) -> None:
    """Refuses what could not be told in the end.

    Raises:
        SettingsError: a URL that is none, no secret to sign with, or no folder for the metrics.
    """
    wrong = [url for url in settings.notify if not url.startswith(("https://", "http://"))]
    if wrong:
        raise SettingsError(
            f"notify: {', '.join(printable(server_of(url)) for url in wrong)} is no http:// or https:// URL"
        )
    if settings.notify:
        _signer()
    if settings.metrics_file and not Path(settings.metrics_file).absolute().parent.is_dir():
        raise SettingsError(f"metrics_file: {printable(settings.metrics_file)} lies in no folder")


@contextmanager
def told(settings: ScanSettings, summary: Summary, say: Callable[[str], None]) -> Iterator[None]:
    """Tells how the scan in the block ended, however it did. What cannot be told is a warning."""
    try:
        yield
    except BaseException as error:
        if summary.exit_code is None:
            other = BUG if isinstance(error, Exception) else INTERRUPTED
            summary.exit_code = error.exit_code if isinstance(error, DeepfakeScanError) else other
        raise
    finally:
        for url in settings.notify:
            failure = _delivered(url, {"type": "scan.ended", "data": summary.as_json()})
            if failure:
                say(f"warning: {printable(server_of(url))} was not told: {printable(failure)}")
        if settings.metrics_file:
            try:
                write_metrics(Path(settings.metrics_file), summary)
            except (OSError, ValueError) as error:
                say(f"warning: {printable(settings.metrics_file)} was not written: {printable(str(error))}")


def _signer() -> Any:
    from standardwebhooks import Webhook
    from standardwebhooks.webhooks import EmptyWebhookSecretError

    try:
        return Webhook(os.environ[SECRET])
    except (KeyError, ValueError, EmptyWebhookSecretError) as error:
        raise SettingsError(
            f"notify: the variable {SECRET} holds no secret to sign with",
            hint="Make one: python -c \"import base64, os; print('whsec_' + "
            'base64.b64encode(os.urandom(24)).decode())"; the receiver verifies with the same. '
            "On a cluster it has to be in the environment of the head: what is submitted is open to view.",
        ) from error


def _delivered(url: str, event: dict[str, Any]) -> str | None:
    """Why a webhook could not be delivered, None if it was."""
    import requests

    signer, delivery, failure = _signer(), f"msg_{secrets.token_hex(12)}", ""
    body = json.dumps(event | {"timestamp": datetime.now(UTC).isoformat()})
    for number in range(_TRIES):
        time.sleep(2.0 * number)
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signer.sign(delivery, now, body),
        }
        try:
            answer = requests.post(
                url, body.encode(), headers=headers, timeout=_TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException as error:
            failure = type(error).__name__
            continue
        if answer.ok and not answer.is_redirect:
            return None
        failure = f"it answered {answer.status_code}"
    return failure


def write_metrics(path: Path, summary: Summary) -> None:
    """Replaces the text file, whole or not at all; labels have closed sets of values."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float) -> None:
        Gauge(f"deepfake_scan_{name}", text, registry=registry).set(value)

    now = time.time()
    gauge("last_end_timestamp_seconds", "When the last scan ended, however it did.", now)
    success = now if summary.exit_code in (FINISHED, SOME_FAILED) else _last_success(path)
    if success is not None:
        Gauge(_LAST_SUCCESS, "When a scan last did all that it had to.", registry=registry).set(success)
    gauge("exit_code", "Of the last scan.", -1 if summary.exit_code is None else summary.exit_code)
    gauge("seconds", "Duration of the last scan.", summary.seconds)
    gauge("left_videos", "Due, and left by the last scan.", summary.left)
    gauge("failed_share", "Failed of all videos of the last scan.", summary.failed / max(1, summary.done))
    for name, kinds, counts in (
        ("status", Status, summary.status),
        ("verdict", Verdict, summary.verdicts),
        ("reason", Reason, summary.reasons),
    ):
        family = Gauge(f"deepfake_scan_{name}_videos", f"By {name}.", [name], registry=registry)
        for kind in kinds:
            family.labels(str(kind)).set(counts[kind])
    write_to_textfile(str(path), registry)


def _last_success(path: Path) -> float | None:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        text = path.read_text("utf-8")
        found = {one.name: one.samples for one in text_string_to_metric_families(text)}
    except (OSError, ValueError, LookupError):  # none, or something else under its name: it is written anew
        return None
    return found[_LAST_SUCCESS][0].value if found.get(_LAST_SUCCESS) else None
