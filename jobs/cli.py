"""The command line: parses, calls one function, prints, exits. Heavy imports stay inside the commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detector.errors import DeepfakeScanError, SettingsError
from jobs.interrupt import Stopped, stoppable

if TYPE_CHECKING:
    from datetime import datetime

    from jobs.config import ScanSettings
    from jobs.config_load import Loaded

app = typer.Typer(
    name="deepfake-scan",
    help="Scan collections of videos for manipulated faces: one row per video, in a table to query.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
query_app = typer.Typer(help="Ask the table of a scan.", no_args_is_help=True)
weights_app = typer.Typer(
    help="Weights files: what ships, and whether a file is whole.", no_args_is_help=True
)
dataset_app = typer.Typer(help="Labelled data: look it over before it is trained on.", no_args_is_help=True)
table_app = typer.Typer(help="The table: what rewrites it, on request only.", no_args_is_help=True)
config_app = typer.Typer(help="Settings: check files, show what is in force.", no_args_is_help=True)
app.add_typer(query_app, name="query")
app.add_typer(table_app, name="table")
app.add_typer(weights_app, name="weights")
app.add_typer(dataset_app, name="dataset")
app.add_typer(config_app, name="config")

ConfigFiles = Annotated[
    list[Path] | None, typer.Option("--config", "-c", help="Settings file in YAML; later ones win.")
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="One setting, as key=value.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Output = Annotated[str, typer.Argument(help="The --output of the scan.")]
Limit = Annotated[int | None, typer.Option(help="At most so many rows.")]
Weights = Annotated[str | None, typer.Option(help="default, a shipped file's name, or a path.")]
Profile = Annotated[str | None, typer.Option(help="fast, balanced or thorough: 1, 2 or 10 windows a video.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("deepfake-scan"))
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Scan collections of videos for manipulated faces: one row per video, in a table to query."""


def main() -> None:
    """Run a command and exit with its code; an error that we foresaw is a sentence, not a traceback."""
    if sys.platform != "linux" and "--no-sandbox" not in sys.argv:
        sys.exit("deepfake-scan runs on Linux only: its decoding sandbox needs the Linux kernel.")
    try:
        with stoppable():
            app()
    except Stopped as stop:
        print("deepfake-scan: stopped", file=sys.stderr)
        sys.exit(stop.exit_code)
    except DeepfakeScanError as error:
        print(f"deepfake-scan: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _load(files: list[Path] | None, sets: list[str] | None, **flags: Any) -> Loaded[ScanSettings]:
    from jobs.config import load

    return load(files or (), os.environ, flags, sets or ())


@app.command()
def scan(
    inputs: Annotated[list[str] | None, typer.Argument(help="Folders, files and quoted patterns.")] = None,
    *,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder for the results.")] = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    profile: Profile = None,
    weights: Weights = None,
    include: Annotated[list[str] | None, typer.Option(help="Only such names; '*' takes all files.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No such names.")] = None,
    manifest: Annotated[list[str] | None, typer.Option(help="A list of videos: Parquet, CSV, JSONL.")] = None,
    sample: Annotated[str | None, typer.Option(help="Only this share, by name: 1%.")] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="A trial, which `latest` leaves out.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster; local: our own; in-process: none.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after this many videos.")] = None,
    retry: Annotated[str | None, typer.Option(help="failed: also what failed for good.")] = None,
    rescan: Annotated[bool, typer.Option("--rescan", help="Scan again what has other settings.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another scan holds the table.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Shut out a dead or hanging scan that holds the table.")
    ] = False,
    max_failed: Annotated[str | None, typer.Option(help="Exit 0 up to this share failed: 5%.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Scan videos: one row per video, in a table below --output.

    Example: deepfake-scan scan videos/ --output results/

    The same command again scans only what is new. Exit codes: 0 done, 3 done but some videos failed, 2 wrong
    settings or input, 4 storage or cluster, 5 another scan holds the table, 6 --limit left some, 130 Ctrl-C,
    143 terminated. After any of them the same command goes on where it stopped.
    """
    settings = _load(
        config,
        sets,
        inputs=inputs,
        output=output,
        profile=profile,
        weights=weights,
        include=include,
        exclude=exclude,
        manifests=manifest,
        sample=sample,
        shadow=shadow or None,
        address=address,
        limit=limit,
        retry=retry,
        rescan=rescan or None,
        wait=wait or None,
        take_over=take_over or None,
        max_failed=max_failed,
    ).settings
    given = {"inputs": settings.inputs or settings.manifests, "output": settings.output}
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise SettingsError(
            f"not given: {' and '.join(missing)}",
            hint="Example: deepfake-scan scan videos/ --output results/",
        )
    from jobs.scan import run

    summary = run(settings, dry_run=dry_run, quiet=as_json)
    if as_json:
        _print_json(summary.as_json())
    elif summary.done or summary.exit_code:
        print(summary.closing())
    raise typer.Exit(summary.exit_code or 0)


@app.command()
def explain(
    video: Annotated[str, typer.Argument(help="One video file.")],
    *,
    config: ConfigFiles = None,
    sets: Sets = None,
    profile: Profile = None,
    weights: Weights = None,
    crops: Annotated[Path | None, typer.Option(help="Folder for a sheet of crops per person.")] = None,
    no_sandbox: Annotated[bool, typer.Option("--no-sandbox", help="Decode in this very process.")] = False,
    as_json: Json = False,
) -> None:
    """Explain one video: the row that a scan would write, and the crops that it was judged by.

    Example: deepfake-scan explain video.mp4 --crops crops/
    """
    settings = _load(config, sets, profile=profile, weights=weights).settings
    from jobs import explain as one

    found, sheets = one.explain(video, settings, crops=crops, sandboxed=not no_sandbox)
    print(one.as_json(found) if as_json else one.in_words(found))
    for sheet in sheets:
        print(f"crops: {sheet}", file=sys.stderr)
    raise typer.Exit(3 if found["status"] == "failed" else 0)


@app.command()
def train(
    data: Annotated[list[str] | None, typer.Argument(help="Folders with real/ and fake/, or CSVs.")] = None,
    *,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder for the weights.")] = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    init_from: Annotated[str | None, typer.Option(help="default, a file's name, or a path.")] = None,
    images: Annotated[int | None, typer.Option(help="Crops that the network sees in all.")] = None,
    as_json: Json = False,
) -> None:
    """Train: labelled videos or crops become a weights file that `scan --weights` takes.

    Example: deepfake-scan train my-videos/ --output trained/

    Starts from the shipped weights; configs/train.yaml lists every setting. Stop it with Ctrl-C; the same
    command goes on where it stopped. Exit codes: 0 done, 2 wrong settings or data, 4 cluster, 130 stopped.
    """
    import logging

    # Threads that wait spin by default, and on cores that are shared they then wait for each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from jobs.config_load import load_as
    from jobs.train_config import TrainSettings

    flags = {"data": data, "output": output, "init_from": init_from, "images": images}
    settings = load_as(TrainSettings, config or (), overrides=flags, sets=sets or ()).settings
    missing = [name for name in ("data", "output") if not getattr(settings, name)]
    if missing:
        raise SettingsError(
            f"not given: {' and '.join(missing)}",
            hint="Example: deepfake-scan train my-videos/ --output trained/",
        )
    from jobs import train_report
    from jobs.train import run as run_training

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    outcome = run_training(settings, say=lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        _print_json(train_report.as_json(outcome))
    else:
        print(train_report.closing(outcome))
    raise typer.Exit(128 + (outcome.end.signal or 0) if not outcome.end.finished else 0)


@dataset_app.command("check")
def dataset_check(
    data: Annotated[list[str], typer.Argument(help="Folders with real/ and fake/, or CSVs.")],
    *,
    validation: Annotated[str, typer.Option(help="Share kept for validation, where none is named.")] = "20%",
    csv: Annotated[Path | None, typer.Option(help="Write the samples, with their split, to a CSV.")] = None,
    address: Annotated[str, typer.Option(help="As for a scan: local, in-process, or a cluster's.")] = "local",
    as_json: Json = False,
) -> None:
    """Look labelled data over: balance, broken files, people on both sides, what gives labels away.

    Example: deepfake-scan dataset check my-videos/ --csv samples.csv

    Takes folders with real/ and fake/, FaceForensics++ and DFDC (metadata.json) as they lie on disk, or CSVs
    with uri,label,group. Every video is opened. Exit codes: 0 fit for training, 2 not.
    """
    from jobs import dataset
    from jobs.config_load import load_as
    from jobs.train_config import TrainSettings

    overrides = {"data": data, "validation": validation, "address": address}
    settings = load_as(TrainSettings, overrides=overrides).settings
    report, samples = dataset.check(settings)
    if csv is not None:
        dataset.write(csv, samples)
    print(report.as_json() if as_json else report.in_words())
    raise typer.Exit(2 if report.refused else 0)


@query_app.command("summary")
def query_summary(output: Output, *, as_json: Json = False) -> None:
    """Counts by status and verdict, and the top reasons.

    Example: deepfake-scan query summary results/
    """
    _query(output, as_json, lambda query, con: query.summary(con))


@query_app.command("flagged")
def query_flagged(output: Output, *, as_json: Json = False) -> None:
    """Flagged videos, the highest score first, with the segments to look at.

    Example: deepfake-scan query flagged results/
    """
    _query(output, as_json, lambda query, con: query.flagged(con))


@query_app.command("failed")
def query_failed(output: Output, *, as_json: Json = False) -> None:
    """Videos that failed, with reason and message.

    Example: deepfake-scan query failed results/ --json
    """
    _query(output, as_json, lambda query, con: query.failed(con))


@query_app.command("scans")
def query_scans(output: Output, *, limit: Limit = None, as_json: Json = False) -> None:
    """The scans, newest first: when, how many videos, how it ended, and the settings in words.

    Example: deepfake-scan query scans results/ --json
    """
    _query(output, as_json, lambda query, con: query.scans(con, limit))


@query_app.command("people")
def query_people(output: Output, *, limit: Limit = None, as_json: Json = False) -> None:
    """Every scored person, the highest score first.

    Example: deepfake-scan query people results/ --limit 20
    """
    _query(output, as_json, lambda query, con: query.people(con, limit))


@query_app.command("diff")
def query_diff(
    output: Output,
    before: Annotated[str, typer.Argument(help="A settings_id, or a time: the table as it was then.")],
    after: Annotated[str, typer.Argument(help="The same.")],
    *,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Which verdicts and scores differ between two settings, or between two times.

    Example: deepfake-scan query diff results/ 2026-11-24T00:00:00Z 2026-11-25T00:00:00Z
    """
    _query(output, as_json, lambda query, con: query.diff(con, before, after, limit))


@query_app.command("export")
def query_export(
    output: Output,
    file: Annotated[Path, typer.Argument(help="Ends in .parquet or .csv.")],
    *,
    view: Annotated[str, typer.Option(help="latest, current, people, tracks or results.")] = "latest",
) -> None:
    """Write a view to one plain file; text in CSV is safe to open in a spreadsheet.

    Example: deepfake-scan query export results/ latest.csv
    """
    from jobs import query
    from jobs.export import export

    with query.connect(output) as con:
        print(f"{export(con, view, file):,} rows: {file}")


@query_app.command("sql")
def query_sql(
    output: Output,
    text: Annotated[str, typer.Argument(help="SQL over `latest` (a row per video) or `results` (all rows).")],
    *,
    as_json: Json = False,
) -> None:
    """Any question, in DuckDB's SQL.

    Example: deepfake-scan query sql results/ "SELECT uri, p_fake FROM latest ORDER BY p_fake DESC"
    """
    _query(output, as_json, lambda query, con: query.sql(con, text))


def _query(output: str, as_json: bool, ask: Callable[[Any, Any], Any]) -> None:
    from jobs import query
    from jobs.printing import print_table, rows_as_json

    with query.connect(output) as con:
        answer = ask(query, con)
    _print_json(rows_as_json(answer)) if as_json else print_table(answer)


@table_app.command("purge")
def table_purge(
    output: Output,
    *,
    uri: Annotated[list[str] | None, typer.Option(help="A video, as it stands in the table.")] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Rows made before: a time in ISO 8601, or an age such as 2160h.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise it is only counted.")] = False,
    as_json: Json = False,
) -> None:
    """Remove videos, or what is old, from every file and every version of the tables; there is no way back.

    Example: deepfake-scan table purge results/ --uri s3://bucket/a.mp4 --yes

    Without --yes it says what would be removed. Readers at work meanwhile may see rows twice or fail.
    """
    from jobs.maintenance import purge

    receipt = purge(output, uri or [], _time(older_than) if older_than else None, dry_run=not yes)
    _print_json(receipt.as_json()) if as_json else print(receipt.in_words())


@table_app.command("optimize")
def table_optimize(
    output: Output,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise it is only counted.")] = False,
    as_json: Json = False,
) -> None:
    """Rewrite days of many files as days of few, and delete the old files at once.

    Example: deepfake-scan table optimize results/ --yes

    Without --yes it says what would be rewritten. About 100 files a night do not need it.
    """
    from jobs.maintenance import optimize

    receipt = optimize(output, dry_run=not yes)
    _print_json(receipt.as_json()) if as_json else print(receipt.in_words())


def _time(text: str) -> datetime:
    """A moment from ISO 8601 or from an age."""
    from datetime import UTC, datetime, timedelta

    from jobs.units import parse_duration

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
        except ValueError:
            raise SettingsError(
                f"older-than: {text!r} is neither a time nor an age",
                hint="Write 2026-01-31T00:00:00Z, or 2160h for 90 days.",
            ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@weights_app.command("list")
def weights_list(*, as_json: Json = False) -> None:
    """The weights that ship with this release.

    Example: deepfake-scan weights list
    """
    from detector.weights import bundled, manifest, read
    from jobs.printing import print_rows

    shipped = manifest()
    rows = []
    for name in sorted(shipped["files"]):
        if name.endswith(".safetensors"):
            file = read(bundled() / name)
            header = file.header
            rows.append(
                {
                    "file": name,
                    "default": name == shipped["default"],
                    "weights_id": file.weights_id,
                    "family": header.architecture.family,
                    "input_px": header.input.size,
                    "trained": header.trained,
                    "mib": round(len(file.data) / (1 << 20), 1),
                    "figures": shipped["files"][name].get("figures", ""),
                }
            )
    _print_json(rows) if as_json else print_rows(rows)


@weights_app.command("verify")
def weights_verify(
    name: Annotated[str, typer.Argument(help="default, a shipped file's name, or a path.")] = "default",
) -> None:
    """Read a weights file, check it, and run its golden clip.

    Example: deepfake-scan weights verify my-weights.safetensors
    """
    from detector.model import Model
    from detector.weights import read, resolve

    path = resolve(name)
    weights = read(path)
    Model(weights)
    print(f"{path}: whole; weights_id {weights.weights_id}, sha256 {weights.sha256}")


@config_app.command("check")
def config_check(
    files: Annotated[list[Path], typer.Argument(help="Settings files in YAML.")],
    *,
    training: Annotated[bool, typer.Option("--train", help="They are of a training, not of a scan.")] = False,
) -> None:
    """Say everything that is wrong with settings files and the environment.

    Example: deepfake-scan config check nightly.yaml
    """
    if training:
        from jobs.config_load import load_as
        from jobs.train_config import TrainSettings

        load_as(TrainSettings, files)
    else:
        _load(files, None)
    print("no mistakes")


@config_app.command("show")
def config_show(config: ConfigFiles = None, *, sets: Sets = None, as_json: Json = False) -> None:
    """The settings in force, each with where it comes from.

    Example: deepfake-scan config show --config nightly.yaml
    """
    from jobs.printing import print_rows

    shown = [row._asdict() for row in _load(config, sets).shown()]
    if as_json:
        _print_json(shown)
    else:
        print_rows([row | {"value": "" if row["value"] is None else str(row["value"])} for row in shown])


@app.command()
def doctor() -> None:
    """Check what a scan needs on this machine, and say how to mend it.

    Example: deepfake-scan doctor
    """
    from jobs.doctor import examine

    checks = examine()
    for check in checks:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
    raise typer.Exit(0 if all(check.ok for check in checks) else 2)


def _print_json(content: object) -> None:
    import json

    print(json.dumps(content, indent=2, ensure_ascii=True))


if __name__ == "__main__":
    main()
