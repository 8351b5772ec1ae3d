"""The two callables that videos pass through, under Ray or in one process.

Both are total: one output row per input row, whatever a video does; nothing is raised and nothing exits. A
callable that raised would drop its whole block in silence, one that exited would shrink its pool for good.

    Extract   reads   the columns of a plan
              adds    facts (JSON), clips (bytes), clip_size, clip_frames, fetch_s, integrity, content_sha256,
                    extract_cpu_s, stop, sandbox
    Score     reads   all of these
              gives   rows of `schema.RESULTS`, `stop` and `sandbox`; the clips end here

Where the store is gone, credentials are refused or the temporary disk is full, `stop` says so: the scan
cannot go on, and nothing else in that row counts. The driver takes such rows out (`without_stopped`).
`sandbox` (JSON) is what holds decoding in on the node that the row comes from.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from detector.confinement import Isolation
from detector.errors import DeepfakeScanError, SandboxError, StorageError, VideoError
from detector.pipeline import decide, extract, score
from detector.sandbox import Sandbox
from detector.types import Clips, ClipScore, Extraction, ExtractOptions, Facts, Policy, Reason, VideoResult
from detector.verdict import failed
from detector.weights import WeightsFile
from jobs.download import TempDisk
from jobs.plan import PLAN
from jobs.reading import open_planned
from jobs.schema import RESULTS, Handling, ScanContext, row, to_arrow

if TYPE_CHECKING:
    from detector.model import Device, Dtype, Model

EXTRACTED = pa.schema(
    [
        *PLAN,
        pa.field("facts", pa.large_binary()),
        pa.field("clips", pa.large_binary()),
        pa.field("clip_size", pa.list_(pa.int32())),
        pa.field("clip_frames", pa.list_(pa.int32())),
        pa.field("fetch_s", pa.float64()),
        pa.field("integrity", pa.string()),
        pa.field("content_sha256", pa.string()),
        pa.field("extract_cpu_s", pa.float64()),
        pa.field("stop", pa.string()),
        pa.field("sandbox", pa.string()),
    ]
)
_BESIDE = ("stop", "sandbox")
SCORED = pa.schema([*RESULTS, *(EXTRACTED.field(name) for name in _BESIDE)])


class NodeSandbox(msgspec.Struct, frozen=True):
    """What holds the decoding processes of a node in."""

    node: str
    isolation: Isolation


def without_stopped(scored: pa.Table) -> tuple[pa.Table, str | None]:
    """Of rows of `SCORED` those that are known, as `RESULTS`, and why the scan cannot go on, if it cannot."""
    stops = scored["stop"].drop_null().to_pylist()
    known = scored.filter(pc.is_null(scored["stop"])).drop_columns(list(_BESIDE))
    return known, stops[0] if stops else None


class Extract:
    """Opens one video after the other and extracts it in this actor's sandbox. Imports no torch.

    Two threads may call it at a time: one fetches its video while that of the other is decoded.

    Args:
        options: How videos are turned into clips.
        max_bytes: The largest video that is read.
        temp_bytes: What videos that were downloaded may take on disk together.
    """

    def __init__(self, options: ExtractOptions, max_bytes: int, temp_bytes: int) -> None:
        self._options = options
        self._max_bytes = max_bytes
        self._disk = TempDisk(temp_bytes)
        self._decoding = threading.Lock()
        self._stop: str | None = None
        self._sandbox = _opened_sandbox(options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of a plan in, rows of `EXTRACTED` out."""
        return pa.Table.from_pylist([self._row(planned) for planned in batch.to_pylist()], schema=EXTRACTED)

    def close(self) -> None:
        """End the sandbox."""
        self._sandbox.close()

    def _row(self, planned: dict[str, Any]) -> dict[str, Any]:
        fetched: dict[str, Any] = {"fetch_s": 0.0, "integrity": None, "content_sha256": None}
        try:
            if self._stop is not None:  # whoever asks a store that is gone waits for minutes
                raise StorageError(self._stop)
            with open_planned(planned, self._max_bytes, self._disk) as body:
                fetched["fetch_s"] = body.fetch_s
                fetched["integrity"], fetched["content_sha256"] = body.integrity, body.content_sha256
                fetched["version_id"] = body.version_id or planned.get("version_id")
                with self._decoding:
                    extraction = extract(body.file, self._options, self._sandbox)
        except VideoError as error:
            extraction = Extraction.failed(error.reason, str(error))
        except (StorageError, SandboxError) as error:
            self._stop = fetched["stop"] = str(error)
            extraction = Extraction.failed(Reason.FETCH_FAILED, str(error))
        except Exception as error:  # noqa: BLE001  # total: the bug becomes this video's row, with its name
            extraction = Extraction.failed(Reason.INTERNAL_ERROR, _text(error))
        return planned | _packed(extraction) | fetched | self._spent(extraction)

    def _spent(self, extraction: Extraction) -> dict[str, Any]:
        sandbox = NodeSandbox(platform.node(), self._sandbox.isolation)
        return {"extract_cpu_s": extraction.cpu_s, "sandbox": msgspec.json.encode(sandbox).decode()}


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a scoring actor needs: weights as bytes (no node needs the file), policy, the scan's context."""

    weights: WeightsFile
    policy: Policy
    device: Device
    dtype: Dtype | Literal["auto"]
    context: ScanContext


class Score:
    """Scores the clips of several videos together and decides each video."""

    def __init__(self, scoring: Scoring) -> None:
        from detector.model import Model, default_dtype, settle_process

        settle_process()
        dtype = default_dtype(scoring.device) if scoring.dtype == "auto" else scoring.dtype
        self._model: Model = Model(scoring.weights, dtype=dtype, device=scoring.device)
        self._policy = scoring.policy
        self._context = replace(scoring.context, dtype=dtype)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `EXTRACTED` in, rows of `SCORED` out."""
        videos = [unpacked(extracted) for extracted in batch.to_pylist()]
        started = time.monotonic()
        scores = self._scores([clips for _, _, clips in videos])
        score_s = (time.monotonic() - started) / max(1, len(videos))
        rows = to_arrow(
            [
                row(planned, self._decide(facts, scored), self._context, _handling(planned, score_s))
                for (planned, facts, _), scored in zip(videos, scores, strict=True)
            ]
        )
        for name in _BESIDE:
            rows = rows.append_column(SCORED.field(name), batch[name])
        return rows

    def _scores(self, videos: Sequence[Clips]) -> list[list[ClipScore] | str]:
        """Scores of each video, through shared network batches; where that fails, each alone, or why not."""
        from detector.model import stack

        try:
            scores = iter(score(stack(videos), self._model))
            return [[next(scores) for _ in range(len(clips))] for clips in videos]
        except Exception as error:  # noqa: BLE001  # total: the videos at fault fail, the actor lives on
            if len(videos) == 1:
                return [_text(error)]
            return [found for clips in videos for found in self._scores([clips])]

    def _decide(self, facts: Facts, scored: list[ClipScore] | str) -> VideoResult:
        try:
            if isinstance(scored, str):
                return failed(facts, facts.failure or Reason.MODEL_ERROR, facts.message or scored)
            return decide(facts, scored, self._policy)
        except Exception as error:  # noqa: BLE001  # total, as above
            return failed(facts, Reason.INTERNAL_ERROR, _text(error))


def _opened_sandbox(options: ExtractOptions) -> Sandbox:
    """A sandbox, started again if its helper died on the way: Ray ends a run whose actors do not start."""
    try:
        return Sandbox(options.detector, link_identities=options.link_identities)
    except DeepfakeScanError:
        return Sandbox(options.detector, link_identities=options.link_identities)


def _packed(extraction: Extraction) -> dict[str, Any]:
    clips = extraction.clips
    return {
        "facts": msgspec.json.encode(extraction.facts),
        "clips": clips.pixels.tobytes(),
        "clip_size": list(clips.pixels.shape),
        "clip_frames": clips.mask.sum(1).tolist(),
    }


def unpacked(extracted: dict[str, Any]) -> tuple[dict[str, Any], Facts, Clips]:
    """A row of `EXTRACTED`, with its facts and clips."""
    pixels = np.frombuffer(extracted["clips"], np.uint8).reshape(extracted["clip_size"])
    frames = np.asarray(extracted["clip_frames"], np.int64)
    mask = np.arange(pixels.shape[1]) < frames[:, None]
    return extracted, msgspec.json.decode(extracted["facts"], type=Facts), Clips(pixels, mask)


def _handling(extracted: dict[str, Any], score_s: float) -> Handling:
    kept = {name: extracted[name] for name in ("fetch_s", "extract_cpu_s", "integrity", "content_sha256")}
    return Handling(score_s=score_s, **kept)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
