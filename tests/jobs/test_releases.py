"""A table that another release wrote is read and continued."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from detector.types import Reason
from jobs import table as module
from jobs.columns import RESULTS
from jobs.schema import failed_row
from jobs.table import ResultsTable
from tests.jobs.samples import CONTEXT


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
