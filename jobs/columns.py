"""The columns of the table, frozen: they are only ever added.

`RESULTS`, `SCANS` and `REVIEWS` carry `description` and, where a number has one, `unit` in the metadata of
every field; Delta and Parquet keep them. Imported through `jobs.schema`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from detector.types import Reason, Status, TrackReason, Verdict, Warn

if TYPE_CHECKING:
    Field = pa.Field[pa.DataType]

SCHEMA_VERSION = 1


def _field(name: str, kind: pa.DataType, text: str, unit: str = "", *, required: bool = False) -> Field:
    metadata = {"description": text} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=not required, metadata=metadata)


def _list(*fields: Field) -> pa.DataType:
    # "element" is Delta's own name for it: with another one the schema would not survive a round trip.
    return pa.list_(pa.field("element", pa.struct(fields)))


TEXT, FLAG = pa.string(), pa.bool_()
INT, LONG = pa.int32(), pa.int64()
# Scores are doubles: a float32 beside a threshold would flip verdicts at the threshold in SQL.
REAL, SMALL_REAL = pa.float64(), pa.float32()
TIME, DAY = pa.timestamp("us", tz="UTC"), pa.date32()
TEXTS, TEXT_MAP = pa.list_(pa.field("element", TEXT)), pa.map_(TEXT, TEXT)
COUNT_MAP = pa.map_(TEXT, LONG)

_BOX = (
    _field("t_s", REAL, "presentation time from the first frame", "s"),
    _field("x", SMALL_REAL, "left edge", "fraction of the displayed width"),
    _field("y", SMALL_REAL, "upper edge", "fraction of the displayed height"),
    _field("w", SMALL_REAL, "width", "fraction of the displayed width"),
    _field("h", SMALL_REAL, "height", "fraction of the displayed height"),
)
_PERSON = (
    _field("person_id", INT, "number of the person within the video, from 0"),
    _field("start_s", REAL, "first time the person was seen", "s"),
    _field("end_s", REAL, "last time the person was seen", "s"),
    _field("windows", INT, "windows in which the person was scored", "count"),
    _field("logit", REAL, "mean raw logit over these windows, positive = fake"),
    _field("p_fake", REAL, "calibrated score, 1 = fake", "probability"),
    _field("verdict", TEXT, "flagged, uncertain or not_flagged, as of the scan"),
)
_TRACK = (
    _field("track_id", INT, "number of the track within the video, from 0: one face within one window"),
    _field("person_id", INT, "the person it belongs to"),
    _field("start_s", REAL, "first sampled frame with the face", "s"),
    _field("end_s", REAL, "last sampled frame with the face", "s"),
    _field("frames", INT, "sampled frames with the face", "count"),
    _field("face_px", REAL, "longer side of the face box", "px of the displayed frame"),
    _field("quality", REAL, "how well the face can be seen, 1 = well", "0 to 1"),
    _field("logit", REAL, "raw logit, positive = fake; null where not scored"),
    _field("p_fake", REAL, "calibrated score, 1 = fake; null where not scored", "probability"),
    _field("reason", TEXT, "why it is not scored: " + ", ".join(TrackReason)),
    _field("boxes", _list(*_BOX), "the face's box in each sampled frame"),
)
_SEGMENT = (
    _field("start_s", REAL, "start", "s"),
    _field("end_s", REAL, "end", "s"),
    _field("person_id", INT, "whose face"),
    _field("p_fake", REAL, "highest calibrated score of a window in it", "probability"),
)

RESULTS = pa.schema(
    [
        _field("video_id", TEXT, "short key: first 16 hex digits of sha256(uri NUL version)", required=True),
        _field("uri", TEXT, "where it lies; local names that are not UTF-8: file:// URIs", required=True),
        _field("version", TEXT, "which content: on S3 the ETag, locally mtime in ns and size", required=True),
        _field("version_id", TEXT, "version id of a versioned bucket; else null"),
        _field("size_bytes", LONG, "size of the file", "bytes"),
        _field("modified_at", TIME, "last change of the file", "UTC"),
        _field("content_sha256", TEXT, "sha256 of the bytes where they passed through anyway; else null"),
        _field("settings_id", TEXT, "hash of all that changes a score; in words in `scans`", required=True),
        _field("weights_id", TEXT, "hash of the weights"),
        _field("policy_id", TEXT, "calibration, thresholds and aggregation behind p_fake and verdict"),
        _field("schema_version", INT, "version of this schema that wrote the row", required=True),
        _field("scan_id", TEXT, "the run that wrote the row; key into `scans`", required=True),
        _field(
            "scan_date", DAY, "day the run started; partition, not inside the files", "UTC", required=True
        ),
        _field("scanned_at", TIME, "when the row was made", "UTC", required=True),
        _field(
            "attempt", INT, "1, 2, 3...: tries of this version with these settings", "count", required=True
        ),
        _field("shadow", FLAG, "true for rows of a trial run, which `latest` leaves out", required=True),
        _field("extra", TEXT_MAP, "further columns of the manifest, carried through; else null"),
        _field("status", TEXT, ", ".join(Status), required=True),
        _field("reason", TEXT, "why it failed: the list below; null unless failed"),
        _field("message", TEXT, "the failure in a sentence, at most 200 characters; null unless failed"),
        _field(
            "complete", FLAG, "true: all there; false: a part is missing or damaged; null: cannot be known"
        ),
        _field("warnings", TEXTS, "any of: " + ", ".join(Warn)),
        _field("integrity", TEXT, "how the download was checked: checksum or length; null for local files"),
        _field("logit", REAL, "raw logit behind p_fake, positive = fake; null unless scored"),
        _field(
            "p_fake",
            REAL,
            "calibrated score of the highest person, 1 = fake; null unless scored",
            "probability",
        ),
        _field("p_fake_max_window", REAL, "highest single window's score: for short edits", "probability"),
        _field("verdict", TEXT, "as of the scan: " + ", ".join(Verdict), required=True),
        _field("threshold_flag", REAL, "p_fake from which a video was flagged", "probability"),
        _field("threshold_uncertain", REAL, "p_fake from which it was uncertain", "probability"),
        _field("threshold_level", TEXT, "what the thresholds were measured on: none, crop or video"),
        _field(
            "threshold_fpr",
            REAL,
            "measured false-positive rate of flagging; null below level video",
            "fraction",
        ),
        _field("duration_s", REAL, "length according to the container", "s"),
        _field("width", INT, "as displayed", "px"),
        _field("height", INT, "as displayed", "px"),
        _field("fps", REAL, "average frame rate", "1/s"),
        _field("codec", TEXT, "video codec, FFmpeg's name"),
        _field("container", TEXT, "container, FFmpeg's name"),
        _field("rotation", INT, "rotation that was applied", "degrees"),
        _field("detector", TEXT, "face detector"),
        _field("engine", TEXT, "what ran the network"),
        _field("dtype", TEXT, "arithmetic of the network: float32 or bfloat16"),
        _field("windows_planned", INT, "short runs of frames that were to be looked at", "count"),
        _field("windows_scored", INT, "of these, with a scored face", "count"),
        _field("frames_decoded", INT, "frames decoded", "count"),
        _field("frames_corrupt", INT, "frames the decoder called damaged", "count"),
        _field("tracks_found", INT, "faces found: one face within one window counts once", "count"),
        _field("tracks_scored", INT, "of these, scored", "count"),
        _field("persons", _list(*_PERSON), "the scored people"),
        _field("tracks", _list(*_TRACK), "every face found, scored or with its reason"),
        _field("segments", _list(*_SEGMENT), "time spans at or above the uncertain threshold"),
        _field("fetch_s", REAL, "time to download and open", "s"),
        _field("extract_cpu_s", REAL, "processor time of decoding and face detection", "s"),
        _field("score_s", REAL, "this video's share of the network's time", "s"),
    ]
)

SCANS = pa.schema(
    [
        _field("scan_id", TEXT, "the run", required=True),
        _field("event", TEXT, "start or end: a run that was killed has no end", required=True),
        _field("at", TIME, "when this row was written", "UTC", required=True),
        _field("started_at", TIME, "start of the run", "UTC", required=True),
        _field("host", TEXT, "machine of the driver"),
        _field("inputs", TEXTS, "what was to be scanned, as given"),
        _field("settings_id", TEXT, "hash of everything that changes a score"),
        _field("settings", TEXT, "the effective settings behind settings_id and all others", "JSON"),
        _field("weights_id", TEXT, "hash of the weights"),
        _field("policy_id", TEXT, "calibration and thresholds"),
        _field("shadow", FLAG, "true for a trial run"),
        _field("listed", LONG, "videos found in the inputs", "videos"),
        _field("planned", LONG, "of these, to be scanned by this run", "videos"),
        _field("done", COUNT_MAP, "rows written, by status", "videos"),
        _field("exit_code", INT, "how the run ended; null at the start"),
        _field("videos_per_s", REAL, "rate over the whole run", "1/s"),
        _field("versions", TEXT_MAP, "versions of the libraries that matter"),
        _field("schema_version", INT, "version of the schema of `results`", required=True),
    ]
)

REVIEWS = pa.schema(
    [
        _field("review_id", TEXT, "random key of the row, 16 hex digits", required=True),
        _field("video_id", TEXT, "the video, as in `results`", required=True),
        _field("uri", TEXT, "where it lies, as in `results`", required=True),
        _field("version", TEXT, "which content, as in `results`", required=True),
        _field("decision", TEXT, "fake, real or unsure; undone: takes back another row", required=True),
        _field("undoes", TEXT, "the review_id that is taken back; null unless undone"),
        _field("note", TEXT, "what the person wrote, at most 2,000 characters; null without"),
        _field("who", TEXT, "the name that the person gave", required=True),
        _field("at", TIME, "when it was decided", "UTC", required=True),
        _field(
            "shown",
            TEXT,
            "what was on the screen: blurred, grey, muted; seconds played, segments visited",
            "JSON",
        ),
        _field("weights_id", TEXT, "hash of the weights behind the score that was shown"),
        _field("settings_id", TEXT, "settings behind the score that was shown"),
        _field("policy_id", TEXT, "calibration and thresholds that were shown"),
        _field("p_fake", REAL, "the score that was shown, 1 = fake", "probability"),
        _field("schema_version", INT, "version of this schema that wrote the row", required=True),
    ]
)


def described_as(schema: pa.Schema, stored: pa.Schema) -> pa.Schema:
    """`schema` in the words of a table that is there already.

    Delta refuses rows whose descriptions differ from the table's, and a later release may word one better.
    """
    return pa.schema([_described_as(f, _member(stored, f.name)) for f in schema])


def _described_as(field: Field, stored: Field | None) -> Field:
    if stored is None:
        return field
    kind = field.type
    if isinstance(kind, pa.ListType) and isinstance(stored.type, pa.ListType):
        kind = pa.list_(_described_as(kind.value_field, stored.type.value_field))
    elif isinstance(kind, pa.StructType) and isinstance(stored.type, pa.StructType):
        members = [kind.field(i) for i in range(kind.num_fields)]
        kind = pa.struct([_described_as(member, _member(stored.type, member.name)) for member in members])
    return pa.field(field.name, kind, nullable=field.nullable, metadata=stored.metadata)


def _member(parent: pa.Schema | pa.StructType, name: str) -> Field | None:
    index = parent.get_field_index(name)
    return parent.field(index) if index >= 0 else None


def video_id(uri: str, version: str) -> str:
    """The short key of a video version, 16 hex digits."""
    return hashlib.sha256(f"{uri}\0{version}".encode()).hexdigest()[:16]


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type_name(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {_type_name(kind.key_type)} to {_type_name(kind.item_type)}"
    if pa.types.is_struct(kind):
        return "struct"
    return "timestamp" if pa.types.is_timestamp(kind) else {"date32[day]": "date"}.get(str(kind), str(kind))


def _lines(fields: Iterable[Field], prefix: str = "") -> Iterator[str]:
    for field in fields:
        text = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        null = "" if field.nullable else ", never null"
        name = f"{prefix}{field.name}"
        kind, unit = f"{_type_name(field.type)}{null}", text.get("unit", "")
        yield f"| `{name}` | {kind} | {unit} | {text['description']} |"
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            yield from _lines(list(field.type.value_type), f"{name}[].")


def _columns(schema: pa.Schema) -> str:
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *_lines(list(schema))])


def _reasons() -> str:
    rows = [f"| `{r}` | {'yes' if r.retryable else 'no'} | {r.meaning} |" for r in Reason]
    return "\n".join(["| reason | tried again by itself | meaning |", "|---|---|---|", *rows])


def document(text: str) -> str:
    """`text` (docs/table.md) with its generated parts as the schema is now; the prose around them stays."""
    parts = {
        "results": _columns(RESULTS),
        "scans": _columns(SCANS),
        "reviews": _columns(REVIEWS),
        "reasons": _reasons(),
    }
    for name, table in parts.items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(\n<!-- end -->)"
        # Doubled, because re.subn reads backslashes in what it puts in.
        text, found = re.subn(pattern, rf"\1{table.replace(chr(92), chr(92) * 2)}\2", text, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"the page needs one part '<!-- generated: {name} -->' ... '<!-- end -->'")
    return text
