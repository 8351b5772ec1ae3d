"""A table that another release wrote is read and continued."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from detector.types import Reason
from jobs import table as module
from jobs.columns import RESULTS
from jobs.listed import Listed
from jobs.plan import plan
from jobs.query import connect, sql
from jobs.scan import run
from jobs.schema import failed_row
from jobs.table import ResultsTable
from tests.canned import Canned
from tests.jobs.samples import CONTEXT
from tests.readers import documented_readers
from tests.scans import scan_settings, touch
from tests.soak.counts import counts


def planned(name: str) -> dict[str, Any]:
    return {
        "uri": f"/videos/{name}",
        "version": "1",
        "size": 1,
        "modified_at": datetime.now(UTC),
        "attempt": 1,
    }


def test_a_column_that_is_described_in_other_words_is_still_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_words = pa.schema([field.with_metadata({"description": "as it was put once"}) for field in RESULTS])
    with monkeypatch.context() as older:
        older.setattr(module, "RESULTS", other_words)
        with ResultsTable.create(str(tmp_path)).claim("older") as table:
            table.append([failed_row(planned("a.mp4"), Reason.NOT_VIDEO, "text", CONTEXT)])
    with ResultsTable.create(str(tmp_path)).claim("newer") as table:
        table.append([failed_row(planned("b.mp4"), Reason.NOT_VIDEO, "text", CONTEXT)])
        files = table.files()
    assert len(files) == 2, "the rows of both releases are in the table"


RELEASE_1 = Path(__file__).parents[1] / "golden" / "release-1"
"""What `scan /srv/videos` of commit c35df4a wrote: two scored, one without a face, one that is no video."""
VIEWS = ("results", "latest", "current", "people", "tracks", "today")


@pytest.fixture(params=["release 1", "columns added since"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An output of another release, as it was, or rewritten without columns that were added later."""
    output = tmp_path / "out"
    shutil.copytree(RELEASE_1, output)
    if request.param == "columns added since":
        rows = DeltaTable(str(output / "results")).to_pyarrow_table()
        shutil.rmtree(output / "results")
        rows = rows.drop_columns(["extra", "version_id", "integrity", "p_fake_max_window"])
        place = rows.schema.get_field_index("tracks")
        tracks = pa.array(rows["tracks"].to_pylist(), _without(rows.schema.field("tracks").type, "quality"))
        rows = rows.set_column(place, "tracks", tracks)
        write_deltalake(str(output / "results"), rows, partition_by=["scan_date"])
    return output


def _without(kind: pa.ListType, name: str) -> pa.ListType:
    members = kind.value_type
    return pa.list_(
        pa.struct([members.field(i) for i in range(members.num_fields) if members.field(i).name != name])
    )


def test_a_table_of_an_older_release_is_read_by_every_view_and_continued_by_a_scan(
    older: Path, seeded: Path, tmp_path: Path
) -> None:
    with connect(str(older)) as connection:
        before = {view: len(sql(connection, f"FROM {view}")) for view in VIEWS}
    assert before == {"results": 4, "latest": 4, "current": 4, "people": 2, "tracks": 2, "today": 4}

    listed = [
        Listed(row["uri"], row["size_bytes"], row["version"], row["modified_at"])
        for row in DeltaTable(str(older / "results")).to_pyarrow_table().to_pylist()
    ]
    known = plan(listed, ResultsTable.open(str(older)), _settings_of(older))
    assert (known.listed, known.done, known.due) == (4, 4, 0), "what it answers is not scanned again"

    videos = touch(tmp_path / "videos", "new-1.mp4", "new-2.mp4")
    assert run(scan_settings(videos, older, seeded), quiet=True, extract=Canned).written == 2
    with connect(str(older)) as connection:
        assert sql(connection, "FROM latest").column_names == RESULTS.names
        after = {view: len(sql(connection, f"FROM {view}")) for view in VIEWS}
        assert after == {"results": 6, "latest": 6, "current": 6, "people": 4, "tracks": 4, "today": 6}
        scored = sql(connection, "SELECT quality FROM tracks WHERE uri LIKE '%/new-%'")
    assert None not in scored["quality"].to_pylist(), "what the older release did not know is written"
    assert set(counts(str(older)).values()) == {6}
    for code in documented_readers():
        names: dict[str, Any] = {"OUT": str(older)}
        exec(code, names)  # noqa: S102
        assert len(names["rows"]) == 6, code


def test_a_table_of_a_newer_release_is_continued(seeded: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(RELEASE_1, output)
    for name in ("results", "scans"):
        newer = DeltaTable(str(output / name)).to_pyarrow_table()
        newer = newer.append_column("shiny", pa.array([7] * len(newer)))
        partitions = ["scan_date"] if name == "results" else None
        shutil.rmtree(output / name)
        write_deltalake(str(output / name), newer, partition_by=partitions)
    videos = touch(tmp_path / "videos", "new.mp4")
    assert run(scan_settings(videos, output, seeded), quiet=True, extract=Canned).written == 1
    with connect(str(output)) as connection:
        shiny = sql(connection, "SELECT shiny FROM latest ORDER BY scanned_at")["shiny"].to_pylist()
    assert shiny == [7, 7, 7, 7, None]


def _settings_of(output: Path) -> str:
    [settings_id] = set(DeltaTable(str(output / "results")).to_pyarrow_table()["settings_id"].to_pylist())
    return str(settings_id)
