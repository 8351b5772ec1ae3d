"""Join persons that are one face seen in several places, by face_recognition's embedding. Off by default.

An embedding is a biometric template. It exists in the decoding child's memory only, for as long as one video
takes, and is never handed on: what leaves is which tracks belong together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detector.tracks import FaceTrack
from detector.types import FaceBox

Embedding = NDArray[np.float64]
Embed = Callable[[NDArray[np.uint8], FaceBox], Embedding]

# face_recognition calls two pictures one person below 0.6; joining two people costs more than parting one.
_SAME_FACE = 0.5


def load() -> Embed:
    """The embedding of a face: `[H, W, 3] uint8 RGB` and a box -> `[128] float64` (dlib, King 2017).

    Raises:
        ImportError: face-recognition is not installed, or its models are not.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # face-recognition-models still imports pkg_resources
            import face_recognition
    except SystemExit as error:  # what it does where its models cannot be imported
        raise ImportError("face-recognition cannot load its models: setuptools must be below 81") from error

    def embed(rgb: NDArray[np.uint8], box: FaceBox) -> Embedding:
        place = (round(box.y), round(box.x + box.w), round(box.y + box.h), round(box.x))
        found = face_recognition.face_encodings(np.ascontiguousarray(rgb), [place], model="large")
        return np.asarray(found[0], np.float64)

    return embed


def join(tracks: Sequence[FaceTrack], embeddings: Mapping[int, Embedding]) -> None:
    """Give the tracks of one face one person: the closest pairs of tracks first, as long as they are close.

    Two faces in one window are never one person.

    Args:
        tracks: with `person_id` set; persons that are joined get the lower number.
        embeddings: by position among `tracks`; a track without one keeps its person.
    """
    pairs = sorted(
        (float(np.linalg.norm(embeddings[i] - embeddings[j])), i, j)
        for i in embeddings
        for j in embeddings
        if i < j
    )
    for distance, i, j in pairs:
        first, second = sorted((tracks[i].person_id, tracks[j].person_id))
        if distance >= _SAME_FACE:
            return
        if first != second and not _windows(tracks, first) & _windows(tracks, second):
            for track in tracks:
                track.person_id = first if track.person_id == second else track.person_id


def _windows(tracks: Sequence[FaceTrack], person_id: int) -> set[int]:
    return {track.window for track in tracks if track.person_id == person_id}
