"""Lists of videos: every form, further columns, what costs a request, and S3 Inventories."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detector.errors import InputError, StorageError
from jobs import s3
from jobs.listing import Listing, Narrowed
from jobs.plan import plan
from jobs.scan import run
from tests.jobs.conftest import Command
from tests.media import moving_face, write_video
from tests.scans import outcomes, read_rows, scan_settings, touch


def _listed(manifest: Path | str, **more):
    return list(Listing([], manifests=[str(manifest)], **more))


def _write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_every_form_is_read_and_further_columns_are_kept(tmp_path: Path, form: str) -> None:
    touch(tmp_path, "a.mp4", "b.bin")
    rows = [
        {"uri": "a.mp4", "account": "x7", "n": 1},
        {"uri": str(tmp_path / "b.bin"), "account": "ü", "n": 2},
    ]
    items = _listed(_write(tmp_path / f"list.{form}", rows))
    assert [Path(item.uri).name for item in items] == ["a.mp4", "b.bin"]
    assert [dict(item.extra or ())["account"] for item in items] == ["x7", "ü"]
    assert [dict(item.extra or ())["n"] for item in items] == ["1", "2"]


def test_further_columns_and_missing_files_arrive_in_the_table(
    command: Command, tmp_path: Path, seeded: Path
) -> None:
    write_video(tmp_path / "a.mp4", moving_face(12, (160, 160), face_px=90))
    manifest = _write(
        tmp_path / "list.csv", [{"uri": "a.mp4", "case": "7"}, {"uri": "gone.mp4", "case": "8"}]
    )
    out = tmp_path / "out"
    words = ["--manifest", manifest, "--output", out, "--weights", seeded, "--address", "in-process"]
    assert command("scan", *words).code == 3
    found = {Path(row["uri"]).name: row for row in read_rows(out)}
    assert dict(found["a.mp4"]["extra"]) == {"case": "7"}
    assert found["gone.mp4"]["reason"] == "not_found"
    assert dict(found["gone.mp4"]["extra"]) == {"case": "8"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("list.csv", "url\na.mp4\n", "row 1: there is no `uri`"),
        ("list.jsonl", '{"uri": "a.mp4"}\n{"uri"\n', "cannot be read"),
        ("list.jsonl", '{"uri": "a.mp4", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "cannot be read"),
        ("list.parquet", "not parquet", "cannot be read"),
        ("list.txt", "a.mp4\n", "its form is not told by its suffix"),
        ("list.csv", None, "cannot be read"),
    ],
)
def test_a_manifest_that_is_none_is_told(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        _listed(tmp_path / name)


def test_what_is_left_out_is_counted_and_a_sample_is_the_same_in_every_run(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.mp4" for number in range(400)))
    touch(tmp_path / "trash", "a.mp4")
    (tmp_path / "big.mp4").write_bytes(b"x" * 100)

    def names(**narrowed) -> set[str]:
        listing = Listing([str(tmp_path)], narrowed=Narrowed(**narrowed))
        found = {item.uri for item in listing}
        assert sum(listing.skipped.values()) + len(found) == 402
        return {Path(uri).name for uri in found}

    assert names(min_bytes=50) == {"big.mp4"}
    assert "a.mp4" not in names(exclude=["trash/*"])
    tenth = names(sample=0.1)
    assert 20 < len(tenth) < 60
    assert tenth == names(sample=0.1) < names(sample=0.3)
    (tmp_path / "list.csv").write_text("uri\nbig.mp4\n0.mp4\nmissing.mp4\n")
    listed = Listing([], manifests=[str(tmp_path / "list.csv")], narrowed=Narrowed(min_bytes=50))
    assert {Path(item.uri).name for item in listed} == {"big.mp4", "missing.mp4"}, "what is missing is a row"


@pytest.mark.xdist_group("s3")
def test_a_manifest_on_s3_asks_only_for_what_it_does_not_know(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a.mp4", "b c.mp4"):
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"body")
    known = {"size": 4, "version": "841a2d689ad86bd1611447453c22c6fc", "modified_at": "2026-01-02T03:04:05Z"}
    rows = [{"uri": f"s3://{bucket}/a.mp4", **known}, {"uri": f"s3://{bucket}/b c.mp4"}]
    manifest = _write(tmp_path / "list.jsonl", rows)
    s3.client().upload_file(str(manifest), bucket, "lists/list.jsonl")
    asked = []
    monkeypatch.setattr("jobs.manifests.head", lambda where, _: asked.append(where.key) or s3.head(where))
    first, second = _listed(f"s3://{bucket}/lists/list.jsonl")
    assert asked == ["b c.mp4"]
    assert first.modified_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (first.size, first.version) == (second.size, second.version)


@pytest.mark.xdist_group("s3")
def test_what_the_store_refuses_to_tell_is_taken_and_an_endpoint_that_is_dead_is_told(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = _write(tmp_path / "list.csv", [{"uri": f"s3://{bucket}/a.mp4"}])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3.client.cache_clear()
    (item,) = _listed(manifest)
    assert item.uri == f"s3://{bucket}/a.mp4"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3.client.cache_clear()
    with pytest.raises(StorageError, match=r"list\.csv"):
        _listed(manifest)


@pytest.mark.xdist_group("s3")
def test_an_inventory_is_a_listing(bucket: str, tmp_path: Path) -> None:
    entry = {
        "bucket": "videos",
        "e_tag": "abc",
        "size": 9,
        "storage_class": "GLACIER",
        "is_delete_marker": False,
    }
    rows = [
        entry | {"key": "in/a b.mp4", "version_id": "v2", "is_latest": True},
        entry | {"key": "in/a b.mp4", "version_id": "v1", "is_latest": False},
        entry | {"key": "in/notes.txt", "version_id": None, "is_latest": True},
    ]
    part = _write(tmp_path / "part.parquet", rows)
    s3.client().upload_file(str(part), bucket, "inv/data/part.parquet")
    described = {
        "fileFormat": "Parquet",
        "destinationBucket": f"arn:aws:s3:::{bucket}",
        "files": [{"key": "inv/data/part.parquet"}],
    }
    s3.client().put_object(Bucket=bucket, Key="inv/manifest.json", Body=json.dumps(described).encode())
    listing = Listing([], manifests=[f"s3://{bucket}/inv/manifest.json"])
    (item,) = listing
    assert item.uri == "s3://videos/in/a b.mp4"
    assert (item.version, item.version_id, item.storage_class) == ("abc", "v2", "GLACIER")
    assert dict(listing.skipped) == {".txt": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "[1]", "line 1 is not an object"),
        ("a.jsonl", '{"uri": "s3://b/a.mp4", "version": "v", "size": Infinity}', "cannot be read"),
        ("a.jsonl", '{"uri": "s3://b/a.mp4", "version": "v", "size": 1e30}', "cannot be read"),
        ("a.jsonl", '{"uri": "s3://b/a.mp4", "version": "v", "size": -1}', "no size of a file"),
        ("a.jsonl", '{"uri": "s3://b/\\ud800.mp4", "version": "v", "size": 1}', "half a character"),
        ("a.jsonl", '{"uri": "gs://b/a.mp4"}', "row 1: gs://b/a.mp4 cannot be scanned"),
        ("a.csv", "", "it is empty"),
        ("a.csv", "uri,size\na.mp4,1,2,3\n", "line 2 has more fields"),
        ("a.csv", "uri\n" + "x" * 140_000, "cannot be read"),
        ("manifest.json", "[]", "not that of an S3 Inventory"),
        (
            "manifest.json",
            '{"destinationBucket": 5, "files": [], "fileFormat": "Parquet"}',
            "have to be text",
        ),
        ("manifest.json", '{"fileFormat": "Parquet"}', "not that of an S3 Inventory"),
    ],
)
def test_a_manifest_that_is_wrong_is_told_with_its_place(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        list(Listing([], manifests=[str(tmp_path / name)]))
    assert str(caught.value).count("manifest ") == 1


def test_a_row_of_a_manifest_is_one_file_and_no_pattern(tmp_path: Path, seeded: Path) -> None:
    touch(tmp_path / "sub", "x.mp4", "y.mp4")
    touch(tmp_path, "clip1.mp4", "clip[1].mp4", "*.mp4")
    (tmp_path / "empty").mkdir()
    names = ["sub", "empty", "clip[1].mp4", "clip?.mp4", "*.mp4"]
    (tmp_path / "list.csv").write_text("\n".join(["uri", *names]))
    run(
        scan_settings(tmp_path, tmp_path / "out", seeded, inputs=[], manifests=[str(tmp_path / "list.csv")]),
        quiet=True,
    )
    assert outcomes(read_rows(tmp_path / "out")) == {
        "sub": "not_video",
        "empty": "not_video",
        "clip[1].mp4": "empty_file",
        "clip?.mp4": "not_found",
        "*.mp4": "empty_file",
    }


def test_what_a_manifest_says_beside_stays_where_a_folder_holds_the_same_video(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a.mp4", "b.mp4")
    (tmp_path / "list.csv").write_text(f"uri,account\n{tmp_path}/videos/a.mp4,anna\n")
    listing = Listing([str(tmp_path / "videos")], manifests=[str(tmp_path / "list.csv")])
    rows = plan(listing, None, "s").rows.to_pylist()
    assert {Path(row["uri"]).name: row["extra"] for row in rows} == {
        "a.mp4": [("account", "anna")],
        "b.mp4": None,
    }


def test_a_pattern_can_be_narrowed_and_leaves_the_scans_own_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "text.mp4", "summary.json")
    touch(tmp_path / "trash", "b.mp4")
    listing = Listing([f"{tmp_path}/**/*.mp4"], narrowed=Narrowed(exclude=["text*", "trash/*"]))
    assert {Path(item.uri).name for item in listing} == {"a.mp4"}
    touch(tmp_path / "results", "c.mp4")
    behind = Listing([f"{tmp_path}/**/*.mp4"], output=str(tmp_path))
    assert {Path(item.uri).name for item in behind} == {"a.mp4", "text.mp4", "b.mp4"}
    everything = Listing([str(tmp_path)], ["*"], str(tmp_path))
    assert {Path(item.uri).name for item in everything} == {"a.mp4", "text.mp4", "b.mp4"}
    assert everything.skipped["file of results"] == 1
