"""An open video file -> facts and clips. Runs in the sandboxed child, so nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from detector.crops import crop
from detector.errors import VideoError
from detector.faces import Look
from detector.identities import Embed, Embedding, join
from detector.tracks import FaceTrack, SceneCounter, assign_persons, link
from detector.types import (
    Clips,
    Extraction,
    ExtractOptions,
    FaceBox,
    Facts,
    Reason,
    TimedBox,
    Track,
    TrackReason,
    Warn,
)
from detector.video import SampledFrame, Video, plan_windows

# Faces smaller than this in the whole window are looked for once more at full size.
_SMALL_FACE_PX = 48
# Of a window, the frames that decide whether a look at full size pays.
_FULL_SIZE_TRIALS = 2


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
    file: IO[bytes], options: ExtractOptions, look: Look, embed: Embed | None = None
) -> Extraction:
    """Decode, detect, track and crop one video.

    Args:
        file: the video, seekable, opened for reading in binary.
        options: what to sample and how to crop.
        look: the face detector.
        embed: the embedding of a face, where `options.link_identities` asks for it.

    Returns:
        Facts and clips. A video that cannot be scored gives facts with `failure` set; nothing is raised.
    """
    try:
        with Video(file, options.limits) as video:
            return _extract(video, options, look, embed)
    except VideoError as error:
        return _failed(error.reason, str(error))
    except MemoryError:
        return _failed(Reason.DECODE_MEMORY, "decoding needs more memory than allowed")


def _extract(video: Video, options: ExtractOptions, look: Look, embed: Embed | None) -> Extraction:
    see = _with_blue_first(look) if options.detector_bgr else look
    windows = plan_windows(video.info.duration_s, options.sampling)
    scenes, budget = SceneCounter(), _Budget(options.limits.max_clip_bytes)
    tracks: list[FaceTrack] = []
    reasons: list[TrackReason | None] = []
    clips: list[_Clip] = []
    times: list[list[float]] = []
    embeddings: dict[int, Embedding] = {}
    consecutive = options.sampling.policy == "first"
    for window, frames in zip(windows, video.sample(windows, consecutive=consecutive), strict=True):
        here = link(window.index, *_look_at_window(video, frames, see, scenes))
        here.sort(key=lambda track: (-track.face_px, min(track.boxes)))
        why = _select(here, len(frames), options, budget)
        scored = {len(tracks) + i: track for i, track in enumerate(here) if why[i] is None}
        clips += _crop_window(video, frames, list(scored.values()), options)
        if embed is not None:
            embeddings |= {i: _embed(video, frames, track, embed) for i, track in scored.items()}
        tracks += here
        reasons += why
        times.append([frame.t_s for frame in frames])
    _refuse_remnant(video, sum(len(window.times_s) for window in windows))
    assign_persons(tracks)
    join(tracks, embeddings)
    facts = _facts(video, len(windows), tracks, reasons, times)
    return Extraction(facts, _stack(clips, options))


def _look_at_window(
    video: Video, frames: Sequence[SampledFrame], look: Look, counter: SceneCounter
) -> tuple[list[list[FaceBox]], list[int]]:
    """Faces and scene of each frame; at full size too where there seem to be none or only small ones."""
    found: list[list[FaceBox]] = []
    scenes: list[int] = []
    for frame in frames:
        rgb = video.displayed(frame.frame)
        found.append(look(rgb, False))
        scenes.append(counter.scene(rgb))
    if max((box.side for boxes in found for box in boxes), default=0.0) < _SMALL_FACE_PX:
        found = _look_closer(video, frames, look, found)
    return found, scenes


def _look_closer(
    video: Video, frames: Sequence[SampledFrame], look: Look, found: list[list[FaceBox]]
) -> list[list[FaceBox]]:
    """The boxes at full size if a trial on a few frames finds more faces than `found` holds, else `found`."""

    def closer(position: int) -> list[FaceBox]:
        return look(video.displayed(frames[position].frame), True)

    step = max(1, len(frames) // _FULL_SIZE_TRIALS)
    trials = {i: closer(i) for i in range(0, len(frames), step)}
    if all(len(boxes) <= len(found[i]) for i, boxes in trials.items()):
        return found
    return [trials[i] if i in trials else closer(i) for i in range(len(frames))]


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


def _crop_window(
    video: Video, frames: Sequence[SampledFrame], tracks: Sequence[FaceTrack], options: ExtractOptions
) -> list[_Clip]:
    """One clip per track; each frame is converted once and dropped again."""
    size = options.crop.size
    clips = [_Clip(np.zeros((options.sampling.frames, size, size, 3), np.uint8), 0) for _ in tracks]
    for position, frame in enumerate(frames):
        shown = [
            (clip, t.boxes[position]) for clip, t in zip(clips, tracks, strict=True) if position in t.boxes
        ]
        if not shown:
            continue
        rgb = video.displayed(frame.frame)
        for clip, box in shown:
            clip.pixels[clip.frames] = crop(rgb, box, options.crop)
            clip.frames += 1
    return clips


def _embed(video: Video, frames: Sequence[SampledFrame], track: FaceTrack, embed: Embed) -> Embedding:
    """The embedding of a track, from the frame in which the detector saw the face best."""
    position = max(track.boxes, key=lambda p: track.boxes[p].score)
    return embed(video.displayed(frames[position].frame), track.boxes[position])


def _stack(clips: Sequence[_Clip], options: ExtractOptions) -> Clips:
    if not clips:
        return Clips.none(options.sampling.frames, options.crop.size)
    steps = np.arange(options.sampling.frames)
    mask = np.stack([steps < clip.frames for clip in clips])
    return Clips(np.stack([clip.pixels for clip in clips]), mask)


def _facts(
    video: Video,
    windows: int,
    tracks: Sequence[FaceTrack],
    reasons: Sequence[TrackReason | None],
    times: Sequence[Sequence[float]],
) -> Facts:
    width, height = video.info.width, video.info.height
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
                _fraction(times[track.window][p], track.boxes[p], width, height) for p in sorted(track.boxes)
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
        windows_planned=windows,
        frames_decoded=video.frames_decoded,
        frames_corrupt=video.frames_corrupt,
        tracks=listed,
    )


def _complete(video: Video) -> bool | None:
    """False where a part is missing or damaged; None where neither the container nor the frames tell."""
    if video.whole is False or video.frames_corrupt:
        return False
    if video.ended_early:  # a whole file whose header tells of more time than there are pictures
        return None if video.whole else False
    return video.whole


def _refuse_remnant(video: Video, planned: int) -> None:
    """Refuse to judge a video of which less than half of what was to be looked at is there.

    Raises:
        VideoError: it is one.
    """
    if video.frames_decoded == 0:
        raise VideoError(Reason.NO_FRAMES, "the file opens, but not one frame can be decoded")
    if 2 * video.times_missed <= planned or (video.whole and not video.frames_corrupt):
        return
    missed = f"{video.times_missed} of {planned} sampled moments"
    if video.whole is not True and not video.frames_corrupt:
        raise VideoError(Reason.INCOMPLETE, f"the file is cut short: {missed} are missing")
    raise VideoError(Reason.CORRUPT, f"the pictures of {missed} cannot be decoded")


def _warnings(video: Video, reasons: Sequence[TrackReason | None]) -> tuple[Warn, ...]:
    held = {
        Warn.TRUNCATED: video.whole is False or (video.ended_early and video.whole is None),
        Warn.DAMAGED_FRAMES: video.frames_corrupt > 0,
        Warn.RESOLUTION_CHANGED: video.size_changed,
        Warn.DURATION_UNKNOWN: video.info.duration_s is None,
        Warn.CLIP_BUDGET: TrackReason.CAP in reasons,
    }
    return tuple(warning for warning, present in held.items() if present)


def _fraction(t_s: float, box: FaceBox, width: int, height: int) -> TimedBox:
    return TimedBox(t_s, box.x / width, box.y / height, box.w / width, box.h / height)


def _with_blue_first(look: Look) -> Look:
    """A detector that is shown BGR as if it were RGB, as the reference did."""
    return lambda rgb, full: look(np.ascontiguousarray(rgb[..., ::-1]), full)


def _failed(reason: Reason, message: str) -> Extraction:
    return Extraction(Facts(failure=reason, message=message), Clips.none())
