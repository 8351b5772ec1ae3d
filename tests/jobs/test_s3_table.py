"""S3 in and out: a scan of a bucket into a table in it, by the same commands."""

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable

from detector.errors import InputError, StorageError, TableHeldError
from jobs import s3
from jobs.maintenance import purge
from jobs.output import S3Output, open_output
from jobs.table import ResultsTable
from tests.jobs.conftest import Command
from tests.jobs.samples import DAY, rows, sample_row
from tests.media import moving_face, write_video
from tests.proxy import losing_proxy
from tests.readers import documented_readers
from tests.soak.counts import counts

pytestmark = pytest.mark.xdist_group("s3")


def _scan(command: Command, bucket: str, weights: Path, *more: object):
    where = [f"s3://{bucket}/in/", "--output", f"s3://{bucket}/out", "--weights", weights]
    return command("scan", *where, "--address", "in-process", *more)


@pytest.fixture
def videos(bucket: str, tmp_path: Path) -> str:
    path = write_video(tmp_path / "a.mp4", moving_face(30, (320, 240), face_px=90))
    s3.client().upload_file(str(path), bucket, "in/face [1] #%41.mp4")
    s3.client().put_object(Bucket=bucket, Key="in/broken.mp4", Body=b"\0" * 3000)
    return bucket


def test_a_bucket_is_scanned_into_a_table_in_it(command: Command, videos: str, seeded: Path) -> None:
    done = _scan(command, videos, seeded)
    assert done.code == 3, done.err
    assert "2 videos" in done.out

    out = f"s3://{videos}/out"
    asked = command(
        "query",
        "sql",
        out,
        "SELECT uri, status, reason, integrity, len(content_sha256) AS n FROM latest",
        "--json",
    )
    assert asked.code == 0, asked.err
    found = {row["uri"]: row for row in json.loads(asked.out)}
    assert found[f"s3://{videos}/in/face [1] #%41.mp4"] | {"uri": ""} == {
        "uri": "",
        "status": "scored",
        "reason": None,
        "integrity": "checksum",
        "n": 64,
    }
    assert found[f"s3://{videos}/in/broken.mp4"]["reason"] == "not_video"
    summary = json.loads(s3.client().get_object(Bucket=videos, Key="out/summary.json")["Body"].read())
    assert summary["exit_code"] == 3
    assert summary["output"] == out

    again = _scan(command, videos, seeded)
    assert again.code == 0
    assert "nothing to scan" in again.err
    probes = s3.client().list_objects_v2(Bucket=videos, Prefix="out/.probe")
    assert probes["KeyCount"] == 0


def test_the_documented_readers_read_it_from_the_bucket(command: Command, videos: str, seeded: Path) -> None:
    assert _scan(command, videos, seeded).code == 3
    recipes = documented_readers("S3")
    assert [recipe.split(",")[0] for recipe in recipes] == ["# pandas", "# polars", "# pyarrow", "# DuckDB"]
    for recipe in recipes:
        names = {"OUT": f"s3://{videos}/out"}
        exec(recipe, names)  # noqa: S102  # running it is the test
        assert len(names["rows"]) == 2, recipe


def test_one_object_is_explained(command: Command, videos: str, seeded: Path) -> None:
    done = command("explain", f"s3://{videos}/in/face [1] #%41.mp4", "--weights", seeded, "--json")
    assert json.loads(done.out)["status"] == "scored"


def test_a_question_reads_the_table_and_nothing_else_of_the_bucket(
    command: Command, videos: str, seeded: Path
) -> None:
    _scan(command, videos, seeded)
    s3.client().put_object(Bucket=videos, Key="secret.csv", Body=b"a\n1\n")
    out = f"s3://{videos}/out"
    for stolen in (f"read_csv('s3://{videos}/secret.csv')", "read_text('/etc/hostname')"):
        done = command("query", "sql", out, f"SELECT * FROM {stolen}")  # noqa: S608
        assert done.code != 0, done.out


def test_the_table_is_claimed_fenced_and_cleaned_as_on_disk(bucket: str) -> None:
    out = f"s3://{bucket}/deep/out"
    first = ResultsTable.create(out)
    stale = ResultsTable.open(out)
    with first.claim("one") as table:
        table.append(rows(3))
        with pytest.raises(TableHeldError):
            stale.claim("two")
    with ResultsTable.open(out).claim("three") as table:
        table.append(rows(2, start=3))
    left = DeltaTable(f"{out}/results", storage_options=open_output(out).storage_options)
    assert left.to_pyarrow_table().num_rows == 5
    orphan = {"Bucket": bucket, "Key": "deep/out/results/scan_date=2026-01-01/part-0.parquet"}
    s3.client().put_object(**orphan, Body=b"left by a kill")
    import time

    time.sleep(1.1)  # the store's clock counts seconds
    with ResultsTable.open(out).claim("four"):
        pass
    assert s3.head(s3.Address(bucket, orphan["Key"])) is None


def test_a_store_without_conditional_writes_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = s3.client().put_object

    def careless(**words):
        return put(**{name: value for name, value in words.items() if name != "IfNoneMatch"})

    refused = pytest.raises(StorageError, match="overwrites an object that was to be written only if new")
    with monkeypatch.context() as patched:
        patched.setattr(s3.client(), "put_object", careless)
        with refused:
            ResultsTable.create(f"s3://{bucket}/out")
    assert "Contents" not in s3.client().list_objects_v2(Bucket=bucket), "nothing was begun there"
    table = ResultsTable.create(f"s3://{bucket}/out")
    monkeypatch.setattr(s3.client(), "put_object", careless)
    with refused:
        table.claim("one")


def test_a_bucket_that_is_not_there_is_told(bucket: str) -> None:
    with pytest.raises(StorageError, match=r"NoSuchBucket|does not exist"):
        ResultsTable.create("s3://no-such-bucket-here/out")


@pytest.mark.parametrize("key", ["q?x", "h#x", "a/../b", "./c", "a//b", "a%20b"])
def test_a_prefix_that_delta_would_look_for_elsewhere_is_refused(bucket: str, key: str) -> None:
    with pytest.raises(InputError, match="cannot hold a Delta table"):
        ResultsTable.create(f"s3://{bucket}/{key}")
    assert "Contents" not in s3.client().list_objects_v2(Bucket=bucket)


def test_a_purge_says_where_the_bucket_keeps_old_versions(bucket: str, command: Command) -> None:
    out = f"s3://{bucket}/out"
    with ResultsTable.create(out).claim("one") as table:
        table.append(rows(2))
    uri = str(rows(1)[0]["uri"])
    assert "old versions" not in command("table", "purge", out, "--uri", uri).out
    s3.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    done = command("table", "purge", out, "--uri", uri, "--yes")
    assert "1 rows removed" in done.out
    assert "The bucket keeps old versions of objects" in done.out


def test_a_prefix_is_absolute_and_without_slashes_at_its_ends() -> None:
    assert open_output("s3://bucket/a/b/") == S3Output(s3.Address("bucket", "a/b"))
    assert open_output("s3://bucket").at("results") == "s3://bucket/results"


def test_a_purge_leaves_no_object_with_the_name(bucket: str) -> None:
    out, name = f"s3://{bucket}/out", str(sample_row("somebody.mp4")["uri"])
    with ResultsTable.create(out).claim("one") as table:
        table.append([sample_row("somebody.mp4"), *rows(2)])
        table.record_scan("start", {"started_at": DAY, "inputs": [name]})
    assert purge(out, [name], None, dry_run=False).rows == 1
    for item in s3.client().list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]:
        body = s3.client().get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        assert b"somebody" not in body, item["Key"]
    with ResultsTable.open(out).claim("two") as table:
        table.append(rows(1, start=5))
    left = DeltaTable(f"{out}/results", storage_options=open_output(out).storage_options)
    assert left.to_pyarrow_table().num_rows == 3


def test_a_commit_whose_answer_is_lost_counts_once(
    bucket: str, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"s3://{bucket}/out"
    ResultsTable.create(out)
    with losing_proxy(s3_server["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3.client.cache_clear()
        with ResultsTable.open(out).claim("one") as table:
            for start in range(3):
                proxy.lose(1)
                table.append(rows(2, start=2 * start))
        assert proxy.lose(0) == 3
        assert set(counts(out).values()) == {6}
