"""The SQL of the views, for the engine that runs here and for the two that do not."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, OptimizeError
from sqlglot.optimizer.qualify import qualify

import jobs
from jobs.columns import RESULTS
from jobs.query import connect
from jobs.table import ResultsTable
from tests.jobs.samples import sample_row

VIEWS = Path(jobs.__file__).parent / "views"


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return f"STRUCT<{', '.join(f'{field.name}: {_sql_type(field.type)}' for field in kind)}>"
    if pa.types.is_list(kind):
        return f"ARRAY<{_sql_type(kind.value_type)}>"
    return "MAP<VARCHAR, VARCHAR>" if pa.types.is_map(kind) else "DOUBLE"


@pytest.mark.parametrize("engine", ["duckdb", "athena", "spark"])
@pytest.mark.parametrize("name", ["latest", "current", "people", "tracks"])
def test_views_are_sql_of_their_engine_over_columns_that_there_are(
    tmp_path: Path, engine: str, name: str
) -> None:
    """Athena and Spark cannot be run here: their parsers' twins read the SQL and look every column up."""
    folder = VIEWS / ("" if engine == "duckdb" or name in ("latest", "current") else engine)
    created = sqlglot.parse_one((folder / f"{name}.sql").read_text(), read=engine)
    assert isinstance(created, exp.Create)
    assert created.this.name == name
    columns = {field.name: _sql_type(field.type) for field in RESULTS}
    schema = {"results": columns, "latest": columns}
    resolved = qualify(created.expression, schema=schema, dialect=engine)
    with ResultsTable.create(str(tmp_path)).claim("s") as table:
        table.append([sample_row("a.mp4")])
    with connect(str(tmp_path)) as connection:
        assert resolved.named_selects == connection.table(name).columns
    if engine == "athena" and name in ("people", "tracks"):
        [unnested] = created.find_all(exp.Unnest)  # gives its columns by place, not by name
        members = RESULTS.field("persons" if name == "people" else "tracks").type.value_type
        assert [column.name for column in unnested.args["alias"].columns] == [field.name for field in members]


def test_a_view_that_names_a_column_that_is_not_there_would_be_found() -> None:
    with pytest.raises(OptimizeError, match="nothing"):
        qualify(sqlglot.parse_one("SELECT nothing FROM results"), schema={"results": {"uri": "VARCHAR"}})


@pytest.mark.parametrize(("engine", "kept"), [("athena", "TBLPROPERTIES"), ("spark", "USING DELTA")])
def test_the_documented_tables_of_other_engines_are_sql_of_theirs(engine: str, kept: str) -> None:
    page = (Path(jobs.__file__).parents[1] / "docs" / "table.md").read_text("utf-8")
    [statement] = re.findall(rf"```{engine}\n(.*?)```", page, re.DOTALL)
    created = sqlglot.parse_one(statement, read=engine, error_level=ErrorLevel.RAISE)
    assert isinstance(created, exp.Create)
    assert created.this.name == "results"
    assert re.search(r"/deepfake-scan/results/?'", created.sql())
    assert kept in created.sql(dialect=engine)
