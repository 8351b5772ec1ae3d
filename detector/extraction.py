"""An open video file -> facts and clips. Runs in the sandboxed child, so nothing here imports torch."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.crops import crop
from detector.errors import VideoError
from detector.faces import Look
from detector.identities import Embed, Embedding, join
from detector.picture import Picture
from detector.search import find_faces
from detector.tracks import FaceTrack, SceneCounter, assign_persons, link
from detector.types import (
    STILLS_BYTES,
    Clips,
    Extraction,
    ExtractOptions,
    FaceBox,
    Facts,
    Reason,
    Stills,
    TimedBox,
    Track,
    TrackReason,
    Warn,
    Window,
)
from detector.video import Video, plan_windows

# Of so many windows one is looked at closely, whatever is found in it.
_CLOSELY_EVERY = 5
# Long side of what is enough to tell scenes apart, px.
_GLANCE_PX = 128


@dataclass(slots=True)
class _Clip:
    """Crops of one track before they are stacked: `pixels [T, H, W, 3] uint8`, frames in use first."""

    pixels: NDArray[np.uint8]
    frames: int


class _Budget:
    """Bytes of clips that a video may still hand over."""

    def __init__(self, total: int) -> None:
        self.left = total

    def take(self, size: int) -> bool:
        """Book `size` bytes if they are there."""
        if size > self.left:
            return False
        self.left -= size
        return True


def extract_clips(
    file: IO[bytes],
    options: ExtractOptions,
    look: Look,
    embed: Embed | None = None,
    opened: Callable[[float | None], None] = lambda _: None,
    stills_px: int = 0,
) -> Extraction:
    """Decode, detect, track and crop one video.

    Args:
        file: the video, seekable, opened for reading in binary.
        options: what to sample and how to crop.
        look: the face detector.
        embed: the embedding of a face, where `options.link_identities` asks for it.
        opened: is told the video's duration in seconds, where there is one, as soon as it is known.
        stills_px: long side of the sampled frames that are also handed over as a whole; 0: none are.

    Returns:
        Facts and clips. A video that cannot be scored gives facts with `failure` set; nothing is raised.
    """
    try:
        with Video(file, options.limits) as video:
            opened(video.info.duration_s)
            return _extract(video, options, look, embed, stills_px)
    except VideoError as error:
        return Extraction.failed(error.reason, str(error))
    except MemoryError:
        return Extraction.failed(Reason.DECODE_MEMORY, "decoding needs more memory than allowed")


def _extract(
    video: Video, options: ExtractOptions, look: Look, embed: Embed | None, stills_px: int
) -> Extraction:
    see = _with_blue_first(look) if options.detector_bgr else look
    run = partial(_pass, video, options, see, embed, stills_px)
    passed = run(plan_windows(video.info.duration_s, options.sampling))
    if _is_shorter_than_told(video) and video.end_s:
        video.again()
        passed = run(plan_windows(video.end_s, options.sampling))
    _refuse_remnant(video, passed)
    assign_persons(passed.tracks)
    join(passed.tracks, passed.embeddings)
    return Extraction(_facts(video, passed), _stack(passed.clips, options), stills=_stills(passed))


def _is_shorter_than_told(video: Video) -> bool:
    """Whether an undamaged video ends before its container does, as where the sound is longer."""
    trusted = video.whole or video.info.duration_s is None
    return bool(video.times_missed and trusted and not (video.frames_corrupt or video.lacks_pictures))


@dataclass(slots=True)
class _Pass:
    """What one pass over the windows found; `reasons` and `tracks` are parallel."""

    windows: Sequence[Window]
    tracks: list[FaceTrack] = field(default_factory=list)
    reasons: list[TrackReason | None] = field(default_factory=list)
    clips: list[_Clip] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)
    sizes: list[list[tuple[int, int]]] = field(default_factory=list)
    embeddings: dict[int, Embedding] = field(default_factory=dict)
    stills: list[NDArray[np.uint8]] = field(default_factory=list)

    @property
    def planned(self) -> int:
        """Moments that were to be looked at."""
        return sum(len(window.times_s) for window in self.windows)


def _pass(
    video: Video,
    options: ExtractOptions,
    look: Look,
    embed: Embed | None,
    stills_px: int,
    windows: list[Window],
) -> _Pass:
    made, scenes, budget = _Pass(windows), SceneCounter(), _Budget(options.limits.max_clip_bytes)
    consecutive = options.sampling.policy == "first"
    for window, frames in zip(windows, video.sample(windows, consecutive=consecutive), strict=True):
        pictures = [frame.picture for frame in frames]
        seen = [scenes.scene(picture.glance(_GLANCE_PX)) for picture in pictures]
        found = find_faces(pictures, seen, look, closely=window.index % _CLOSELY_EVERY == 0)
        here = link(window.index, found, seen)
        here.sort(key=lambda track: (-track.face_px, min(track.boxes)))
        why = _select(here, len(frames), options, budget)
        scored = {len(made.tracks) + i: track for i, track in enumerate(here) if why[i] is None}
        made.clips += [_cut_out(pictures, track, options) for track in scored.values()]
        if embed is not None:
            made.embeddings |= {i: _embed(pictures, track, embed) for i, track in scored.items()}
        made.tracks += here
        made.reasons += why
        made.times.append([frame.t_s for frame in frames])
        made.sizes.append([(picture.width, picture.height) for picture in pictures])
        if stills_px:
            made.stills += [picture.shrunk(stills_px) for picture in pictures]
        del frames, pictures
        gc.collect()  # PyAV's frames and planes hold each other, and ten frames of 4K are 120 MB
    return made


def _select(
    tracks: Sequence[FaceTrack], frames: int, options: ExtractOptions, budget: _Budget
) -> list[TrackReason | None]:
    """Why each track of a window is not scored, None where it is; the largest faces come first."""
    clip_bytes = options.sampling.frames * options.crop.size**2 * 3
    reasons: list[TrackReason | None] = []
    for track in tracks:
        reason = None
        if track.face_px < options.min_face_px:
            reason = TrackReason.TOO_SMALL
        elif track.found < min(options.min_frames, frames):
            reason = TrackReason.TOO_SHORT
        elif track.quality < 0.7:
            reason = TrackReason.LOW_QUALITY
        elif reasons.count(None) >= options.max_tracks_per_window or not budget.take(clip_bytes):
            reason = TrackReason.CAP
        reasons.append(reason)
    return reasons


def _cut_out(pictures: Sequence[Picture], track: FaceTrack, options: ExtractOptions) -> _Clip:
    size, positions = options.crop.size, sorted(track.boxes)
    pixels = np.zeros((options.sampling.frames, size, size, 3), np.uint8)
    for step, position in enumerate(positions):
        pixels[step] = crop(pictures[position], track.boxes[position], options.crop)
    return _Clip(pixels, len(positions))


def _embed(pictures: Sequence[Picture], track: FaceTrack, embed: Embed) -> Embedding:
    """The embedding of a track, from the frame in which the detector saw the face best."""
    position = max(track.boxes, key=lambda p: track.boxes[p].score)
    return embed(pictures[position].whole(), track.boxes[position])


def _stack(clips: Sequence[_Clip], options: ExtractOptions) -> Clips:
    if not clips:
        return Clips.none(options.sampling.frames, options.crop.size)
    steps = np.arange(options.sampling.frames)
    mask = np.stack([steps < clip.frames for clip in clips])
    return Clips(np.stack([clip.pixels for clip in clips]), mask)


def _stills(passed: _Pass) -> Stills:
    """As many as there is room for, all of the first one's shape: boxes are fractions, and fit any."""
    if not passed.stills:
        return Stills.none()
    height, width = passed.stills[0].shape[:2]
    times = [t_s for window in passed.times for t_s in window][: STILLS_BYTES // (height * width * 3)]
    fitted = [cv2.resize(still, (width, height)) for still in passed.stills[: len(times)]]
    return Stills(tuple(times), np.stack(fitted).astype(np.uint8, copy=False))


def _facts(video: Video, passed: _Pass) -> Facts:
    tracks, reasons, times, sizes = passed.tracks, passed.reasons, passed.times, passed.sizes
    clip = iter(range(len(tracks)))
    listed = tuple(
        Track(
            track_id=i,
            person_id=track.person_id,
            window=track.window,
            start_s=times[track.window][min(track.boxes)],
            end_s=times[track.window][track.last],
            face_px=track.face_px,
            quality=track.quality,
            boxes=tuple(
                _fraction(times[track.window][p], track.boxes[p], *sizes[track.window][p])
                for p in sorted(track.boxes)
            ),
            clip=next(clip) if reason is None else None,
            reason=reason,
        )
        for i, (track, reason) in enumerate(zip(tracks, reasons, strict=True))
    )
    return Facts(
        info=video.info,
        complete=_complete(video),
        warnings=_warnings(video, reasons),
        windows_planned=len(passed.windows),
        frames_decoded=video.frames_decoded,
        frames_corrupt=video.frames_corrupt,
        tracks=listed,
    )


def _complete(video: Video) -> bool | None:
    """False where a part is missing or damaged; None where neither the container nor the frames tell."""
    if video.whole is False or video.frames_corrupt or video.times_invalid or video.lacks_pictures:
        return False
    # A whole file whose header tells of more time than there are pictures.
    if video.ended_early or video.shorter_than_told:
        return None if video.whole else False
    return video.whole


def _refuse_remnant(video: Video, passed: _Pass) -> None:
    """Refuse to judge a video of which less than half of what was to be looked at is there.

    Raises:
        VideoError: it is one.
    """
    if not passed.tracks and 2 * video.frames_corrupt >= video.frames_decoded:
        raise VideoError(Reason.CORRUPT, "most of its pictures are damaged, and in none a face can be seen")
    if 2 * video.times_missed <= passed.planned or (video.whole and not video.frames_corrupt):
        return
    missed = f"{video.times_missed} of {passed.planned} sampled moments"
    if video.whole is False or not video.frames_corrupt:
        raise VideoError(Reason.INCOMPLETE, f"the file is cut short: {missed} are missing")
    raise VideoError(Reason.CORRUPT, f"the pictures of {missed} cannot be decoded")


def _warnings(video: Video, reasons: Sequence[TrackReason | None]) -> tuple[Warn, ...]:
    held = {
        Warn.TRUNCATED: video.whole is False
        or video.lacks_pictures
        or (video.ended_early and video.whole is None),
        Warn.DAMAGED_FRAMES: video.frames_corrupt > 0,
        Warn.RESOLUTION_CHANGED: video.size_changed,
        Warn.TIMESTAMPS_INVALID: video.times_invalid,
        Warn.DURATION_UNKNOWN: video.info.duration_s is None,
        Warn.CLIP_BUDGET: TrackReason.CAP in reasons,
    }
    return tuple(warning for warning, present in held.items() if present)


def _fraction(t_s: float, box: FaceBox, width: int, height: int) -> TimedBox:
    return TimedBox(t_s, box.x / width, box.y / height, box.w / width, box.h / height)


def _with_blue_first(look: Look) -> Look:
    """A detector that is shown BGR as if it were RGB, as the reference did."""
    return replace(look, detect=lambda rgb, full: look(np.ascontiguousarray(rgb[..., ::-1]), full))
