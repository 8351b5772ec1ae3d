"""The way of one video: extract, score, decide. Everything that judges a video comes through here.

file ── extract ──▶ facts, clips ── score ──▶ clip scores ── decide ──▶ result
        no torch                    torch                    arithmetic
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from detector import faces, identities, verdict
from detector.extraction import extract_clips
from detector.sandbox import Sandbox
from detector.types import Clips, ClipScore, Extraction, ExtractOptions, Facts, Policy, VideoResult

if TYPE_CHECKING:
    from detector.model import Model


def extract(
    file: IO[bytes], options: ExtractOptions, sandbox: Sandbox | None, stills_px: int = 0
) -> Extraction:
    """Decode, detect, track and crop one video; without a sandbox in this very process.

    With `stills_px`, its sampled frames come along as a whole, their long side that many px. Never raises
    for anything that the video does: its facts then hold the reason.
    """
    if sandbox is not None:
        return sandbox.extract(file, options, stills_px)
    embed = identities.load() if options.link_identities else None
    return extract_clips(file, options, faces.load(options.detector), embed, stills_px=stills_px)


def score(clips: Clips, model: Model) -> list[ClipScore]:
    """One score per clip; the clips may be of several videos."""
    return model.score(clips)


def decide(facts: Facts, scores: list[ClipScore], policy: Policy) -> VideoResult:
    """Calibrated scores per track, person and video, segments and verdict."""
    return verdict.decide(facts, scores, policy)


def scan_video(
    file: IO[bytes], options: ExtractOptions, model: Model, policy: Policy, sandbox: Sandbox | None
) -> tuple[VideoResult, Extraction]:
    """The whole way of one video; the extraction beside the result, for whoever shows its crops."""
    extraction = extract(file, options, sandbox)
    scores = score(extraction.clips, model)
    return decide(extraction.facts, scores, policy), extraction
