"""Commands that say what weights are worth, and that set thresholds from a user's own videos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli_options import Address, ConfigFiles, Json, Policy, Profile, Sets, Weights, load_scan, print_json


def evaluate(
    data: Annotated[list[str] | None, typer.Argument(help="Folders with real/ and fake/, or CSVs.")] = None,
    *,
    crops: Annotated[list[str] | None, typer.Option(help="A CSV of faces that were cut already.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split: train, val or test.")] = None,
    slice_by: Annotated[list[str] | None, typer.Option(help="Figures for each value of this column.")] = None,
    robustness: Annotated[
        bool, typer.Option(help="Also after compression, scaling, blur and noise: 13 times the scoring.")
    ] = True,
    page: Annotated[Path | None, typer.Option(help="Write it all as one HTML page.")] = None,
    weights: Weights = None,
    policy: Policy = None,
    profile: Profile = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Evaluate weights on labelled videos or crops: AUC, errors at the thresholds, calibration, robustness.

    Example: deepfake-scan evaluate labelled/ --page evaluation.html

    Takes CSVs with uri,label,group (a group is a person: intervals draw whole groups), folders with real/ and
    fake/, FaceForensics++ and DFDC as they lie on disk. docs/evaluate.md says what each figure means.
    """
    from detector.errors import SettingsError

    if not data and not crops:
        raise SettingsError(
            "not given: labelled videos or --crops", hint="Example: deepfake-scan evaluate labelled/"
        )
    settings = load_scan(
        config, sets, weights=weights, policy=policy, profile=profile, address=address
    ).settings
    from jobs import evaluate as measure
    from jobs import evaluate_report
    from jobs.config import settings_id
    from jobs.named_weights import open_weights
    from jobs.policies import policy_for

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    samples = measure.read(data or [], crops or [], split)
    evaluate_report.check_columns(samples, slice_by or [])
    if page is not None and not page.parent.is_dir():
        raise SettingsError(f"--page: there is no folder {page.parent}")
    file = open_weights(settings.weights)
    options = settings.extract_options(file.header)
    judged_by = policy_for(settings.policy, file, None if crops else settings_id(options, file.weights_id))
    model = measure.open_model(settings, file)
    if crops:
        scores = measure.score_crops(samples, model, robustness=robustness, say=say)
    else:
        scores = measure.score_videos(samples, settings, model, judged_by, robustness=robustness, say=say)
    about = {"data": [*(data or []), *(crops or [])], "split": split, "profile": settings.profile}
    found = evaluate_report.report(scores, file, judged_by, slice_by or [], **about)
    print_json(evaluate_report.without_curves(found)) if as_json else print(evaluate_report.in_words(found))
    if page is not None:
        from jobs.evaluate_page import write_page

        write_page(page, found)


def calibrate(
    *,
    reals: Annotated[
        list[str] | None,
        typer.Option(help="Real videos: folders, patterns, prefixes, or a list of them in CSV."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="A CSV with uri,label,group: refits the calibration as well.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Table of their scan; what it lacks is scanned.")
    ] = None,
    file: Annotated[Path, typer.Option("--file", help="The policy file to write.")] = Path("policy.json"),
    flag_fpr: Annotated[str, typer.Option(help="Share of real videos that may be flagged.")] = "1%",
    uncertain_fpr: Annotated[str, typer.Option(help="Share that may be uncertain or flagged.")] = "5%",
    weights: Weights = None,
    profile: Profile = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Calibrate: set the thresholds of verdicts from videos of your own that are assumed real.

    Example: deepfake-scan calibrate --reals s3://bucket/videos/ --output s3://bucket/results

    Writes a small file that `scan --policy` and `query --policy` take. What the table holds already is not
    scanned again, and nothing is scanned for another rate. docs/calibration.md: how many videos a rate needs.
    """
    from detector.errors import SettingsError
    from jobs.units import parse_percent

    missing = [
        name for name, there in (("--reals or --labels", reals or labels), ("--output", output)) if not there
    ]
    if missing:
        raise SettingsError(
            f"not given: {' and '.join(missing)}",
            hint="Example: deepfake-scan calibrate --reals videos/ --output results/",
        )
    try:
        rates = parse_percent(flag_fpr), parse_percent(uncertain_fpr)
    except ValueError as error:
        raise SettingsError(f"--flag-fpr, --uncertain-fpr: {error}") from error
    if not 0 < rates[0] <= rates[1] < 1:
        raise SettingsError(
            "--flag-fpr must be above 0 and no more than --uncertain-fpr, which is below 100%"
        )
    settings = load_scan(
        config, sets, output=output, weights=weights, profile=profile, address=address
    ).settings
    from jobs import calibrate as own

    wish = own.Wish(reals or [], labels, *rates)
    found = own.run(settings, wish, file, quiet=as_json)
    print_json(found.as_json()) if as_json else print(found.in_words(str(file)))
