"""Everything that is known before the first video is opened: weights, options, ids, the scan's context."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

from detector.confinement import NEEDS
from detector.errors import SettingsError
from detector.sandbox import Sandbox
from detector.types import ExtractOptions
from detector.weights import WeightsFile, manifest
from jobs import notify
from jobs.config import ScanSettings, settings_id, settings_words
from jobs.named_weights import open_weights
from jobs.policies import policy_for
from jobs.runner import IN_PROCESS
from jobs.schema import ScanContext
from jobs.stages import Scoring
from jobs.summary import Summary

_THIS_MACHINE = ("local", IN_PROCESS)  # other nodes find out when they get a video
_LIBRARIES = ("deepfake-scan", "ray", "torch", "av", "opencv-python-headless", "deltalake", "pyarrow")


@dataclass(frozen=True, slots=True)
class Preparation:
    """A scan that could start."""

    settings: ScanSettings
    output: str
    options: ExtractOptions
    scoring: Scoring
    settings_id: str
    summary: Summary

    @property
    def context(self) -> ScanContext:
        """What all rows of the scan share."""
        return self.scoring.context

    def scan_record(self) -> dict[str, Any]:
        """The scan's row of the `scans` table, as of now."""
        summary, context = self.summary, self.context
        return {
            "started_at": summary.started_at,
            "inputs": self.settings.inputs,
            "settings_id": self.settings_id,
            "settings": json.dumps(
                {
                    "scored_by": settings_words(self.options, context.weights_id),
                    "all": self.settings.model_dump(mode="json"),
                    "policy": asdict(context.policy),
                }
            ),
            "weights_id": context.weights_id,
            "policy_id": context.policy.policy_id,
            "shadow": context.shadow,
            "listed": summary.listed,
            "planned": summary.to_do,
            "done": dict(summary.status),
            "exit_code": summary.exit_code,
            "videos_per_s": summary.done / max(1e-9, summary.seconds),
            "versions": {name: version(name) for name in _LIBRARIES},
        }


def prepare(settings: ScanSettings) -> Preparation:
    """Check settings and weights, before anything is written.

    Raises:
        SettingsError: no output is given, or settings and weights do not go together.
        WeightsError: the weights are missing or damaged.
    """
    if settings.output is None:
        raise SettingsError("output: not given", hint="Name a folder for the results.")
    notify.check(settings)
    if settings.require_sandbox and settings.address in _THIS_MACHINE:
        _check_sandbox()
    weights = _checked(open_weights(settings.weights))
    options = settings.extract_options(weights.header)
    now = datetime.now(UTC)
    scan_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    chosen = settings_id(options, weights.weights_id)
    policy = policy_for(settings.policy, weights, chosen)
    context = ScanContext(
        scan_id=scan_id,
        scan_date=now.date(),
        settings_id=chosen,
        weights_id=weights.weights_id,
        policy=policy,
        detector=options.detector,
        dtype=None,
        shadow=settings.shadow,
    )
    device: Literal["cpu", "cuda"] = "cuda" if settings.device == "cuda" else "cpu"
    scoring = Scoring(weights, policy, device, settings.dtype, context)
    summary = Summary(
        output=settings.output,
        scan_id=scan_id,
        settings_id=chosen,
        weights=weights.header.name,
        weights_id=weights.weights_id,
        trained=weights.header.trained,
        threshold_level=policy.level,
        started_at=now,
        price_per_hour=settings.price_per_hour,
    )
    return Preparation(settings, settings.output, options, scoring, chosen, summary)


def _check_sandbox() -> None:
    with Sandbox() as sandbox:
        isolation = sandbox.isolation
    if not isolation.complete:
        raise SettingsError(
            f"require_sandbox: this machine decodes behind {isolation.in_words()}",
            hint=NEEDS,
        )


def _checked(weights: WeightsFile) -> WeightsFile:
    """Weights whose tensors fit; those that ship were tried when they were made, and have their sha256."""
    shipped = {entry["sha256"] for entry in manifest()["files"].values()}
    if weights.sha256 not in shipped:
        from detector.model import Model

        Model(weights)
    return weights
