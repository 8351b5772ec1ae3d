"""The plain data that flows through one video: options in, facts and clips between, a result out.

Coordinates are of the displayed frame (rotation and sample aspect ratio applied), x to the right and y
downwards. Times are presentation times in seconds from the first frame of the video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_STEEPEST = 1e6

# Raised by hand whenever the scores of an unchanged video with unchanged weights and settings move.
PIPELINE_VERSION = 2

STILLS_BYTES = FILM_BYTES = 64 << 20
"""What one video may hand over for people's eyes: sampled frames as a whole, or a film."""


class Status(StrEnum):
    """What became of a video."""

    SCORED = "scored"
    NO_FACE = "no_face"
    NOT_SCORABLE = "not_scorable"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a score means against the thresholds of a policy."""

    FLAGGED = "flagged"
    UNCERTAIN = "uncertain"
    NOT_FLAGGED = "not_flagged"
    NOT_ASSESSED = "not_assessed"


class Reason(StrEnum):
    """Why a video failed: a closed list. Whether a later run tries again is a property of the reason."""

    EMPTY_FILE = "empty_file"
    NOT_VIDEO = "not_video"
    NO_VIDEO_STREAM = "no_video_stream"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSUPPORTED_CODEC = "unsupported_codec"
    ENCRYPTED = "encrypted"
    INCOMPLETE = "incomplete"
    CORRUPT = "corrupt"
    NO_FRAMES = "no_frames"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    TOO_MANY_STREAMS = "too_many_streams"
    DECODE_TIMEOUT = "decode_timeout"
    DECODE_MEMORY = "decode_memory"
    DECODER_CRASH = "decoder_crash"
    NOT_FOUND = "not_found"
    ACCESS_DENIED = "access_denied"
    ARCHIVED = "archived"
    CHANGED_DURING_READ = "changed_during_read"
    FETCH_FAILED = "fetch_failed"
    MODEL_ERROR = "model_error"
    LOST = "lost"
    INTERNAL_ERROR = "internal_error"

    @property
    def meaning(self) -> str:
        """The reason in words, for people."""
        return _REASONS[self][0]

    @property
    def retryable(self) -> bool:
        """True if a later run tries the video again by itself (three attempts in all)."""
        return _REASONS[self][1]


_REASONS: dict[Reason, tuple[str, bool]] = {
    Reason.EMPTY_FILE: ("the file has no bytes", False),
    Reason.NOT_VIDEO: ("the content is text, an image, an archive, a playlist, or unknown", False),
    Reason.NO_VIDEO_STREAM: ("the file holds sound only, or only cover art", False),
    Reason.UNSUPPORTED_FORMAT: ("the container is not on the list of those that are opened", False),
    Reason.UNSUPPORTED_CODEC: ("the video codec is not on the list of those that are decoded", False),
    Reason.ENCRYPTED: ("the video is protected and cannot be decoded without its key", False),
    Reason.INCOMPLETE: ("the file is cut short, or its index is missing: an unfinished upload", False),
    Reason.CORRUPT: ("the file opens, but too few of its frames can be decoded", False),
    Reason.NO_FRAMES: ("the file opens without an error, but not one frame comes out", False),
    Reason.TOO_LARGE: ("the frame or the file is larger than the settings allow", False),
    Reason.TOO_LONG: ("the video is longer than the settings allow", False),
    Reason.TOO_MANY_STREAMS: ("the file holds more streams than the settings allow", False),
    Reason.DECODE_TIMEOUT: ("decoding was stopped at its time limit", False),
    Reason.DECODE_MEMORY: ("decoding was stopped at its memory limit", False),
    Reason.DECODER_CRASH: ("the decoding process died", False),
    Reason.NOT_FOUND: ("the video is not there, or no longer", True),
    Reason.ACCESS_DENIED: ("the store refused to hand out the video", True),
    Reason.ARCHIVED: ("the object lies in an archive class and must be restored first", True),
    Reason.CHANGED_DURING_READ: ("the video was replaced while it was read", True),
    Reason.FETCH_FAILED: ("the store or the network failed, also when tried again", True),
    Reason.MODEL_ERROR: ("the network could not score the clips", True),
    Reason.LOST: ("the worker died with the video in hand, also when tried again alone", True),
    Reason.INTERNAL_ERROR: ("a bug of deepfake-scan; please report it", True),
}


class TrackReason(StrEnum):
    """Why a track carries no score."""

    TOO_SMALL = "too_small"
    TOO_SHORT = "too_short"
    LOW_QUALITY = "low_quality"
    CAP = "cap"


class Warn(StrEnum):
    """What a person should know of a scored video: a closed list."""

    TRUNCATED = "truncated"
    DAMAGED_FRAMES = "damaged_frames"
    RESOLUTION_CHANGED = "resolution_changed"
    DURATION_UNKNOWN = "duration_unknown"
    TIMESTAMPS_INVALID = "timestamps_invalid"
    CLIP_BUDGET = "clip_budget"


DetectorName = Literal["yunet", "hog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which frames are looked at.

    `even` spreads `windows` windows of `frames` frames, `spacing_s` apart, over the whole presentation time;
    `every_s` adds windows to long videos until they lie that close, up to `max_windows`.
    `first` takes the first `frames` consecutive frames, as the reference application did.
    """

    policy: Literal["even", "first"] = "even"
    frames: int = 10
    spacing_s: float = 0.1
    windows: int = 2
    every_s: float | None = None
    max_windows: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CropSpec:
    """From a face box to the pixels that the network sees.

    A square of `scale` times the box's longer side, its centre `shift_y` of the square's side below the
    box's centre, moved (and if need be shrunk) to lie inside the frame, resized to `size` px: by area when it
    shrinks, bilinear when it grows. The defaults reproduce the labelled DFDC crops (`make bench BAR=crops`:
    the 6,088 of 6,174 in which YuNet finds a face). `square=False` squashes the box itself, scaled, as the
    reference did.
    """

    size: int = 112
    scale: float = 0.90
    shift_y: float = 0.03
    square: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one video may cost; beyond a limit it fails with a reason, never as clean.

    `wall_s` is the most; `wall_limit_s` says what a short video has. `opening_cpu_s` is for what tells how
    long a video is, and its first picture: some headers of a megabyte cost FFmpeg minutes. With
    `require_walls` nothing is decoded where the kernel gives less than `Isolation.complete`.
    """

    wall_s: float = 300.0
    cpu_s: int = 240
    opening_cpu_s: int = 7
    memory_bytes: int = 1 << 30
    max_pixels: int = 9_437_184
    max_streams: int = 32
    max_clip_bytes: int = 128 << 20
    require_walls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractOptions:
    """Everything that decides which pixels of a video reach the network, and whose they are taken for."""

    sampling: Sampling = field(default_factory=Sampling)
    crop: CropSpec = field(default_factory=CropSpec)
    detector: DetectorName = "yunet"
    detector_bgr: bool = False
    min_face_px: int = 40
    min_frames: int = 3
    max_tracks_per_window: int = 8
    link_identities: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Facts of the container and its first video stream; width and height in px as displayed."""

    duration_s: float | None
    width: int
    height: int
    fps: float | None
    codec: str
    container: str
    rotation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A short run of sampled frames: planned times in seconds."""

    index: int
    times_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FaceBox:
    """One detected face in one frame, in px of the displayed frame; `score` is the detector's, in [0, 1]."""

    x: float
    y: float
    w: float
    h: float
    score: float

    @property
    def side(self) -> float:
        """The longer side, px."""
        return max(self.w, self.h)

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """x, y, width, height in px."""
        return self.x, self.y, self.w, self.h


@dataclass(frozen=True, slots=True)
class TimedBox:
    """A box at a time: fractions of the displayed frame, so that it fits the video at any size."""

    t_s: float
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One face within one window. `clip` is its index among the clips, None where it is not scored."""

    track_id: int
    person_id: int
    window: int
    start_s: float
    end_s: float
    face_px: float
    quality: float
    boxes: tuple[TimedBox, ...]
    clip: int | None
    reason: TrackReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What `extract` learned of a video, apart from the pixels. `failure` is None unless it failed."""

    info: VideoInfo | None = None
    failure: Reason | None = None
    message: str = ""
    complete: bool | None = None
    warnings: tuple[Warn, ...] = ()
    windows_planned: int = 0
    frames_decoded: int = 0
    frames_corrupt: int = 0
    tracks: tuple[Track, ...] = ()


@dataclass(frozen=True, slots=True)
class Clips:
    """The crops of a video's scored tracks.

    Attributes:
        pixels: `[N, T, H, W, 3] uint8 RGB`; N may be 0.
        mask: `[N, T] bool`, False where a clip has no frame (short window, or the face was not there).
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 5 or self.pixels.shape[-1] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"clips must be [N, T, H, W, 3] uint8: {self.pixels.shape} {self.pixels.dtype}")
        if self.mask.shape != self.pixels.shape[:2] or self.mask.dtype != np.bool_:
            raise ValueError(
                f"mask must be {self.pixels.shape[:2]} bool: {self.mask.shape} {self.mask.dtype}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return f"Clips(shape={self.pixels.shape}, frames={int(self.mask.sum())})"

    @staticmethod
    def none(frames: int = 0, size: int = 0) -> Clips:
        """Clips of a video in which nothing can be scored."""
        return Clips(np.zeros((0, frames, size, size, 3), np.uint8), np.zeros((0, frames), np.bool_))


@dataclass(frozen=True, slots=True)
class Stills:
    """Sampled frames as a whole and small, for people's eyes: `pixels [F, H, W, 3] uint8 RGB`, in order."""

    times_s: tuple[float, ...]
    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.pixels.shape[:1] != (len(self.times_s),) or self.pixels.dtype != np.uint8:
            raise ValueError(
                f"stills: {len(self.times_s)} times, pixels {self.pixels.shape} {self.pixels.dtype}"
            )

    @staticmethod
    def none() -> Stills:
        """No frames."""
        return Stills((), np.zeros((0, 0, 0, 3), np.uint8))


@dataclass(frozen=True, slots=True)
class Extraction:
    """What `extract` gives: facts, and one clip per scored track.

    Only where they were asked for, `stills` of all windows, or `film`: a small H.264 in MP4 in place of the
    clips.
    """

    facts: Facts
    clips: Clips
    cpu_s: float = 0.0
    peak_bytes: int = 0
    stills: Stills = field(default_factory=Stills.none)
    film: bytes = b""

    @staticmethod
    def failed(reason: Reason, message: str) -> Extraction:
        """Of a video of which nothing can be scored."""
        return Extraction(Facts(failure=reason, message=message), Clips.none())


@dataclass(frozen=True, slots=True)
class ClipScore:
    """Raw logits of one clip, positive = fake. `frame_logits` holds NaN where the mask is False."""

    logit: float
    sequence_logit: float
    frame_logits: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How logits become scores and verdicts: comes with the weights file, or from the user's own calibration.

    p = sigmoid(logit * slope + bias). `flag` and `uncertain` are thresholds on p with the false-positive
    rates `flag_fpr` and `uncertain_fpr` at `level`: `crop` as shipped, `video` once measured by `calibrate`.
    The intervals hold the true rates with 95 %. `strict` is the threshold at 0.1 %, None below 3,000 groups.
    """

    policy_id: str
    slope: float
    bias: float
    flag: float
    flag_fpr: float
    uncertain: float
    uncertain_fpr: float
    level: Literal["none", "crop", "video"]
    flag_interval: tuple[float, float] | None = None
    uncertain_interval: tuple[float, float] | None = None
    groups: int = 0
    data: str = ""
    strict: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for numbers by which nothing can be judged."""
        if not (math.isfinite(self.bias) and 0 < self.slope <= _STEEPEST and abs(self.bias) <= _STEEPEST):
            raise ValueError("slope and bias: not those of a calibration")
        if not 0 <= self.uncertain <= self.flag <= 1 or not 0 <= (self.strict or 0) <= 1:
            raise ValueError(
                "uncertain, flag, strict: not thresholds from 0 to 1, the first below the second"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackScore:
    """A track with its score; both None where it has a reason instead."""

    track: Track
    logit: float | None
    p_fake: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The scored tracks of one person over all windows."""

    person_id: int
    start_s: float
    end_s: float
    windows: int
    logit: float
    p_fake: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Neighbouring windows in which a person's score reaches the uncertain threshold."""

    start_s: float
    end_s: float
    person_id: int
    p_fake: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """The answer for one video. Scores are None unless `status` is scored; 0.5 is never a stand-in."""

    facts: Facts
    status: Status
    verdict: Verdict
    logit: float | None = None
    p_fake: float | None = None
    p_fake_max_window: float | None = None
    windows_scored: int = 0
    persons: tuple[Person, ...] = ()
    tracks: tuple[TrackScore, ...] = ()
    segments: tuple[Segment, ...] = ()
