"""Commands about what goes into a scan or a training: weights, settings, labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli_options import ConfigFiles, Json, Sets, load_scan, print_json

weights_app = typer.Typer(
    help="Weights files: what ships, whether a file is whole, and those of others.", no_args_is_help=True
)
dataset_app = typer.Typer(help="Labelled data: look it over before it is trained on.", no_args_is_help=True)
config_app = typer.Typer(help="Settings: check files, show what is in force.", no_args_is_help=True)


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
    print_json(rows) if as_json else print_rows(rows)


@weights_app.command("verify")
def weights_verify(
    name: Annotated[
        str, typer.Argument(help="default, a shipped file's name, a path, or s3://...#sha256=....")
    ] = "default",
) -> None:
    """Read a weights file, check it, and run its golden clip.

    Example: deepfake-scan weights verify my-weights.safetensors
    """
    from detector.model import Model
    from detector.weights import resolve
    from jobs.local import scheme_of
    from jobs.named_weights import open_weights

    weights = open_weights(name)
    Model(weights)
    where = name if scheme_of(name) == "s3" else resolve(name)
    print(f"{where}: whole; weights_id {weights.weights_id}, sha256 {weights.sha256}")


@weights_app.command("import")
def weights_import(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint, a .pt file.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The weights file; else beside the checkpoint, .safetensors."),
    ] = None,
    mode: Annotated[
        Literal["last", "mean"],
        typer.Option(help="What decides: the last frame, as in the application, or the mean of all."),
    ] = "last",
    frames: Annotated[
        int | None,
        typer.Option(min=1, max=300, help="First frames of a video; else as the file's name says, or 20."),
    ] = None,
) -> None:
    """Make a weights file of a checkpoint of the reference application; nothing in it is run.

    Example: deepfake-scan weights import model_97_acc_100_frames_FF_data.pt -o theirs.safetensors

    That is Deepfake_detection_using_deep_learning, ResNeXt-50 and an LSTM, of which several checkpoints are
    published. The file scores as the application does; docs/import.md says where not.
    """
    from detector.reference import LICENCE, convert, frames_of
    from jobs.schema import printable

    target = output or checkpoint.with_suffix(".safetensors")
    count = frames or frames_of(checkpoint.stem)
    weights = convert(checkpoint, target, mode=mode, frames=count)
    deciding = "the last in which it is seen decides" if mode == "last" else "their mean decides"
    print(
        f"{printable(str(target))}: weights_id {weights.weights_id}, sha256 {weights.sha256}\n"
        f"  shown: the first {count} frames, faces boxed by HOG and squashed to 112 px, BGR; {deciding}\n"
        "  thresholds: 0.5, not measured on anything\n"
        f"  licence: {LICENCE}"
    )


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
        load_scan(files, None)
    print("no mistakes")


@config_app.command("show")
def config_show(config: ConfigFiles = None, *, sets: Sets = None, as_json: Json = False) -> None:
    """The settings in force, each with where it comes from.

    Example: deepfake-scan config show --config nightly.yaml
    """
    from jobs.printing import print_rows

    shown = [row._asdict() for row in load_scan(config, sets).shown()]
    if as_json:
        print_json(shown)
    else:
        print_rows([row | {"value": "" if row["value"] is None else str(row["value"])} for row in shown])


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
