"""Names of files are data: whatever stands in them, no terminal, log, table or file takes it for more."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from jobs import s3
from jobs.local import local_path, local_uri
from jobs.notify import SECRET
from jobs.schema import printable
from jobs.table import ResultsTable
from tests.film import moving_face
from tests.healthy import join
from tests.jobs.conftest import Command, Done
from tests.jobs.samples import sample_row
from tests.media import write_video
from tests.scans import read_rows

pytestmark = [pytest.mark.xdist_group("s3"), pytest.mark.timeout(300)]

FORGED = "failed: forged.mp4: corrupt: a line of its own"
TAG = "a title that nobody asked for"
REAL = "\x1b]0;owned\x07 real.mp4"
NAMES = (
    "%03d.png",
    "%s%n%x{0}{uri}.mp4",
    "concat:a|b",
    "-rf",
    "--output",
    "=HYPERLINK('x').mp4",
    "+1+1.mp4",
    "@SUM(1).mp4",
    "\ttab.mp4",
    "\rcarriage.mp4",
    f"new\n{FORGED}\n.mp4",
    "\x1b[2J\x1b[31mred.mp4",
    "\x9b31m\x85C1.mp4",
    "\x08\x7fback.mp4",
    "right-to-left \u202e4pm.exe",
    "isolate \u2066x\u2069 zero\u200bwidth \u2028line",
    "[bold red]rich[bold] [link=http:x]x.mp4",
    "<script>alert(1)<script> {{7*7}} &amp;.mp4",
    "'; DROP TABLE latest; --.mp4",
    "s3:__bucket_key?versionId=1#x.mp4",
    "ünïcode 日本 👩\u200d👩.mp4",
    "back\\slash\\..\\x.mp4",
)
# On disk a name is bytes: what is no UTF-8 Python holds as lone surrogates.
ON_DISK = (*NAMES, os.fsdecode(b"lone \xed\xa0\x80 surrogate \xff\xfe.mp4"))
# Keys may have slashes; SeaweedFS, like most, tidies those with dots away, and moto does not.
ON_S3 = (*(name for name in NAMES if "\\" not in name), "k/" * 510 + "k")  # 1,024 bytes behind in/
DOTTED = ("../../x", "a/../../b.mp4", "//x", "./x.mp4", "back\\slash\\..\\x.mp4")

FORMULA = ("=", "+", "-", "@", "\t", "\r")
OWN = {"out", "metrics.prom", "all.csv", "all.parquet"}


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """What lies in the files: `broken`, and a `real` video whose title holds escapes."""
    folder = tmp_path_factory.mktemp("contents")
    video = write_video(folder / "a.mp4", moving_face(12, (160, 160), face_px=80))
    join(folder / "tagged.mp4", [video], tags={"title": f"\x1b[31m{TAG}\x07", "comment": f"=1+1 {TAG}"})
    assert TAG.encode() in (folder / "tagged.mp4").read_bytes()
    return {"broken": b"neither\n", "real": (folder / "tagged.mp4").read_bytes()}


@dataclass(frozen=True, slots=True)
class World:
    """What a scan here needs: the command, a folder, weights, a webhook that notes what it was sent."""

    command: Command
    folder: Path
    seeded: Path
    webhook: str
    heard: list[bytes]
    contents: Mapping[str, bytes]

    def body(self, name: str) -> bytes:
        return self.contents["real" if name == REAL else "broken"]


@pytest.fixture
def world(
    command: Command,
    tmp_path: Path,
    seeded: Path,
    contents: Mapping[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    monkeypatch.setenv(SECRET, "whsec_" + base64.b64encode(bytes(24)).decode())
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield World(command, tmp_path, seeded, f"http://127.0.0.1:{server.server_port}/", got, contents)
    server.shutdown()
    server.server_close()


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket that keeps keys as they are."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "x"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    s3.client.cache_clear()
    s3.client().create_bucket(Bucket="dotted")
    yield "dotted"
    s3.client.cache_clear()
    server.stop()


def raw(text: str) -> list[str]:
    """What of a text is not for a terminal, with what stands around it."""
    return [
        text[max(0, at - 20) : at + 20]
        for at, letter in enumerate(text)
        if not letter.isprintable() and letter != "\n"
    ]


def clean(done: Done, where: str) -> None:
    for stream, text in (("stdout", done.out), ("stderr", done.err)):
        assert not raw(text), f"{where}: {stream} is not for a terminal: {raw(text)[:3]}"
        assert FORGED not in text.splitlines(), f"{where}: a name made a line of its own on {stream}"
        assert TAG not in text, f"{where}: {stream} tells a tag of the file"
        assert "Traceback" not in text, text


def scanned(world: World, source: str, output: str) -> tuple[Done, str]:
    """A scan with everything on that tells of it; how it ended, and its metrics."""
    metrics = world.folder / "metrics.prom"
    flags = ("--include", "*", "--weights", world.seeded, "--address", "in-process")
    sets = (f"notify={world.webhook}", f"metrics_file={metrics}", "dtype=float32")
    words = [word for one in sets for word in ("--set", one)]
    return world.command("scan", source, "--output", output, *flags, *words), metrics.read_text()


def answers(command: Command, output: str) -> dict[str, list[dict[str, Any]]]:
    """What every question says, as JSON; the terminal's text of each is looked at on the way."""
    found = {}
    for words in (
        ("summary",),
        ("failed",),
        ("flagged",),
        ("people",),
        ("scans",),
        ("sql", "SELECT * FROM latest ORDER BY uri"),
    ):
        question = ("query", words[0], output, *words[1:])
        shown, as_json = command(*question), command(*question, "--json")
        assert (shown.code, as_json.code) == (0, 0), shown.err + as_json.err
        clean(shown, f"query {words[0]}")
        clean(as_json, f"query {words[0]} --json")
        assert as_json.out.isascii()
        found[words[0]] = json.loads(as_json.out)
    return found


def exported(world: World, output: str, uris: set[str]) -> None:
    """Exports hold the same names; a spreadsheet takes no cell for a formula."""
    table, text = world.folder / "all.parquet", world.folder / "all.csv"
    for path in (table, text):
        clean(world.command("query", "export", output, path), f"export {path.name}")
    assert set(pd.read_parquet(table)["uri"]) == uris
    with text.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert {row[rows[0].index("uri")] for row in rows[1:]} == uris
    assert not [cell for row in rows for cell in row if cell.startswith(FORMULA) and not number(cell)]
    assert TAG.encode() not in text.read_bytes() + table.read_bytes()


def number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell) is not None


def checked(world: World, uris: set[str], source: str, output: str) -> list[dict[str, Any]]:
    """Scan, ask and export; the rows of the table."""
    done, metrics = scanned(world, source, output)
    assert done.code == 3, done.err
    clean(done, "scan")
    lines = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    assert len(lines) == min(20, len(uris) - 1), "the log names the first 20 failures, a line each"
    named = {line.removeprefix("failed: ").rpartition(": not_video: ")[0] for line in lines}
    assert named <= {printable(uri) for uri in uris}
    assert not raw(metrics)
    [body] = world.heard
    assert body.isascii()
    assert set(json.loads(body)["data"]["examples"].values()) <= uris
    found = answers(world.command, output)
    real = {uri for uri in uris if uri.endswith(REAL)}
    assert {row["uri"] for row in found["sql"]} == uris
    assert {row["uri"] for row in found["failed"]} == uris - real
    assert {row["uri"] for row in found["people"]} == real
    exported(world, output, uris)
    return found["sql"]


def examples(summary: bytes) -> set[str]:
    """The names in a `summary.json`, whose bytes are harmless."""
    assert summary.isascii()
    assert not raw(summary.decode())
    return set(json.loads(summary)["examples"].values())


def test_names_on_disk_are_names_everywhere(world: World) -> None:
    videos, output = world.folder / "videos", world.folder / "out"
    videos.mkdir()
    paths = {local_uri(str(videos / name)): videos / name for name in (*ON_DISK, REAL)}
    for path in paths.values():
        path.write_bytes(world.body(path.name))

    rows = checked(world, set(paths), str(videos), str(output))

    assert {row["uri"]: row["status"] for row in rows} == {
        uri: "scored" if path.name == REAL else "failed" for uri, path in paths.items()
    }
    assert all(local_path(uri) == str(path) for uri, path in paths.items()), "a uri leads back to its file"
    assert len(read_rows(output)) == len(paths), "readers disagree"
    assert examples((output / "summary.json").read_bytes()) <= set(paths)
    made = {path.name for path in world.folder.iterdir()} - {"videos", *OWN}
    assert not made, f"a name was taken for a path: {made}"
    assert {path.name for path in videos.iterdir()} == {*ON_DISK, REAL}


@pytest.mark.parametrize(
    "name",
    [
        REAL,
        f"new\n{FORGED}\n.mp4",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (ON_DISK[-1], "-rf", "concat:a|b")),
    ],
)
def test_one_file_is_explained_whatever_its_name(name: str, world: World) -> None:
    path = world.folder / name
    path.write_bytes(world.body(name))
    crops = world.folder / "\x1b[31mcrops"
    words = ("--weights", world.seeded, "--set", "dtype=float32", "--crops", crops)
    shown = world.command("explain", path, *words)
    clean(shown, "explain")
    assert printable(local_uri(str(path))) in shown.out
    as_json = world.command("explain", path, *words, "--json")
    assert as_json.out.isascii()
    assert json.loads(as_json.out)["uri"] == local_uri(str(path))


def test_keys_on_s3_are_names_everywhere(bucket: str, world: World) -> None:
    keys = {f"in/{key}": key for key in (*ON_S3, REAL)}
    for key, name in keys.items():
        s3.client().put_object(Bucket=bucket, Key=key, Body=world.body(name))
    uris = {f"s3://{bucket}/{key}" for key in keys}

    checked(world, uris, f"s3://{bucket}/in/", f"s3://{bucket}/out")

    summary = s3.client().get_object(Bucket=bucket, Key="out/summary.json")["Body"].read()
    assert examples(summary) <= uris
    kept = s3.client().list_objects_v2(Bucket=bucket)["Contents"]
    foreign = {entry["Key"].split("/")[0] for entry in kept} - {"in", "out"}
    assert not foreign, f"a key was taken for a path: {foreign}"


@pytest.mark.slow
def test_keys_with_dots_lead_nowhere(moto: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (*DOTTED, REAL):
        s3.client().put_object(Bucket=moto, Key=key, Body=world.body(key))
    here = world.folder / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    uris = {f"s3://{moto}/{key}" for key in (*DOTTED, REAL)}
    checked(world, uris, f"s3://{moto}", str(world.folder / "out"))
    assert not list(here.iterdir())
    assert {path.name for path in world.folder.iterdir()} == {"a", *OWN}


@pytest.mark.parametrize("name", ["\x1b[31m\nnew\x9b \u202e%s {0}", os.fsdecode(b"\xff\x1b[2J")])
def test_an_error_spells_out_the_name_that_it_is_about(
    name: str, command: Command, tmp_path: Path, seeded: Path
) -> None:
    missing = tmp_path / name
    table = str(tmp_path / "table")
    ResultsTable.create(table)
    for words in (
        ("scan", missing, "--output", tmp_path / "out", "--weights", seeded),
        ("scan", tmp_path, "--output", tmp_path / "out", "--weights", missing),
        ("scan", tmp_path, "--output", f"gs://{name}", "--weights", seeded),
        ("scan", tmp_path, "--output", tmp_path / "out", "--config", missing),
        ("scan", tmp_path, "--output", tmp_path / "out", "--set", f"{name}=1"),
        ("scan", tmp_path, "--output", tmp_path / "out", "--set", f"windows={name}"),
        ("scan", "--manifest", missing, "--output", tmp_path / "out", "--weights", seeded),
        ("explain", missing, "--weights", seeded),
        ("query", "summary", missing),
        ("query", "sql", table, f"SELECT {name}"),
        ("query", "export", table, f"{missing}.xlsx"),
        ("query", "diff", table, name, name),
        ("table", "purge", missing, "--uri", name),
        ("weights", "verify", missing),
        ("dataset", "check", missing, "--address", "in-process"),
        ("config", "check", missing),
    ):
        done = command(*words)
        clean(done, " ".join(map(str, words[:2])))
        assert done.code in (2, 4), f"{words[:2]}: exit {done.code}: {done.err}"
        assert done.err.startswith("deepfake-scan: "), done.err


def test_a_cell_of_csv_is_never_a_formula(command: Command, tmp_path: Path) -> None:
    begun = [f"{sign}cmd|' /C calc'!A0" for sign in FORMULA]
    rows = [sample_row(f"{i}.mp4") | {"codec": text, "uri": text} for i, text in enumerate(begun)]
    with ResultsTable.create(str(tmp_path / "out")).claim("one") as table:
        table.append(rows)
    command("query", "export", tmp_path / "out", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        found = {row["uri"]: row["codec"] for row in csv.DictReader(file)}
    assert {text: text for text in (f"'{text}" for text in begun)}.items() <= found.items()
