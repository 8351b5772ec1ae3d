"""One file judged while somebody waits: the row that a scan would write, and the evidence behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import IO, Any

from detector.model import default_dtype
from detector.weights import WeightsFile
from jobs.config import ScanSettings, settings_words
from jobs.equipment import Equipment, StoppedError
from jobs.evidence import Evidence, Source, Stage, Terms, look
from jobs.explain import single_context
from jobs.named_weights import open_weights
from jobs.schema import Handling, row

_LIBRARIES = ("deepfake-scan", "torch", "av", "opencv-python-headless")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A file that somebody handed over, open, and the name that it had with them."""

    file: IO[bytes]
    name: str
    size: int
    sha256: str


def judge(
    given: Given, settings: ScanSettings, equipment: Equipment, at: Callable[[Stage], None] = lambda _: None
) -> Evidence:
    """Scan one open file, keep what a page shows.

    Args:
        given: The file.
        settings: Profile and weights.
        equipment: To decode and score with.
        at: Is told each stage, and may raise to end it there.
    """
    weights = open_weights(settings.weights)
    options = settings.extract_options(weights.header)
    dtype = default_dtype("cpu")
    context = single_context(settings, weights, options, dtype)
    again = look(given.file, Terms(options, weights, context.policy, dtype), equipment, at)
    planned = {
        "uri": given.name,
        "version": given.sha256,
        "video_id": hashlib.sha256(given.sha256.encode()).hexdigest()[:16],
        "size": given.size,
    }
    handling = Handling(extract_cpu_s=again.extraction.cpu_s, content_sha256=given.sha256)
    return Evidence(
        row=_today(row(planned, again.result, context, handling)),
        policy=context.policy,
        settings={"scored_by": settings_words(options, weights.weights_id)},
        versions={name: version(name) for name in _LIBRARIES},
        weights=weights,
        source=Source("same", given.sha256),
        again=again,
        fresh=True,
    )


def warm(weights: WeightsFile, equipment: Equipment) -> None:
    """Start what the first file would otherwise wait for."""
    options = ScanSettings().extract_options(weights.header)
    with suppress(StoppedError):
        with equipment.networks.scoring(weights, default_dtype("cpu")):
            pass
        equipment.prepare(options)


def _today(made: dict[str, Any]) -> dict[str, Any]:
    """The row with the columns of the view `today`: the policy of today is the one that was just applied."""
    return made | {
        "policy_today": made["policy_id"],
        "flag_today": made["threshold_flag"],
        "uncertain_today": made["threshold_uncertain"],
        "p_fake_today": made["p_fake"],
        "verdict_today": made["verdict"],
        "slope_today": None,
        "bias_today": None,
    }
