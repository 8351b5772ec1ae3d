"""Whether a file ends where its container says."""

import io
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.boxes import top_boxes
from detector.whole import is_whole
from tests.containers import SIZED, UNSIZED, write
from tests.media import moving_face, write_video


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, film = tmp_path_factory.mktemp("containers"), list(moving_face(50, (320, 240), face_px=90))
    return {name: write(folder, name, film).read_bytes() for name in SIZED | UNSIZED}


def judged(body: bytes) -> bool | None:
    return is_whole(io.BytesIO(body))


@pytest.mark.parametrize("name", SIZED)
def test_a_file_that_was_written_to_its_end_is_whole(bodies: dict[str, bytes], name: str) -> None:
    assert judged(bodies[name]) is True


@pytest.mark.parametrize("name", SIZED)
def test_a_file_that_is_cut_anywhere_is_not(bodies: dict[str, bytes], name: str) -> None:
    body, chance = bodies[name], random.Random(18)
    cuts = [chance.randrange(64, len(body)) for _ in range(200)] + [len(body) - 1]
    passed = [cut for cut in cuts if judged(body[:cut]) is not False]
    assert not passed, f"{name} of {len(body)} bytes passes when cut at {passed[:5]}"


def test_what_says_no_length_is_never_called_whole(bodies: dict[str, bytes]) -> None:
    for name in UNSIZED:
        assert judged(bodies[name]) is None, name
        assert judged(bodies[name][: len(bodies[name]) // 2]) is not True, name
    assert judged(bodies["ts"][:-1]) is False, "a packet is cut in two"


def test_an_index_is_part_of_an_mp4(bodies: dict[str, bytes]) -> None:
    body = bodies["mp4, index last"]
    assert judged(body[: body.rindex(b"moov") - 4]) is False


def test_of_an_mp4_in_fragments_only_its_last_index_tells_that_none_is_missing(
    bodies: dict[str, bytes],
) -> None:
    body = bodies["mp4, fragmented"]
    last = body.rindex(b"mfra") - 4
    assert judged(body[:last]) is None
    between = body.index(b"mdat", body.index(b"moof")) - 4
    assert judged(body[:between]) is False, "a fragment without its pictures"


@pytest.mark.parametrize("name", ["mkv", "webm", "avi", "flv"])
def test_a_piece_that_was_put_in_taken_out_or_written_over_is_noticed(
    bodies: dict[str, bytes], name: str
) -> None:
    body, piece = bodies[name], bytes(random.Random(3).randbytes(4000))
    at = len(body) // 2
    for kind, damaged in {
        "put in": body[:at] + piece + body[at:],
        "taken out": body[:at] + body[at + len(piece) :],
        "written over": body[:at] + piece + body[at + len(piece) :],
    }.items():
        assert judged(damaged) is False, kind


def test_chunks_of_an_odd_length_may_be_filled_up_or_not() -> None:
    for fill in (b"\0", b""):
        chunks = (b"00dc\x03\0\0\0abc" + fill) * 2
        movi = b"LIST" + (4 + len(chunks)).to_bytes(4, "little") + b"movi" + chunks
        body = b"AVI " + movi + b"idx1\0\0\0\0"
        assert judged(b"RIFF" + len(body).to_bytes(4, "little") + body) is True


def test_a_large_avi_of_several_parts_is_walked_to_its_end() -> None:
    part = b"RIFF" + (100).to_bytes(4, "little") + b"AVI JUNK" + (88).to_bytes(4, "little") + bytes(88)
    more = b"RIFF" + (60).to_bytes(4, "little") + b"AVIXJUNK" + (48).to_bytes(4, "little") + bytes(48)
    assert judged(part + more) is True
    assert judged(part + more[:-1]) is False
    assert judged(part + b"JUNK behind the end") is True


def test_an_flv_that_is_cut_between_tags_is_not_whole(bodies: dict[str, bytes]) -> None:
    body = bodies["flv"]
    passed = [cut for cut in range(len(body) * 9 // 10, len(body)) if judged(body[:cut]) is not False]
    assert not passed, f"passes when cut at {passed[:5]}"


def test_a_gif_ends_with_its_trailer(tmp_path: Path) -> None:
    film = moving_face(5, (160, 120), face_px=60)
    body = write_video(tmp_path / "a.gif", film, fps=10, codec="gif").read_bytes()
    assert judged(body) is True
    assert judged(body[: len(body) // 2]) is False
    behind = [at for at in range(len(body) - 1) if body[at] == ord(";")]
    passed = [at for at in behind if judged(body[: at + 1]) is not False]
    assert behind, "the film holds no byte that looks like a trailer: the test shows nothing"
    assert not passed, f"of {len(behind)} cuts behind what looks like a trailer {passed[:5]} pass"


def test_a_few_bytes_behind_an_mp4_are_nobodys(bodies: dict[str, bytes]) -> None:
    for name in ("mp4, index last", "mp4, index first"):
        for junk in (b"\n", b"\r\n", b"--boundary--\r\n", b"TAG" + bytes(125)):
            assert judged(bodies[name] + junk) is not False, f"{name} with {junk[:12]!r} behind it"
    whole = bodies["mp4, index first"]
    assert judged(whole + b"\0\0\x10\0mdat" + bytes(50)) is False, "more pictures, cut short"
    assert judged(whole + bytes(range(1, 251)) * 40) is False, "10 kB are no few bytes"


def test_of_an_mp4_in_fragments_one_that_is_missing_is_missed(bodies: dict[str, bytes]) -> None:
    body = bodies["mp4, fragmented"]
    starts = [at for kind, at, _ in top_boxes(io.BytesIO(body)) if kind in (b"moof", b"mfra")]
    assert len(starts) > 4
    for start, end in pairwise(starts):
        assert judged(body[:start] + body[end:]) is False, f"without the fragment at {start}"


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x00\x00\x00\x18ftyp", b"RIFF", b"FLV\x01", b"OggS"]))
def test_any_bytes_get_an_answer(body: bytes, start: bytes) -> None:
    file = io.BytesIO(start + body)
    assert is_whole(file) in (True, False, None)
    assert file.tell() == 0
