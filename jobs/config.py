"""Settings of a scan: one flat, strict, frozen model, filled from files, environment and flags.

Precedence: defaults < YAML files in order < `DEEPFAKE_SCAN_<KEY>` < `--set key=value` < flags. Each source is
checked by itself, so that a mistake is found even where a later source replaces the value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from detector.errors import SettingsError
from detector.types import PIPELINE_VERSION, CropSpec, DetectorName, ExtractOptions, Limits, Sampling
from jobs.config_load import Loaded, load_as
from jobs.redact import server_of
from jobs.units import (
    format_duration,
    format_percent,
    format_size,
    parse_duration,
    parse_percent,
    parse_size,
)

if TYPE_CHECKING:
    from detector.weights import Header

# Windows per video. The reference application looked at the first 10, 20 or 100 frames only.
PROFILE_WINDOWS = {"fast": 1, "balanced": 2, "thorough": 10}

# Share of a video's wall time that may be CPU time: one thread decodes; a full machine stretches wall time.
_CPU_SHARE = 0.8


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):  # pydantic would read `yes` as 1
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


def _every(value: object) -> float:
    seconds = parse_duration(value)
    if not 1 <= seconds <= 86_400:
        raise ValueError(f"{value!r} is not between 1s and 24h")
    return seconds


def _written(as_text: Callable[[Any], object]) -> PlainSerializer:
    return PlainSerializer(as_text, when_used="json-unless-none")


Number = BeforeValidator(_refuse_bool)
Count = Annotated[int, Number, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Duration = Annotated[float, BeforeValidator(_every), _written(format_duration)]
Percent = Annotated[float, BeforeValidator(parse_percent), _written(format_percent)]
Size = Annotated[int, BeforeValidator(parse_size), _written(format_size)]
Webhook = Annotated[Text, _written(server_of)]


class ScanSettings(BaseModel):
    """Every setting of a scan. Values are parsed: durations in seconds, sizes in bytes, shares in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    inputs: list[Text] = Field(default=[], description="Folders and files to scan.")
    output: Text | None = Field(
        default=None,
        description="Folder that holds the results: OUTPUT/results is the table. null: must be given.",
    )
    include: list[Text] = Field(
        default=[],
        description="Which files of a folder are videos: patterns such as '*.mp4'; '*' takes all. "
        "[]: the usual endings of videos. A file that is named singly is always taken.",
    )
    exclude: list[Text] = Field(
        default=[], description="Files of folders and prefixes that are left out: patterns such as 'trash/*'."
    )
    manifests: list[Text] = Field(
        default=[],
        description="Lists of videos, on disk or on S3: Parquet, CSV or JSON lines with a column uri, or the "
        "manifest.json of an S3 Inventory in Parquet. Further columns arrive in the table's column extra.",
    )
    min_bytes: Size | None = Field(
        default=None, description="Smaller files are left out, such as 10KB. null: none are."
    )
    min_age: Duration | None = Field(
        default=None,
        description="Videos that changed less than this ago are left for a later scan, such as 10m, because "
        "they may still be uploaded (1s to 24h). null: none are.",
    )
    sample: Percent | None = Field(
        default=None,
        description="Only this share of the videos, such as 1%, told by their names, so that it is the same "
        "share in every run. null: all of them.",
    )
    shadow: bool = Field(
        default=False,
        description="A trial: its rows answer other trials only and are left out of `latest`. With sample, "
        "to try other weights or settings beside those in use.",
    )
    profile: Literal["fast", "balanced", "thorough"] = Field(
        default="balanced",
        description="How closely each video is looked at: fast 1, balanced 2, thorough 10 windows of about "
        "one second, spread evenly over the video.",
    )
    windows: Annotated[int, Number, Field(ge=1, le=200)] | None = Field(
        default=None, description="Windows per video, 1 to 200. null: as the profile says."
    )
    every: Duration | None = Field(
        default=None,
        description="Add windows to long videos until they lie this close, such as 30s or 2m (1s to 24h; at "
        "most 200 windows per video). null: the number of windows does not depend on the duration.",
    )
    weights: Text = Field(
        default="default",
        description="The network: default, the name of a shipped weights file, a path, or an object and its "
        "sha256 as s3://bucket/key.safetensors#sha256=HEX.",
    )
    policy: Text | None = Field(
        default=None,
        description="Calibration and thresholds of your own: a file that `deepfake-scan calibrate` wrote for "
        "these weights and settings. null: those in the weights file.",
    )
    detector: DetectorName | None = Field(
        default=None,
        description="Face detector, yunet or hog. null: the one that the weights were trained with; another "
        "one means other crops, and scores that nobody has measured.",
    )
    min_face_px: Annotated[int, Number, Field(ge=8, le=1024)] = Field(
        default=40,
        description="Faces whose box is smaller than this are counted but not scored: px, 8 to 1024.",
    )
    link_identities: bool = Field(
        default=False,
        description="Join persons of several windows by face_recognition's embedding, a biometric template "
        "that is made in memory and dropped with the video. false: by place and size only.",
    )
    address: Text = Field(
        default="local",
        description="Where it runs: local starts Ray on this machine, in-process does without Ray (one video "
        "at a time), anything else is the address of a Ray cluster, such as auto or ray://head:10001.",
    )
    insecure: bool = Field(
        default=False,
        description="Also use a cluster of several machines that asks for no token: whoever reaches such a "
        "cluster can run code on it. false: refuse it.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="What the network runs on. auto: a GPU where the cluster has one."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the network. auto: bfloat16 on GPUs and on processors that have it.",
    )
    extract_actors: Count | None = Field(
        default=None,
        description="Processes that decode and find faces. null: one per CPU core of the cluster.",
    )
    score_actors: Count | None = Field(
        default=None,
        description="Processes that run the network. null: as many as the GPUs or cores are good for.",
    )
    gpus_per_score_actor: Annotated[float, Number, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Share of a GPU that one of them takes, above 0 and up to 1; 0.5: two share a GPU.",
    )
    score_batch: Annotated[int, Number, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Videos that are scored together, 1 to 1024. null: 4 on a CPU, 16 on a GPU."
    )
    wave_size: Count | None = Field(
        default=None,
        description="Videos that go through the graph at once. null: about half an hour of work.",
    )
    commit_rows: Annotated[int, Number, Field(ge=1, le=1_000_000)] = Field(
        default=5000, description="Rows after which results are committed to the table, 1 to 1000000."
    )
    commit_every_s: Annotated[float, Number, Field(ge=1, le=3600)] = Field(
        default=300, description="Seconds after which they are committed in any case, 1 to 3600."
    )
    retry: Literal["none", "failed"] = Field(
        default="none",
        description="failed: also try again what failed for good. What failed for a passing reason is tried "
        "again in any case, three attempts in all.",
    )
    rescan: bool = Field(
        default=False,
        description="Scan again what the table holds under other settings or weights. false: a scan that "
        "would do so stops before it starts and says how many videos it concerns.",
    )
    wait: bool = Field(
        default=False, description="Wait while another scan holds the table. false: exit with code 5."
    )
    take_over: bool = Field(
        default=False,
        description="Take the table from another scan that holds it, when it is known to be dead or to hang; "
        "nothing is doubled, its next commit fails.",
    )
    deadline: Duration | None = Field(
        default=None,
        description="Stop this long after the start, such as 6h (1s to 24h): what is done is committed, the "
        "rest is left to the next scan, exit code 6. null: go on to the end.",
    )
    limit: Count | None = Field(default=None, description="Stop after this many videos. null: all of them.")
    price_per_hour: Annotated[float, Number, Field(gt=0)] | None = Field(
        default=None,
        description="What an hour of all machines costs, in your currency: --dry-run then says what the scan "
        "will cost. null: it does not.",
    )
    notify: list[Webhook] = Field(
        default=[],
        description="URLs that are told how the scan ended, by a webhook signed as standardwebhooks.com has "
        "it with the secret in the variable DEEPFAKE_WEBHOOK_SECRET. Only their servers are shown and kept.",
    )
    metrics_file: Text | None = Field(
        default=None,
        description="Text file for Prometheus' node exporter, replaced at the end of each scan: when it "
        "ended, when one last succeeded, counts. null: none.",
    )
    max_failed: Percent | None = Field(
        default=None,
        description="End with exit code 0 while no more than this share failed, such as 5%. null: 0%.",
    )
    video_time_limit_s: Annotated[float, Number, Field(ge=1, le=86_400)] = Field(
        default=300,
        description="Seconds that decoding one video may take at most, 1 to 86400; beyond, it is "
        "decode_timeout. A short one has less: a minute, its own duration and 2 s for each frame looked at.",
    )
    video_memory_mib: Annotated[int, Number, Field(ge=256, le=65_536)] = Field(
        default=1024,
        description="MiB that decoding one video may take, 256 to 65536; beyond, it is decode_memory.",
    )
    require_sandbox: bool = Field(
        default=False,
        description="Refuse to decode on a node whose kernel gives less than both walls around the decoding "
        "process, seccomp and Landlock. false: use what there is, and say what is missing.",
    )
    max_bytes: Size = Field(
        default=5_000_000_000,
        description="Largest video that is read, such as 5GB or 800MB; beyond, it is too_large.",
    )
    temp_bytes: Size = Field(
        default=20_000_000_000,
        description="Disk of a node for downloads, such as 20GB: each extracting actor has a share, and "
        "fetches the next video only within it. A video larger than the share is fetched when it is the "
        "actor's only one, so that max_bytes for each actor is what a node needs at most.",
    )

    def extract_options(self, header: Header) -> ExtractOptions:
        """How a video is turned into clips: what the weights were trained for, with these settings' changes.

        Raises:
            SettingsError: `windows` or `every` is set, and the weights look at the first frames only.
        """
        return ExtractOptions(
            sampling=self._sampling(header),
            crop=header.crop,
            detector=self.detector or header.detector.name,
            detector_bgr=header.detector.colour == "bgr",
            min_face_px=self.min_face_px,
            link_identities=self.link_identities,
            min_frames=min(ExtractOptions().min_frames, header.input.frames),
            limits=Limits(
                wall_s=self.video_time_limit_s,
                cpu_s=max(1, round(self.video_time_limit_s * _CPU_SHARE)),
                memory_bytes=self.video_memory_mib << 20,
                require_walls=self.require_sandbox,
            ),
        )

    def _sampling(self, header: Header) -> Sampling:
        sampling = header.sampling
        if sampling.policy == "even":
            return replace(
                sampling, windows=self.windows or PROFILE_WINDOWS[self.profile], every_s=self.every
            )
        if self.windows or self.every:
            raise SettingsError(
                f"windows, every: the weights {header.name} look at the first {sampling.frames} frames only",
                hint="Leave both out, or choose other weights.",
            )
        return replace(sampling, windows=1, every_s=None)


def load(
    files: Iterable[str | Path] = (),
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
) -> Loaded[ScanSettings]:
    """Settings of a scan from all sources, as `load_as`."""
    return load_as(ScanSettings, files, env, overrides, sets)


def settings_words(options: ExtractOptions, weights_id: str) -> dict[str, Any]:
    """Everything that changes the score of a video, by readable name.

    Limits of time and memory, number format and device are left out: what they change is failures and cost.
    A new option counts unless it is a limit, so that forgetting it here cannot mix scores.
    """
    words: dict[str, Any] = {"weights_id": weights_id, "pipeline_version": PIPELINE_VERSION}
    for name, value in asdict(options).items():
        if name == "limits":
            words["max_clip_bytes"] = value["max_clip_bytes"]
        elif isinstance(value, dict):
            words |= {f"{name}.{part}": inner for part, inner in value.items()}
        else:
            words[name] = value
    return words


def settings_id(options: ExtractOptions, weights_id: str) -> str:
    """12 hex digits over `settings_words`: rows with equal ids have comparable scores."""
    text = json.dumps(settings_words(options, weights_id), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def options_of(words: Mapping[str, Any]) -> ExtractOptions:
    """The options behind `settings_words`, with the limits of today; the way back.

    Raises:
        SettingsError: they are those of another release, which knew other settings.
    """
    parts: dict[str, dict[str, Any]] = {}
    plain: dict[str, Any] = {}
    for name, value in words.items():
        group, _, inner = name.rpartition(".")
        (parts.setdefault(group, {}) if group else plain)[inner] = value
    version, _ = plain.pop("pipeline_version", None), plain.pop("weights_id", None)
    limits = Limits(max_clip_bytes=plain.pop("max_clip_bytes", Limits().max_clip_bytes))
    try:
        options = ExtractOptions(
            sampling=Sampling(**parts.pop("sampling")),
            crop=CropSpec(**parts.pop("crop")),
            limits=limits,
            **plain,
        )
    except (TypeError, KeyError, ValueError) as error:
        raise SettingsError(f"settings of another release: {error}") from error
    if version != PIPELINE_VERSION or parts:
        raise SettingsError(f"settings of another release: its pipeline_version was {version}")
    return options
