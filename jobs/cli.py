"""The command line: parses, calls one function, prints, exits. Heavy imports stay inside the commands."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from detector.errors import DeepfakeScanError, SettingsError
from jobs.cli_files import config_app, dataset_app, weights_app
from jobs.cli_measure import calibrate, evaluate
from jobs.cli_options import (
    ConfigFiles,
    Handing,
    Json,
    Policy,
    Profile,
    Sets,
    Weights,
    forget_stdout,
    load_scan,
    print_json,
    scan_settings,
    show_log,
)
from jobs.cli_pages import report, review_app
from jobs.cli_table import query_app, table_app
from jobs.interrupt import Stopped, stoppable

app = typer.Typer(
    name="deepfake-scan",
    help="Scan collections of videos for manipulated faces: one row per video, in a table to query.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(query_app, name="query")
app.add_typer(table_app, name="table")
app.add_typer(review_app, name="review")
app.add_typer(weights_app, name="weights")
app.add_typer(dataset_app, name="dataset")
app.add_typer(config_app, name="config")
app.command()(evaluate)
app.command()(calibrate)
app.command()(report)

_NO_SETTINGS = ("dry_run", "as_json")
"""Parameters of `scan` that say how it is run, not what is scanned."""


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
        from jobs.schema import shown

        print(f"deepfake-scan: {shown(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        forget_stdout()
        sys.exit(0)


@app.command()
def scan(
    inputs: Annotated[list[str] | None, typer.Argument(help="Folders, files and quoted patterns.")] = None,
    *,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder for the results.")] = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    profile: Profile = None,
    weights: Weights = None,
    policy: Policy = None,
    include: Annotated[list[str] | None, typer.Option(help="Only such names; '*' takes all files.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No such names.")] = None,
    manifest: Annotated[list[str] | None, typer.Option(help="A list of videos: Parquet, CSV, JSONL.")] = None,
    sample: Annotated[str | None, typer.Option(help="Only this share, by name: 1%.")] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="A trial, which `latest` leaves out.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster; local: our own; in-process: none.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after this many videos.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Stop this long after the start: 6h.")] = None,
    retry: Annotated[str | None, typer.Option(help="failed: also what failed for good.")] = None,
    rescan: Annotated[bool, typer.Option("--rescan", help="Scan again what has other settings.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another scan holds the table.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Shut out a dead or hanging scan that holds the table.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Also on other machines that ask for no token.")
    ] = False,
    require_sandbox: Annotated[
        bool, typer.Option("--require-sandbox", help="Not on nodes whose kernel lacks a wall.")
    ] = False,
    max_failed: Annotated[str | None, typer.Option(help="Exit 0 up to this share failed: 5%.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Scan videos: one row per video, in a table below --output.

    Example: deepfake-scan scan videos/ --output results/

    The same command again scans only what is new. Exit codes: 0 done, 3 done but some videos failed, 2 wrong
    settings or input, 4 storage or cluster, 5 another scan holds the table, 6 --limit or --deadline left
    some, 130 Ctrl-C, 143 terminated. After any of them the same command goes on where it stopped.
    """
    settings = scan_settings(
        config,
        sets,
        inputs=inputs,
        output=output,
        profile=profile,
        weights=weights,
        policy=policy,
        include=include,
        exclude=exclude,
        manifest=manifest,
        sample=sample,
        shadow=shadow,
        address=address,
        limit=limit,
        deadline=deadline,
        retry=retry,
        rescan=rescan,
        wait=wait,
        take_over=take_over,
        insecure=insecure,
        require_sandbox=require_sandbox,
        max_failed=max_failed,
    )
    from jobs.scan import run

    summary = run(settings, dry_run=dry_run, quiet=as_json)
    if as_json:
        print_json(summary.as_json())
    elif summary.done or summary.exit_code:
        print(summary.closing())
    raise typer.Exit(summary.exit_code or 0)


@app.command(cls=Handing, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    *,
    address: Annotated[
        str,
        typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="Job server of the cluster: its dashboard."),
    ] = "http://127.0.0.1:8265",
    working_dir: Annotated[
        Path, typer.Option(help="Folder that the job gets a copy of, code in it included.")
    ] = Path(),
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id; do not follow it.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Also to another machine that asks for no token.")
    ] = False,
) -> None:
    """Submit a scan to a Ray cluster, with all that `scan` takes, and follow it.

    Example: deepfake-scan submit s3://bucket/videos/ --output s3://bucket/results

    Inputs and output lie on S3, or at an absolute path that every node sees. Settings files are read here and
    travel with the working directory, in which their names begin; .rayignore says what does not travel. Ends
    with the exit code of the scan. Ctrl-C leaves the job running.
    """
    from jobs.follow import follow
    from jobs.schema import printable, shown
    from jobs.submit import submit as hand_over

    words = [*(["--insecure"] if insecure else []), *context.args]
    command: Any = typer.main.get_command(app)
    given = command.commands["scan"].make_context("deepfake-scan scan", list(words)).params
    if not working_dir.is_dir():
        raise SettingsError(f"--working-dir: {printable(str(working_dir))} is no folder")
    with contextlib.chdir(working_dir):  # names are to be what they are for the job
        settings = scan_settings(**{name: value for name, value in given.items() if name not in _NO_SETTINGS})

    def say(line: str) -> None:
        print(f"submit: {shown(line)}", file=sys.stderr, flush=True)

    files = given["config"] or ()
    job = hand_over(words, settings, files, address=address, folder=working_dir, say=say)
    ending = f"`ray job stop {job} --address {address}` ends it"
    say(f"job {job}; {ending}, and the same scan goes on later")
    if no_wait:
        print(job)
        return
    try:
        code = follow(job, address, show_log, say)
    except Stopped as stop:
        say(f"stopped following; job {job} goes on, {ending}")
        raise typer.Exit(stop.exit_code) from None
    raise typer.Exit(code)


@app.command()
def explain(
    video: Annotated[str, typer.Argument(help="One video file.")],
    *,
    config: ConfigFiles = None,
    sets: Sets = None,
    profile: Profile = None,
    weights: Weights = None,
    policy: Policy = None,
    crops: Annotated[Path | None, typer.Option(help="Folder for a sheet of crops per person.")] = None,
    no_sandbox: Annotated[bool, typer.Option("--no-sandbox", help="Decode in this very process.")] = False,
    as_json: Json = False,
) -> None:
    """Explain one video: the row that a scan would write, and the crops that it was judged by.

    Example: deepfake-scan explain video.mp4 --crops crops/
    """
    settings = load_scan(config, sets, profile=profile, weights=weights, policy=policy).settings
    from jobs import explain as one
    from jobs.schema import printable

    found, sheets = one.explain(video, settings, crops=crops, sandboxed=not no_sandbox)
    print(one.as_json(found) if as_json else one.in_words(found))
    for sheet in sheets:
        print(f"crops: {printable(str(sheet))}", file=sys.stderr)
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
        print_json(train_report.as_json(outcome))
    else:
        print(train_report.closing(outcome))
    raise typer.Exit(0 if outcome.end.signal is None else 128 + outcome.end.signal)


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


if __name__ == "__main__":
    main()
