"""Files that ask FFmpeg to open others, each under its own name and as `.mp4`; what they ask for is there.

`python -m tests.hostile WAY LIST` reads the files of a list, in the way that is to be watched.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import av
import av.error
import cv2
import numpy as np

from detector import faces
from detector.extraction import extract_clips
from detector.sandbox import Sandbox
from detector.types import ExtractOptions
from tests.broken import BROKEN
from tests.healthy import face
from tests.media import write_video

# What the files name; in its place lie files that FFmpeg can read.
_SEGMENT, _PICTURE, _VIDEO, _SECRET = "segment.ts", "img%03d.png", "secret.mp4", "secret.txt"
MARK = "/the-reading-begins"
"""A path that is asked for when what was to be loaded is loaded."""
_MOST_S = 5

_HLS = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-PLAYLIST-TYPE:VOD\n"
_HLS_END = "#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
_SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 {}\nt=0 0\nm=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
_MPD = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" minBufferTime="PT1S"
 profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="1000" width="64" height="64" codecs="avc1.42c00a"><BaseURL>{}</BaseURL>
</Representation></AdaptationSet></Period></MPD>
"""
_IMF = """<?xml version="1.0"?>
<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:1</Id>
<ContentTitle>x</ContentTitle><EditRate>25 1</EditRate><SegmentList><Segment/></SegmentList>
</CompositionPlaylist>
"""
_IDX = "# VobSub index file, v7 (do not modify this line!)\nsize: 720x576\nid: en, index: 0\n"
_IDX += "timestamp: 00:00:01:000, filepos: 000000000\n"


def _texts(folder: Path, port: int) -> dict[str, str]:
    """Name -> content, of those that are text."""
    here, web = folder.resolve(), f"http://127.0.0.1:{port}"
    segment = here / _SEGMENT
    return {
        "relative.m3u8": _HLS + _HLS_END.format(_SEGMENT),
        "absolute.m3u8": _HLS + _HLS_END.format(segment),
        "file.m3u8": _HLS + _HLS_END.format(f"file:{segment}"),
        "web.m3u8": _HLS + _HLS_END.format(f"{web}/a.ts"),
        "concat-protocol.m3u8": _HLS + _HLS_END.format(f"concat:{segment}|{segment}"),
        "subfile.m3u8": _HLS + _HLS_END.format(f"subfile,,start,0,end,0,,:{segment}"),
        "key.m3u8": _HLS + f'#EXT-X-KEY:METHOD=AES-128,URI="{web}/key"\n' + _HLS_END.format(segment),
        "key-file.m3u8": _HLS
        + f'#EXT-X-KEY:METHOD=AES-128,URI="{here / _SECRET}"\n'
        + _HLS_END.format(segment),
        "crypto.m3u8": _HLS + _HLS_END.format(f"crypto:{segment}"),
        "udp.m3u8": _HLS + _HLS_END.format(f"udp://127.0.0.1:{port}"),
        "map.m3u8": _HLS + f'#EXT-X-MAP:URI="{here / _VIDEO}"\n' + _HLS_END.format(here / _VIDEO),
        "master.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{here / _SECRET}\n",
        "master-web.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{web}/child.m3u8\n",
        "plain.m3u": f"#EXTM3U\n#EXTINF:1,\n{segment}\n",
        "relative.ffconcat": f"ffconcat version 1.0\nfile {_VIDEO}\n",
        "absolute.ffconcat": f"ffconcat version 1.0\nfile {here / _VIDEO}\n",
        "web.ffconcat": f"ffconcat version 1.0\nfile {web}/a.mp4\n",
        "rtp.sdp": _SDP.format("127.0.0.1", 50_000),
        "multicast.sdp": _SDP.format("224.2.0.1/64", 50_002),
        "vobsub.idx": _IDX,
        "relative.mpd": _MPD.format(_VIDEO),
        "web.mpd": _MPD.format(f"{web}/a.mp4"),
        "imf.xml": _IMF,
        "redirect.asx": f'<asx version="3.0"><entry><ref href="{web}/a.wmv"/></entry></asx>\n',
        "redirect.ram": f"rtsp://127.0.0.1:{port}/a.rm\n",
        "redirect.rtsp": f"RTSPtextrtsp://127.0.0.1:{port}/a\n",
        "list.pls": f"[playlist]\nFile1={web}/a.mp4\nNumberOfEntries=1\n",
        "list.xspf": f'<playlist version="1"><trackList><track><location>{web}</location>',
        "picture.svg": f'<svg xmlns="http://www.w3.org/2000/svg" width="9"><image href="{web}/a"/></svg>',
        "script.avs": f'AVISource("{here / _VIDEO}")\n',
        "filter.lavfi": f"movie={here / _VIDEO}\n",
        "smooth.ism": f'<SmoothStreamingMedia><StreamIndex Url="{web}/a"/></SmoothStreamingMedia>\n',
        "flash.f4m": f'<manifest xmlns="http://ns.adobe.com/f4m/1.0"><media url="{web}/a"/></manifest>\n',
    }


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def _reference_movie(where: str) -> bytes:
    """A QuickTime file that only says where the movie is."""
    address = where.encode() + b"\0"
    target = _box(b"rdrf", bytes(4) + b"url " + len(address).to_bytes(4, "big") + address)
    return _box(b"ftyp", b"qt  ", bytes(4)) + _box(b"moov", _box(b"rmra", _box(b"rmda", target)))


def _alias(path: Path) -> bytes:
    """A Macintosh alias record of a data reference: volume, folder and name of the file that is meant."""
    name = path.name.encode()
    record = bytearray(150)
    record[4:8] = (150).to_bytes(2, "big") + (2).to_bytes(2, "big")
    record[50 : 51 + len(name)] = bytes([len(name)]) + name
    for kind, text in ((2, str(path).replace("/", ":")), (18, str(path))):
        body = text.encode()
        record += kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body + b"\0" * (len(body) % 2)
    return bytes(record + b"\xff\xff\0\0")


def _aliased(video: bytes, path: Path) -> bytes:
    """An mp4 whose pictures lie in the file at `path`, as QuickTime would say it."""
    entry = _box(b"alis", bytes(4), _alias(path))  # codespell:ignore alis
    at = video.index(b"url ") - 4
    body = bytearray(video[:at] + entry + video[at + 12 :])
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        size = body.index(kind) - 4
        told = int.from_bytes(body[size : size + 4], "big") + len(entry) - 12
        body[size : size + 4] = told.to_bytes(4, "big")
    return bytes(body)


def write_all(folder: Path, port: int) -> list[Path]:
    """Write the files, and beside them what they ask for; the paths of the files.

    Args:
        folder: that is empty.
        port: of a listener on loopback, which stands for any host.
    """
    frames = face()
    for name in (_SEGMENT, _VIDEO):
        write_video(folder / name, frames)
    (folder / _SECRET).write_text("a secret\n")
    for name in ("vobsub.sub", "vobsub-idx.sub"):  # as the index, but for the ending
        (folder / name).write_bytes(b"\0\0\1\xba" + bytes(2044))
    png = cv2.imencode(".png", np.asarray(frames[0]))[1].tobytes()
    for number in range(3):
        (folder / (_PICTURE % number)).write_bytes(png)
        (folder / (_PICTURE % number).replace("png", "jpg")).write_bytes(png)
    video = (folder / _VIDEO).read_bytes()
    contents = {name: text.encode() for name, text in _texts(folder, port).items()} | {
        _PICTURE: png,
        _PICTURE.replace("png", "jpg"): png,
        "img*.png": png,
        "reference-file.mov": _reference_movie(f"file://{folder.resolve() / _VIDEO}"),
        "reference-web.mov": _reference_movie(f"http://127.0.0.1:{port}/a.mov"),
        "alias.mov": _aliased(video, folder.resolve() / _VIDEO),
        f"concat:{_VIDEO}|{_VIDEO}": b"not a video",
        f"lavfi:movie={_VIDEO}": b"not a video",
    }
    written = []
    for name, content in contents.items():
        for named in (name, f"{'-'.join(name.rsplit('.', 1))}.mp4"):
            (folder / named).write_bytes(content)
            written.append(folder / named)
    BROKEN["pictures-elsewhere.mp4"](folder / "elsewhere.mp4")
    return [*written, folder / "elsewhere.mp4", folder / _VIDEO]


def _in_sandbox(paths: list[Path]) -> None:
    """As a scan reads them: by helper and child."""
    with Sandbox() as sandbox:
        _begin()
        for path in paths:
            with path.open("rb") as file:
                facts = sandbox.extract(file, ExtractOptions()).facts
            print(path.name, facts.failure or "read", sep="\t")


def _without_walls(paths: list[Path]) -> None:
    """With nothing around FFmpeg but its own leash, in a process of its own each."""
    look = faces.load("yunet")

    def extract(file: IO[bytes]) -> str:
        return str(extract_clips(file, ExtractOptions(), look).facts.failure or "read")

    _each_forked(paths, extract)


def _without_leash(paths: list[Path]) -> None:
    """What PyAV does by itself, with an open file."""
    _each_forked(paths, _decoded)


def _by_name(paths: list[Path]) -> None:
    """What PyAV does by itself, with a path."""
    _each_forked(paths, lambda file: _decoded(file.name))


def _decoded(file: Any) -> str:
    try:
        with av.open(file) as container:
            for number, _ in enumerate(container.decode(video=0)):
                if number == 1:
                    break
        return "read"
    except (av.error.FFmpegError, ValueError, IndexError, OSError) as error:
        return type(error).__name__


def _each_forked(paths: list[Path], read: Callable[[IO[bytes]], str]) -> None:
    for name in (_VIDEO, _SECRET):  # what is imported late is imported now
        with paths[0].with_name(name).open("rb") as file:
            read(file)
    _begin()
    for path in paths:
        with path.open("rb") as file:
            pid = os.fork()
            if pid == 0:
                signal.alarm(_MOST_S)
                os.write(1, f"{path.name}\t{read(file)}\n".encode())
                os._exit(0)
            os.waitpid(pid, 0)


def _begin() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.access(MARK, os.F_OK)


WAYS = {"sandbox": _in_sandbox, "no-walls": _without_walls, "no-leash": _without_leash, "by-name": _by_name}

if __name__ == "__main__":
    listed = [Path(line) for line in Path(sys.argv[2]).read_text().splitlines()]
    os.chdir(listed[0].parent)  # a relative name of a file without a name is meant from here
    WAYS[sys.argv[1]](listed)
