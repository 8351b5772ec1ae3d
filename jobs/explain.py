"""One video explained: the row that a scan would write, and the crops that it was judged by. No Ray."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.errors import InputError, VideoError
from detector.model import Device, Dtype, Model, default_dtype, settle_process
from detector.pipeline import scan_video
from detector.sandbox import Sandbox
from detector.types import Clips, ExtractOptions, VideoResult
from detector.weights import WeightsFile
from jobs.config import ScanSettings, settings_id
from jobs.listing import Listing
from jobs.named_weights import open_weights
from jobs.policies import policy_for
from jobs.reading import open_planned
from jobs.schema import Handling, ScanContext, failed_row, printable, row
from jobs.summary import UNMEASURED_WORDS


def explain(
    path: str, settings: ScanSettings, *, crops: Path | None, sandboxed: bool
) -> tuple[dict[str, Any], list[Path]]:
    """Scan one file in this process.

    Args:
        path: the video.
        settings: as for a scan.
        crops: folder for one sheet of crops per person, None for none.
        sandboxed: decode in a child, as a scan does.

    Returns:
        The row of `schema.RESULTS` and the sheets that were written.

    Raises:
        InputError: there is no such file.
    """
    planned = _listed(path)
    weights = open_weights(settings.weights)
    options = settings.extract_options(weights.header)
    settle_process()
    device: Device = "cuda" if settings.device == "cuda" else "cpu"
    dtype = default_dtype(device) if settings.dtype == "auto" else settings.dtype
    model = Model(weights, dtype=dtype, device=device)
    context = single_context(settings, weights, options, dtype)
    sandbox = Sandbox(options.detector, link_identities=options.link_identities) if sandboxed else None
    try:
        with open_planned(planned, settings.max_bytes) as body:
            result, extraction = scan_video(body.file, options, model, context.policy, sandbox)
    except VideoError as error:
        return failed_row(planned, error.reason, str(error), context), []
    finally:
        if sandbox:
            sandbox.close()
    handling = Handling(extract_cpu_s=extraction.cpu_s)
    sheets: list[Path] = []
    found = row(planned, result, context, handling)
    if crops:
        sheets = write_sheets(result, extraction.clips, crops, found["video_id"])
    return found, sheets


def single_context(
    settings: ScanSettings, weights: WeightsFile, options: ExtractOptions, dtype: Dtype
) -> ScanContext:
    """What the row of a video says that is scanned by itself."""
    chosen = settings_id(options, weights.weights_id)
    return ScanContext(
        scan_id="explain",
        scan_date=datetime.now(UTC).date(),
        settings_id=chosen,
        weights_id=weights.weights_id,
        policy=policy_for(settings.policy, weights, chosen),
        detector=options.detector,
        dtype=dtype,
    )


def _listed(path: str) -> dict[str, Any]:
    if path and Path(path).is_dir():
        raise InputError(f"{printable(path)} is a folder", hint="`deepfake-scan scan` takes folders.")
    return asdict(next(iter(Listing([path])))) | {"attempt": 1}


def write_sheets(result: VideoResult, clips: Clips, folder: Path, name: str) -> list[Path]:
    """Write the crops that were scored as one PNG per person: a row per window, a column per frame.

    The files begin with `name`, so that those of several videos can lie in one folder.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = []
    for person in result.persons:
        mine = [t.track.clip for t in result.tracks if t.track.person_id == person.person_id]
        rows = [np.concatenate(list(clips.pixels[clip]), axis=1) for clip in mine if clip is not None]
        sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
        path = folder / f"{name}-person-{person.person_id}.png"
        path.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
        written.append(path)
    return written


def as_json(found: dict[str, Any]) -> str:
    """The row as JSON: dates as ISO 8601, numbers that are none as null."""

    def plain(value: object) -> object:
        if isinstance(value, (date, datetime)):
            return value.isoformat()
        raise TypeError(f"no JSON for {type(value).__name__}")

    return json.dumps(_finite(found), indent=2, default=plain, ensure_ascii=True)


def in_words(found: dict[str, Any]) -> str:
    """The row for a person to read."""
    lines = [printable(found["uri"])]
    if found["status"] == "failed":
        return "\n".join([*lines, f"  failed: {found['reason']}: {printable(found['message'])}"])
    kind = printable(f"{found['codec']} in {found['container'].split(',')[0]}")
    lines.append(
        f"  {kind}, {found['width']} x {found['height']}, "
        f"{_seconds(found['duration_s'])}; {_counted(found['windows_planned'], 'window')} looked at, "
        f"{_counted(found['frames_decoded'], 'frame')} decoded"
    )
    lines += _doubts(found)
    if found["p_fake"] is None:
        reasons = sorted({track["reason"] for track in found["tracks"]})
        why = f" ({', '.join(reasons)})" if reasons else ""
        lines.append(f"  {found['status'].replace('_', ' ')}: not assessed{why}")
        return "\n".join(lines)
    lines.append(
        f"  {found['verdict'].replace('_', ' ')}: p_fake {found['p_fake']:.3f} "
        f"(flagged from {found['threshold_flag']:.3f}, uncertain from {found['threshold_uncertain']:.3f})"
    )
    if found["threshold_level"] == "none":
        lines.append(f"  {UNMEASURED_WORDS}")
    lines += [
        f"  person {person['person_id']}: p_fake {person['p_fake']:.3f}, "
        f"{person['verdict'].replace('_', ' ')}, {_counted(person['windows'], 'window')} "
        f"from {person['start_s']:.1f} s to {person['end_s']:.1f} s"
        for person in found["persons"]
    ]
    return "\n".join(lines)


def _doubts(found: dict[str, Any]) -> list[str]:
    """What a person should know before believing the rest."""
    warnings = ", ".join(warning.replace("_", " ") for warning in found["warnings"])
    if found["complete"] is False:
        return [f"  not complete: a part is missing or damaged{f' ({warnings})' if warnings else ''}"]
    lines = ["  it cannot be known whether all of it is there"] if found["complete"] is None else []
    return [*lines, f"  warning: {warnings}"] if warnings else lines


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _seconds(duration_s: float | None) -> str:
    return "duration unknown" if duration_s is None else f"{duration_s:.1f} s"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value
