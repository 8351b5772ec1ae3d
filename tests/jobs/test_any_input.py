"""Whatever names, settings and videos hold: a listing, settings and rows, or a refusal in words."""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from detector.errors import InputError, SettingsError
from detector.types import Facts, Reason, Status, VideoInfo, Warn
from jobs import s3
from jobs.config import load
from jobs.export import export
from jobs.listing import Listing, Narrowed
from jobs.printing import rows_as_json
from jobs.query import connect, sql
from jobs.schema import plain, row, to_arrow
from jobs.table import ResultsTable
from tests.jobs.samples import CONTEXT, planned, scored, unscored

ANY = st.text(st.characters(exclude_categories=()))  # NUL, half characters, right to left, all of them
SIGNS = st.text(st.sampled_from("*?[]!-/.ab{}~\\^$()+|é"), max_size=12)
UNHURRIED = settings(deadline=None, max_examples=60)


# --- listing --------------------------------------------------------------------------------------------


@UNHURRIED
@given(st.lists(SIGNS | ANY.filter(len), max_size=3), st.lists(SIGNS | ANY.filter(len), max_size=3))
def test_any_patterns_take_or_leave_each_file_and_count_what_they_leave(
    include: list[str], exclude: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = {"a.mp4", "b[1].mov", "é*.bin", "[!a]"}
        for name in names:
            Path(folder, name).touch()
        listing = Listing([folder], include, narrowed=Narrowed(exclude=exclude))
        taken = {Path(item.uri).name for item in listing}
        assert listing.skipped.total() == len(names - taken)
        for name in taken:
            assert not any(fnmatch(name.lower(), pattern.lower()) for pattern in exclude), name
        if include:
            left = {name for name in names if any(fnmatch(name.lower(), p.lower()) for p in include)}
            assert taken <= left


@UNHURRIED
@given(SIGNS | ANY)
def test_any_input_below_a_folder_is_listed_or_refused_in_words(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.mp4").touch()
        Path(folder, "b").mkdir()
        Path(folder, "b", "a*.mp4").touch()
        if ".." in Path(name).parts:  # would lead out of the folder
            return
        try:
            found = [item.uri for item in Listing([f"{folder}/{name}"])]
        except InputError as refusal:
            found, said = [], refusal.message
        else:
            said = "taken"
        assert said.isprintable()
        assert all(os.path.realpath(uri).startswith(folder) for uri in found), found


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A bucket that keeps keys as they are."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    reached = {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    reached |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "x")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in reached.items():
            patch.setenv(name, value)
        s3.client.cache_clear()
        s3.client().create_bucket(Bucket="any-keys")
        yield "any-keys"
    s3.client.cache_clear()
    server.stop()


# S3 takes any UTF-8 of up to 1,024 bytes. What XML cannot hold comes back escaped.
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), min_size=1, max_size=200).filter(
    lambda key: not key.endswith("/")  # the marker of a folder, which is counted, not listed
)


@pytest.mark.xdist_group("s3")
@settings(deadline=None, max_examples=10)
@given(keys=st.lists(KEYS, min_size=1, max_size=5, unique=True))
def test_every_key_is_listed_once_and_is_the_same_when_named(store: str, keys: list[str]) -> None:
    for key in keys:
        s3.client().put_object(Bucket=store, Key=f"in/{key}", Body=b"body")
    try:
        listed = {item.uri: item.version for item in Listing([f"s3://{store}/in/"], ["*"])}
        assert sorted(s3.parse(uri).key for uri in listed) == sorted(f"in/{key}" for key in keys)
        for uri, version in listed.items():
            assert {item.uri: item.version for item in Listing([uri])} == {uri: version}
    finally:
        for key in keys:
            s3.client().delete_object(Bucket=store, Key=f"in/{key}")


# --- settings -------------------------------------------------------------------------------------------

KEYS_OF_SETTINGS = st.sampled_from(
    ["output", "include", "windows", "every", "max_bytes", "max_failed", "limit"]
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | ANY | st.dates() | st.datetimes() | st.binary()
)
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3)
)
YAML_WORDS = st.lists(
    st.sampled_from(tuple("&*-:?<[]{}>'#=~\"\n\t ,%|."))
    | st.sampled_from([": ", "- ", "&a ", "*a ", "<<: ", "---\n", "limit", "include", "0x", "1:60", ".nan"]),
    max_size=20,
).map("".join)


def settled(**sources: Any) -> bool:
    """True if they are settings that mean the same when they are written down, False if they are refused."""
    try:
        loaded = load(**sources)
    except SettingsError:
        return False
    shown = yaml.safe_dump({key: value for key, value, _ in loaded.shown()}, allow_unicode=True)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder, "again.yaml")
        again.write_bytes(shown.encode())
        assert load([again]).settings == loaded.settings
    return True


@UNHURRIED
@given(st.binary() | ANY.map(lambda text: text.encode("utf-8", "surrogatepass")) | YAML_WORDS.map(str.encode))
def test_any_bytes_as_a_settings_file_are_settings_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.yaml")
        file.write_bytes(content)
        settled(files=[file])


@UNHURRIED
@given(st.dictionaries(KEYS_OF_SETTINGS, NESTED, min_size=1))
def test_any_value_of_a_key_is_taken_or_refused(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.yaml")
        file.write_bytes(yaml.safe_dump(values).encode("utf-8", "surrogatepass"))
        settled(files=[file])


@UNHURRIED
@given(st.dictionaries(KEYS_OF_SETTINGS.map(str.upper) | ANY, ANY | SCALARS.map(str), max_size=3))
def test_any_environment_is_settings_or_refused(variables: dict[str, str]) -> None:
    settled(env={f"DEEPFAKE_SCAN_{name}": value for name, value in variables.items()})
    settled(sets=[f"{name}={value}" for name, value in variables.items()])


def test_settings_that_are_right_are_taken() -> None:
    """Or the tests above could pass with everything refused."""
    assert settled(env={"DEEPFAKE_SCAN_OUTPUT": "=é", "DEEPFAKE_SCAN_MAX_BYTES": "7GiB"})


@pytest.mark.parametrize(
    "content",
    ["limit: !!bool maybe", "limit: !!int ''", "limit: !!timestamp x", "include: " + "[" * 2000],
    ids=["bool", "int", "timestamp", "deep"],
)
def test_yaml_that_its_reader_breaks_over_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    assert not settled(files=[tmp_path / "a.yaml"])


# --- table ----------------------------------------------------------------------------------------------

NASTY = ANY | st.sampled_from(
    [
        "=1+1",
        "+1",
        "-1",
        "@a",
        "\t=1",
        "\r",
        "'=1",
        '"',
        "a,b",
        "a\nb",
        "\0",
        "\ud800",
        "x" * 100_000,
        "NULL",
        "",
    ]
)
NUMBERS = st.floats() | st.floats(0, 1)
SMALL = st.integers(-(2**31), 2**31 - 1)
FACTS = st.builds(
    Facts,
    info=st.none()
    | st.builds(
        VideoInfo,
        duration_s=st.none() | NUMBERS,
        width=SMALL,
        height=SMALL,
        fps=st.none() | NUMBERS,
        codec=NASTY,
        container=NASTY,
        rotation=SMALL,
    ),
    failure=st.sampled_from(Reason),
    message=NASTY,
    complete=st.sampled_from([None, True, False]),
    warnings=st.lists(st.sampled_from(Warn), max_size=3).map(tuple),
    windows_planned=SMALL,
    frames_decoded=SMALL,
    frames_corrupt=SMALL,
    tracks=st.sampled_from([(), scored().facts.tracks]),
)
# What a listing hands on is UTF-8: it spells out any other name, and refuses any other manifest.
UTF8 = st.text(st.characters(codec="utf-8"), min_size=1) | st.sampled_from(
    ["=1+1", "@a", "-1", "\0", "é" * 9000]
)
NAMES = st.tuples(UTF8, UTF8, st.dictionaries(UTF8, UTF8, max_size=2))


def made(facts: Facts, name: tuple[str, str, dict[str, str]]) -> dict[str, Any]:
    uri, version, extra = name
    plan = planned() | {"uri": uri, "version": version, "extra": extra}
    return row(plan, replace(unscored(Status.FAILED), facts=facts), CONTEXT)


def cell(value: str | None) -> str:
    """Text as CSV has it: a mark in front of what a spreadsheet would run."""
    return f"'{value}" if value and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value or ""


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(FACTS, NAMES), min_size=1, max_size=4, unique_by=lambda pair: pair[1][:2]))
def test_rows_of_any_facts_and_names_come_back_from_table_export_and_json(
    videos: list[tuple[Facts, tuple[str, str, dict[str, str]]]],
) -> None:
    rows = [made(facts, name) for facts, name in videos]
    wanted = {one["video_id"]: one for one in to_arrow(rows).to_pylist()}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "out")
        with ResultsTable.create(str(output)).claim("scan-1") as table:
            table.append(rows)
        with connect(str(output)) as connection:
            back = sql(connection, "FROM results")
            assert export(connection, "results", Path(folder, "rows.csv")) == len(rows)
            assert export(connection, "results", Path(folder, "rows.parquet")) == len(rows)
        assert {one["video_id"]: one for one in read(back)} == {k: comparable(v) for k, v in wanted.items()}
        assert len(pd.read_parquet(Path(folder, "rows.parquet"))) == len(rows)
        with Path(folder, "rows.csv").open(newline="", encoding="utf-8") as file:
            before = csv.field_size_limit(1 << 24)
            exported = {cells["video_id"]: cells for cells in csv.DictReader(file)}
            csv.field_size_limit(before)
    told = {one["video_id"]: one for one in json.loads(json.dumps(rows_as_json(back), allow_nan=False))}
    for key, one in wanted.items():
        for column in ("uri", "version", "message", "codec", "container"):
            value = one[column]
            assert told[key][column] == value, column
            assert exported[key][column] == cell(value), column
        assert json.loads(exported[key]["tracks"]) == told[key]["tracks"]


def read(table: pa.Table) -> list[dict[str, Any]]:
    return [comparable(one) for one in table.to_pylist()]


def comparable(one: dict[str, Any]) -> dict[str, Any]:
    """Without what a question to DuckDB words otherwise: maps and the zone of times."""
    return {name: value for name, value in one.items() if name not in ("extra", "scanned_at", "modified_at")}


@given(FACTS)
def test_numbers_of_a_row_can_be_compared_and_texts_fit(facts: Facts) -> None:
    [one] = to_arrow([made(facts, ("/a", "v", {}))]).to_pylist()
    numbers = [one[column] for column in ("duration_s", "fps")]
    assert all(number is None or math.isfinite(number) for number in numbers)
    assert one["message"].removesuffix("…") == plain(facts.message)[: len(one["message"].removesuffix("…"))]
    assert all(len(one[column] or "") <= 200 for column in ("message", "codec", "container"))
