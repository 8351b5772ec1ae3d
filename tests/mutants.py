"""Damaged videos through the real extraction child: one number names a container and its damage.

What the child was shown is decoded once more in a process of its own, so that a video that passes as complete
is known to have shown what the undamaged one shows, or something else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from detector.sandbox import Sandbox
from detector.types import ExtractOptions, Limits, Reason, Sampling
from tests.containers import SIZED, UNSIZED, Kind
from tests.film import Actor, Size, film
from tests.media import write_video
from tests.mutations import mutated
from tests.shown import Shown, shown_by

# 50 frames in so many bytes: about 120 kB.
_RATE = {"b": "480k", "fflags": "+bitexact"}
_STEADY = {"deadline": "good", "cpu-used": "5"}  # in real time it encodes as well as there is time
_X265 = _RATE | {
    "preset": "ultrafast",
    "x265-params": "log-level=none:bitrate=480:pools=none:frame-threads=1",
}
_USUAL: Size = (320, 240)
_SIZES: Mapping[str, tuple[Size, float]] = {
    "3gp, h263": ((352, 288), 90),  # one of the five sizes that the codec knows
    "gif": ((80, 80), 56),
    "mov, prores": ((128, 96), 70),
}


def _rated(kind: Kind) -> Kind:
    steady = _STEADY if "vp" in kind.codec else {}
    return kind._replace(options=_RATE | dict(kind.options) | steady)


MEASURED = {
    "mp4, h264": _rated(SIZED["mp4, index last"]),
    "mkv, vp9": _rated(SIZED["mkv"]),
    "avi, mpeg4": _rated(SIZED["avi"]),
    "webm, av1": Kind("webm", "libsvtav1", _RATE | {"preset": "12", "svtav1-params": "lp=1"}),
}
"""Those of which it is known how much damage no sign of any kind gives away."""
OTHERS = {
    "mp4, index first": _rated(SIZED["mp4, index first"]),
    "mp4, fragmented": _rated(SIZED["mp4, fragmented"]),
    "mp4, hevc": Kind("mp4", "libx265", _X265),
    "mov, prores": Kind("mov", "prores_ks", {"profile": "0"}),
    "mov, mjpeg": Kind("mov", "mjpeg", _RATE),
    "3gp, h263": Kind("3gp", "h263", _RATE),
    "mkv, h264": Kind("mkv", "libx264", _RATE),
    "webm, vp8": _rated(SIZED["webm"]),
    "webm, live": _rated(UNSIZED["webm, live"]),
    "avi, mjpeg": Kind("avi", "mjpeg", _RATE),
    "flv, flv1": _rated(SIZED["flv"]),
    "flv, h264": Kind("flv", "libx264", _RATE),
    "ts, h264": _rated(UNSIZED["ts"]),
    "mpg, mpeg2": Kind("mpg", "mpeg2video", _RATE),
    "wmv, wmv2": Kind("wmv", "wmv2", _RATE),
    "ogv, vp8": Kind("ogv", "libvpx", _RATE | _STEADY),
    "gif": Kind("gif", "gif", {}),
}
SEEDS = MEASURED | OTHERS
# Each of those with a bar three times as often as any other.
_TURNS = [*MEASURED, *MEASURED, *MEASURED, *OTHERS]

LIMITS = Limits(wall_s=30, cpu_s=24)
"""As short as a scan allows on a busy machine: undamaged the files need a tenth of a second."""
OPTIONS = ExtractOptions(limits=LIMITS)
_EVERY_FRAME = ExtractOptions(sampling=Sampling(policy="first", frames=1000), limits=LIMITS)


def container_of(seed: int) -> str:
    """The container that a seed damages."""
    return _TURNS[seed % len(_TURNS)]


def write_seeds(folder: Path) -> dict[str, bytes]:
    """One film of a face in each of `SEEDS`, 2 s, 50 frames, about 120 kB; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _write(folder, name, kind) for name, kind in SEEDS.items()}


def _write(folder: Path, name: str, kind: Kind) -> bytes:
    path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.{kind.suffix}"
    if not path.exists():
        size, face_px = _SIZES.get(name, (_USUAL, 90))
        frames = film(50, size, 25, [Actor(face_px, motion=0.5)], "plain")
        part = path.with_name(f"part-{path.name}")
        write_video(part, frames, codec=kind.codec, options=dict(kind.options)).replace(path)
    return path.read_bytes()


class Trial(msgspec.Struct, frozen=True):
    """What became of one damaged file.

    Attributes:
        outcome: `failed as REASON`, `complete`, `not complete` or `complete is not known`.
        shown: `same`, `moved` (pictures of the undamaged video, but others, or at other times), `other` (a
            picture that the undamaged video does not hold), `none`, or `not looked at`.
        agrees: whether the second process decoded the very frames that the child did.
    """

    seed: int
    container: str
    outcome: str
    message: str
    shown: str
    agrees: bool
    helper_lived: bool
    wall_s: float
    cpu_s: float
    peak_bytes: int

    @property
    def complaint(self) -> str | None:
        """What must never happen, None if it did not."""
        if not self.helper_lived:
            return "the helper died"
        if self.outcome in (f"failed as {Reason.INTERNAL_ERROR}", f"failed as {Reason.DECODE_TIMEOUT}"):
            return f"{self.outcome}: {self.message}"
        if self.wall_s > LIMITS.wall_s + 5:
            return f"it took {self.wall_s:.0f} s, limit {LIMITS.wall_s:g} s"
        return None


@dataclass(frozen=True, slots=True)
class _Original:
    shown: Shown
    all_pictures: frozenset[str]


class Trials:
    """Damages files and sends them through a sandbox, one after the other.

    Args:
        bodies: from `write_seeds`.
        folder: for the file at hand.
        look: also decode each file a second time, for `Trial.shown`.
        options: how videos are sampled; as a scan does it, if nothing is said.
    """

    def __init__(
        self,
        bodies: Mapping[str, bytes],
        folder: Path,
        sandbox: Sandbox,
        *,
        look: bool,
        options: ExtractOptions = OPTIONS,
    ) -> None:
        self._path, self._sandbox, self._look, self._options = folder / "damaged", sandbox, look, options
        self._bodies = bodies
        self._originals = {name: self._original(body) for name, body in bodies.items()} if look else {}

    def _original(self, body: bytes) -> _Original:
        self._path.write_bytes(body)
        every = shown_by(self._path, _EVERY_FRAME)
        return _Original(shown_by(self._path, self._options), frozenset(every.pictures))

    def undamaged(self, name: str) -> Trial:
        """The file itself."""
        return self._trial(-1, name, self._bodies[name])

    def __call__(self, seed: int) -> Trial:
        """The file that the seed damages."""
        name = container_of(seed)
        return self._trial(seed, name, mutated(self._bodies[name], seed))

    def _trial(self, seed: int, name: str, body: bytes) -> Trial:
        self._path.write_bytes(body)
        helper, started = self._sandbox.helper_pid, time.monotonic()
        with self._path.open("rb") as file:
            extraction = self._sandbox.extract(file, self._options)
        wall_s, facts = time.monotonic() - started, extraction.facts
        shown, agrees = "not looked at", True
        if self._look:
            seen = shown_by(self._path, self._options)
            shown = _compared(seen, self._originals[name])
            decoded = facts.frames_decoded, facts.frames_corrupt
            agrees = facts.failure is not None or decoded == (seen.decoded, seen.corrupt)
        whole = {True: "complete", False: "not complete", None: "complete is not known"}[facts.complete]
        return Trial(
            seed=seed,
            container=name,
            outcome=f"failed as {facts.failure}" if facts.failure else whole,
            message=facts.message,
            shown=shown,
            agrees=agrees,
            helper_lived=self._sandbox.helper_pid == helper,
            wall_s=wall_s,
            cpu_s=extraction.cpu_s,
            peak_bytes=extraction.peak_bytes,
        )


def _compared(seen: Shown, original: _Original) -> str:
    if not seen.pictures:
        return "none"
    if not original.all_pictures.issuperset(seen.pictures):
        return "other"
    same = (seen.times_s, seen.pictures) == (original.shown.times_s, original.shown.pictures)
    return "same" if same else "moved"
