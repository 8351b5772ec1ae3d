"""What a verdict rests on: a row of the table, and the same video looked at once more.

Nothing of a video is kept with its row. What a page shows is cut out of the source again, by the same code
with the settings and weights of that row, and scored again: the page says whether that came out the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any, Literal, cast

import duckdb
import numpy as np
from numpy.typing import NDArray

from detector.errors import InputError, SettingsError, StorageError, VideoError, WeightsError
from detector.model import Dtype, Model, default_dtype
from detector.pipeline import decide, extract, score
from detector.types import Clips, ClipScore, Extraction, ExtractOptions, Person, Policy, Reason, VideoResult
from detector.weights import WeightsFile, manifest
from jobs.config import ScanSettings, options_of
from jobs.equipment import Equipment
from jobs.local import scheme_of, uri_of
from jobs.named_weights import open_weights
from jobs.policies import PolicyFile
from jobs.query import rows
from jobs.reading import open_planned
from jobs.recorded import parsed, policy_of
from jobs.schema import printable

STILLS_PX = 320
# What number formats are promised to differ by.
SAME_WITHIN = {"float32": 1e-4, "bfloat16": 5e-3}
_CHUNK = 1 << 20

_FIND = """
SELECT * FROM today WHERE video_id = $key OR uri IN ($key, $uri)
ORDER BY modified_at DESC, scanned_at DESC LIMIT 1
"""
_SCAN = "SELECT settings, versions FROM scans WHERE scan_id = $key ORDER BY event LIMIT 1"

State = Literal["same", "changed", "gone", "unreadable"]


@dataclass(frozen=True, slots=True)
class Source:
    """The file behind a row, as it is now. `sha256` is that of the bytes that were looked at."""

    state: State
    sha256: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Heat:
    """A crop, and where the network found what speaks for the score: `[H, W] float32` in [0, 1].

    `fake` says for which side: that of the person's score.
    """

    clip: int
    frame: int
    t_s: float
    fake: bool
    heat: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Again:
    """The video looked at once more; `heat` is that of each person's strongest crop, by person_id."""

    result: VideoResult
    extraction: Extraction
    scores: Sequence[ClipScore]
    heat: Mapping[int, Heat]
    dtype: Dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a page about one video says.

    Attributes:
        row: of the view `today`.
        policy: that judges it, where one is known.
        settings: in words, of the scan.
        versions: of the libraries of the scan.
        weights: the file behind the score, None where it is not here.
        source: the video as it is now.
        again: None where it could not be looked at once more; `lacking` says why.
        fresh: True where the row was made together with `again`, so that there is nothing to compare.
    """

    row: Mapping[str, Any]
    policy: Policy | None
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    weights: WeightsFile | None
    source: Source
    again: Again | None
    lacking: str = ""
    fresh: bool = False

    @property
    def difference(self) -> float | None:
        """By how much p_fake came out otherwise; None where there is nothing to compare."""
        if self.again is None or self.fresh or self.again.result.p_fake is None:
            return None
        stored = self.row["p_fake_today"]
        return None if stored is None else abs(self.again.result.p_fake - stored)

    @property
    def agrees(self) -> bool | None:
        """Whether status and score came out the same, as far as the number format promises."""
        if self.again is None or self.fresh:
            return None
        result = self.again.result
        if str(result.status) != self.row["status"]:
            return False
        if result.p_fake is not None and self.difference is None:
            return False
        return (self.difference or 0.0) <= SAME_WITHIN[self.again.dtype]


class Examiner:
    """Looks at videos of one table once more.

    Args:
        connection: From `query.connect`.
        equipment: To decode and score with.
        weights: A file to look for the weights in before those that ship and that of the scan.
        policy: That was given to `query.connect`.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        equipment: Equipment,
        *,
        weights: str | None = None,
        policy: PolicyFile | None = None,
    ) -> None:
        self._connection, self._equipment = connection, equipment
        self._named, self._policy = weights, policy
        self._files: dict[str, WeightsFile] = {}

    def find(self, key: str) -> dict[str, Any]:
        """The row of a `video_id`, a uri, or a path as the shell has it; of several versions the newest.

        Raises:
            InputError: there is none.
        """
        uri = uri_of(key) if key and scheme_of(key) is None else key
        found = rows(self._connection, _FIND, key=key, uri=uri)
        if not found:
            raise InputError(
                f"'{printable(key)}' is no video_id and no uri of the table",
                hint='`deepfake-scan query sql OUT "SELECT video_id, uri FROM latest"` lists both.',
            )
        return found[0]

    def examine(self, row: Mapping[str, Any]) -> Evidence:
        """The evidence behind a row of `today`. Whatever is wrong with the video is part of it."""
        scan = next(iter(rows(self._connection, _SCAN, key=row["scan_id"])), None)
        settings = parsed(scan["settings"]) if scan else {}
        versions = dict(scan["versions"] or {}) if scan else {}
        policy, weights = self._policy_of(row), self._weights_of(row, settings)
        source, again, lacking = self._look(row, settings, weights, policy)
        return Evidence(
            row=row,
            policy=policy,
            settings=settings,
            versions=versions,
            weights=weights,
            source=source,
            again=again,
            lacking=lacking,
        )

    def _policy_of(self, row: Mapping[str, Any]) -> Policy | None:
        """The policy that judges a row today, as it was given or as a scan recorded it."""
        wanted = row["policy_today"]
        if self._policy is not None and self._policy.policy.policy_id == wanted:
            return self._policy.policy
        return policy_of(self._connection, wanted)

    def _weights_of(self, row: Mapping[str, Any], settings: Mapping[str, Any]) -> WeightsFile | None:
        """The file with the weights of a row, wherever it is."""
        wanted = row["weights_id"]
        if wanted in self._files:
            return self._files[wanted]
        shipped = [name for name in manifest()["files"] if name.endswith(".safetensors")]
        of_scan = _all_of(settings).get("weights")
        for named in [self._named, *shipped, of_scan]:
            if not isinstance(named, str):
                continue
            try:
                file = open_weights(named)
            except (WeightsError, SettingsError, StorageError):
                if named == self._named:
                    raise
                continue
            self._files[file.weights_id] = file
            if file.weights_id == wanted:
                return file
        return None

    def _look(
        self,
        row: Mapping[str, Any],
        settings: Mapping[str, Any],
        weights: WeightsFile | None,
        policy: Policy | None,
    ) -> tuple[Source, Again | None, str]:
        try:
            words = settings.get("scored_by")
            options = options_of(words) if isinstance(words, dict) and words else None
        except SettingsError as error:
            options, lacking = None, str(error)
        else:
            lacking = "" if options else "settings"
        if weights is None:
            lacking = lacking or "weights"
        planned = dict(row) | {"size": row["size_bytes"]}
        try:
            with open_planned(planned, _max_bytes(settings)) as body:
                sha256 = body.content_sha256 or digest(body.file)
                source = Source("same", sha256)
                if row["content_sha256"] not in (None, sha256):
                    return Source("changed", sha256), None, "source"
                if lacking or options is None or weights is None:
                    return source, None, lacking
                return source, self._again(body.file, row, options, weights, policy), ""
        except VideoError as error:
            return _source_of(error), None, "source"

    def _again(
        self,
        file: IO[bytes],
        row: Mapping[str, Any],
        options: ExtractOptions,
        weights: WeightsFile,
        policy: Policy | None,
    ) -> Again:
        dtype = cast("Dtype", row["dtype"] if row["dtype"] in SAME_WITHIN else default_dtype("cpu"))
        return look(file, Terms(options, weights, policy or weights.header.policy, dtype), self._equipment)


class Stage(StrEnum):
    """What is being done with a video that somebody waits for."""

    DECODING = "decoding"
    SCORING = "scoring"
    DRAWING = "drawing"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a video is cut, scored and judged."""

    options: ExtractOptions
    weights: WeightsFile
    policy: Policy
    dtype: Dtype


def look(
    file: IO[bytes], terms: Terms, equipment: Equipment, at: Callable[[Stage], None] = lambda _: None
) -> Again:
    """The whole way of one video, with what a page shows beside the score.

    `at` is told each stage, and may raise to end it there.
    """
    with equipment.decoding(file, terms.options) as sandbox:
        at(Stage.DECODING)
        extraction = extract(file, terms.options, sandbox, STILLS_PX)
    at(Stage.SCORING)
    with equipment.networks.scoring(terms.weights, terms.dtype) as model:
        scores = score(extraction.clips, model)
    result = decide(extraction.facts, scores, terms.policy)
    heat = {}
    for person in result.persons:
        at(Stage.DRAWING)
        with equipment.networks.scoring(terms.weights, terms.dtype) as model:
            heat[person.person_id] = _strongest(person, result, extraction.clips, scores, model)
    at(Stage.DRAWING)
    return Again(result, extraction, scores, heat, terms.dtype)


def _strongest(
    person: Person, result: VideoResult, clips: Clips, scores: Sequence[ClipScore], model: Model
) -> Heat:
    """The crop that says most for the side on which a person's score is, with its map."""
    from detector.heatmap import heat_maps

    side = 1 if person.logit >= 0 else -1
    _, t_s, clip, frame = max(
        (side * scores[track.clip].frame_logits[frame], -box.t_s, track.clip, frame)
        for track in (scored.track for scored in result.tracks)
        if track.person_id == person.person_id and track.clip is not None
        for frame, box in enumerate(track.boxes)
    )
    maps = heat_maps(Clips(clips.pixels[clip : clip + 1], clips.mask[clip : clip + 1]), model)
    return Heat(clip, frame, -t_s, side > 0, maps[0, frame])


def _max_bytes(settings: Mapping[str, Any]) -> int:
    """What the scan would read; its settings spell sizes as people do."""
    given = _all_of(settings).get("max_bytes")
    try:
        return (
            ScanSettings.model_validate({"max_bytes": given}).max_bytes if given else ScanSettings().max_bytes
        )
    except ValueError:
        return ScanSettings().max_bytes


def _all_of(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings as they were given; tables of others may hold anything in their place."""
    found = settings.get("all")
    return found if isinstance(found, dict) else {}


def digest(file: IO[bytes]) -> str:
    """sha256 of a whole file, wherever it stands; at its beginning afterwards."""
    found = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK):
        found.update(chunk)
    file.seek(0)
    return found.hexdigest()


def _source_of(error: VideoError) -> Source:
    states: dict[Reason, State] = {
        Reason.NOT_FOUND: "gone",
        Reason.CHANGED_DURING_READ: "changed",
    }
    return Source(states.get(error.reason, "unreadable"), message=str(error))
