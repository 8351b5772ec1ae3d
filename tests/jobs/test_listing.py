from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import InputError, VideoError
from detector.types import Reason
from jobs.listed import SUFFIXES, Listed
from jobs.listing import Listing
from jobs.local import local_version, open_local, open_version


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def names(listing: Listing, root: Path) -> set[str]:
    return {os.path.relpath(item.uri, root) for item in listing}


def test_a_folder_is_walked_and_filtered_by_suffix(tmp_path):
    tree(tmp_path, "a.mp4", "b.MOV", "deep/er/c.webm", ".hidden/d.mkv", "notes.txt", "README", "deep/e.Txt")
    listing = Listing([str(tmp_path)])
    assert names(listing, tmp_path) == {"a.mp4", "b.MOV", "deep/er/c.webm", ".hidden/d.mkv"}
    assert listing.skipped == {".txt": 2, "no suffix": 1}


def test_what_is_listed_is_the_file_as_it_is(tmp_path):
    file = tree(tmp_path, "a.mp4") / "a.mp4"
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    [item] = Listing([str(tmp_path)])
    assert item == Listed(str(file), 5, "1700000000123456789-5", item.modified_at)
    assert item.modified_at is not None
    assert item.modified_at.isoformat() == "2023-11-14T22:13:20.123456+00:00"
    assert item.version == local_version(file.stat())


def test_a_time_beyond_every_calendar_is_no_time(tmp_path):
    file = tree(tmp_path, "a.mp4") / "a.mp4"
    os.utime(file, (0, -70_000_000_000))
    [item] = Listing([str(file)])
    assert item.modified_at is None or item.modified_at.year < 1970


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_usual_suffix_is_taken(tmp_path, suffix):
    tree(tmp_path, f"x{suffix}")
    assert len(list(Listing([str(tmp_path)]))) == 1


@pytest.mark.parametrize(
    ("include", "taken"),
    [
        (["*"], {"a.mp4", "b.dat", "cam/c", "cam/d.mp4"}),
        (["*.DAT"], {"b.dat"}),
        (["cam/*"], {"cam/c", "cam/d.mp4"}),
        (["*.dat", "d.*"], {"b.dat", "cam/d.mp4"}),
    ],
)
def test_include_replaces_the_suffixes(tmp_path, include, taken):
    tree(tmp_path, "a.mp4", "b.dat", "cam/c", "cam/d.mp4")
    listing = Listing([str(tmp_path)], include)
    assert names(listing, tmp_path) == taken
    assert listing.skipped.total() == 4 - len(taken)


def test_a_file_that_is_named_is_taken_whatever_it_is_called(tmp_path, monkeypatch):
    tree(tmp_path, "report.pdf", "[1].mp4", "what*.mov")
    inputs = [str(tmp_path / "report.pdf"), str(tmp_path / "[1].mp4"), f"file://{tmp_path}/what%2A.mov"]
    assert [item.uri for item in Listing(inputs)] == [
        str(tmp_path / name) for name in ("report.pdf", "[1].mp4", "what*.mov")
    ]
    monkeypatch.chdir(tmp_path)
    assert [item.uri for item in Listing(["report.pdf"])] == [str(tmp_path / "report.pdf")]


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("*", {"a.mp4", ".h.mp4", "cam/b.mp4", "cam/in/c.mp4"}),
        ("*.mp4", {"a.mp4", ".h.mp4"}),
        ("*.dat", {"d.dat"}),
        ("c?m", {"cam/b.mp4", "cam/in/c.mp4"}),
        ("**/*.mp4", {"a.mp4", ".h.mp4", "cam/b.mp4", "cam/in/c.mp4"}),
        ("**", {"a.mp4", ".h.mp4", "cam/b.mp4", "cam/in/c.mp4"}),
        ("c*/**/c.*", {"cam/in/c.mp4"}),
    ],
)
def test_patterns(tmp_path, pattern, taken):
    tree(tmp_path, "a.mp4", ".h.mp4", "cam/b.mp4", "cam/in/c.mp4", "d.dat", "e.txt")
    listing = Listing([str(tmp_path / pattern)])
    found = [os.path.relpath(item.uri, tmp_path) for item in listing]
    assert sorted(found) == sorted(taken)


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    inside = tree(tmp_path / "in", "a.mp4")
    tree(tmp_path / "out", "b.mp4", "c.mp4")
    (inside / "file.mp4").symlink_to(tmp_path / "out" / "b.mp4")
    (inside / "folder").symlink_to(tmp_path / "out")
    (inside / "circle").symlink_to(inside)
    (inside / "nowhere.mp4").symlink_to(tmp_path / "nothing")
    listing = Listing([str(inside)])
    assert names(listing, inside) == {"a.mp4", "file.mp4"}
    assert listing.skipped == {"link to a folder": 2, "file that went away, or a broken link": 1}
    assert names(Listing([str(inside / "**" / "*.mp4")]), inside) == {"a.mp4", "file.mp4"}
    # A folder that was itself named may be a link, and keeps its name.
    assert names(Listing([str(inside / "folder")]), inside) == {"folder/b.mp4", "folder/c.mp4"}


def test_dots_are_resolved_as_the_system_does(tmp_path):
    tree(tmp_path, "real/deep/x.mp4", "real/y.mp4", "y.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    [item] = Listing([f"{tmp_path}/link/../y.mp4"])
    assert item.uri == str(tmp_path / "real" / "y.mp4")


def test_what_is_no_regular_file_is_passed_over_and_counted(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    tree(tmp_path, "a.2026-11-25 10h", "a.0123456789abcdef")
    listing = Listing([str(tmp_path)])
    assert list(listing) == []
    assert listing.skipped == {"not a regular file": 1, "other suffix": 2}
    with pytest.raises(InputError, match="neither a file nor a folder"):
        list(Listing([str(tmp_path / "pipe.mp4")]))


def test_a_folder_that_cannot_be_listed_is_counted(tmp_path, monkeypatch):
    tree(tmp_path, "a.mp4", "secret/b.mp4")
    scandir = os.scandir

    def refuse(folder):  # not by mode: root may list everything
        if folder.endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr("jobs.listing.os.scandir", refuse)
    listing = Listing([str(tmp_path)])
    assert names(listing, tmp_path) == {"a.mp4"}
    assert listing.skipped == {"folder that cannot be listed": 1}
    with pytest.raises(InputError, match="secret cannot be listed: Permission denied"):
        list(Listing([str(tmp_path / "secret")]))


@pytest.mark.parametrize(
    ("given_input", "message"),
    [
        ("nowhere", "nowhere does not exist"),
        ("nothing-*.mp4", "nothing matches"),
        ("a**b/*.mp4", r"Invalid pattern|nothing matches"),
        ("gs://bucket/videos", "gs:// cannot be scanned"),
        ("https://example.org/a.mp4", "https:// cannot be scanned"),
        ("", "not a path"),
        ("a\0b", "not a path"),
    ],
)
def test_an_input_that_is_not_there_is_named_with_what_to_do(tmp_path, monkeypatch, given_input, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        list(Listing([given_input]))
    assert caught.value.hint


def test_no_input_at_all():
    with pytest.raises(InputError, match="nothing to scan"):
        list(Listing([]))


def test_opening_says_why_it_cannot(tmp_path):
    file = tree(tmp_path, "a.mp4") / "a.mp4"
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        reasons = {}
        for uri in (
            tmp_path / "gone",
            file / "below",
            tmp_path,
            tmp_path / "pipe",
            tmp_path / "socket",
            "/a\0b",
        ):
            with pytest.raises(VideoError) as caught:
                open_local(str(uri))
            reasons[Path(str(uri)).name] = caught.value.reason
    assert reasons == {
        "gone": Reason.NOT_FOUND,
        "below": Reason.NOT_FOUND,
        tmp_path.name: Reason.NOT_VIDEO,
        "pipe": Reason.NOT_VIDEO,
        "socket": Reason.NOT_VIDEO,
        "a\0b": Reason.NOT_FOUND,
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), Reason.ACCESS_DENIED),
        (OSError(5, "Input/output error"), Reason.FETCH_FAILED),
    ],
)
def test_a_file_that_cannot_be_read_says_whether_to_try_again(monkeypatch, error, reason):
    def refuse(*_):
        raise error

    monkeypatch.setattr("jobs.local.os.open", refuse)
    with pytest.raises(VideoError, match=error.strerror) as caught:
        open_local("/a.mp4")
    assert caught.value.reason is reason


def test_only_the_version_that_was_planned_is_read(tmp_path):
    file = tree(tmp_path, "a.mp4") / "a.mp4"
    [item] = Listing([str(file)])
    version = item.uri, item.version
    with open_version(*version, 5) as opened:
        assert opened.read() == b"a.mp4"
    with pytest.raises(VideoError) as caught, open_version(*version, 4):
        pass
    assert caught.value.reason is Reason.TOO_LARGE
    with pytest.raises(VideoError) as caught, open_version(*version, 5):
        file.write_text("another")
    assert caught.value.reason is Reason.CHANGED_DURING_READ
    with pytest.raises(VideoError) as caught, open_version(*version, 5):
        pass
    assert caught.value.reason is Reason.CHANGED_DURING_READ


def test_a_fault_of_the_reader_is_not_taken_for_a_change(tmp_path):
    file = tree(tmp_path, "a.mp4") / "a.mp4"
    [item] = Listing([str(file)])

    def read_badly():
        file.write_text("another")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), open_version(item.uri, item.version, 5):
        read_badly()


def test_a_large_folder_is_listed_in_good_time(tmp_path):
    for i in range(2000):
        (tmp_path / f"{i}.mp4").touch()
    started = time.monotonic()
    assert len(list(Listing([str(tmp_path)]))) == 2000
    assert time.monotonic() - started < 5


ODD_NAMES = st.binary(min_size=1, max_size=200).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ODD_NAMES, min_size=1, max_size=8, unique=True))
def test_every_name_is_listed_once_and_opens_again(odd):
    with tempfile.TemporaryDirectory() as folder:
        for name in odd:
            with open(os.path.join(os.fsencode(folder), name), "wb") as file:  # noqa: PTH118, PTH123
                file.write(name)
        uris = [item.uri for item in Listing([folder], ["*"])]
        assert all(uri.encode("utf-8") for uri in uris)
        contents = []
        for uri in uris:
            with open_local(uri) as file:
                contents.append(file.read())
        assert sorted(contents) == sorted(odd)
        # Named singly, as a table gives it back, it is the same video.
        assert [item.uri for item in Listing(uris)] == uris
