"""The weights file: safetensors whose header carries everything that inference needs.

The header's `__metadata__` holds one key, `deepfake_scan`, with the JSON of a `Header`. Reading it needs
neither torch nor a look at the tensors. Format: https://huggingface.co/docs/safetensors (8 bytes of
little-endian length, JSON, tensors).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, structs

from detector.errors import WeightsError
from detector.types import CropSpec, DetectorName, Policy, Sampling

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
_KEY = "deepfake_scan"
MAX_BYTES = 1 << 30
"""No weights file of ours is larger."""
_MAX_HEADER = 1 << 20

_Positive = Annotated[int, Meta(ge=1, le=4096)]
_Few = Annotated[int, Meta(ge=1, le=64)]
_Mean = Annotated[float, Meta(ge=-10, le=10)]
_Std = Annotated[float, Meta(ge=0.01, le=10)]


# For weights that nobody has measured: equal odds, and no rate is promised.
UNMEASURED = Policy(
    policy_id="unmeasured",
    slope=1.0,
    bias=0.0,
    flag=0.5,
    flag_fpr=1.0,
    uncertain=0.5,
    uncertain_fpr=1.0,
    level="none",
    data="none: nobody has measured these weights",
)

# What the families' networks do, and nothing else: see `Architecture`.
_SEQUENCE = ("time", "mean", 1, "positive_is_fake")
_CELL = ("batch", False, 2, "zero_is_fake")


class Architecture(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shape of the network. ResNeXt-50 32x4d is layers (3, 4, 6, 3), groups 32, width_per_group 4.

    `resnext_lstm_cell` is the reference application's: an LSTM along the axis of the batch, so that each
    frame is a sequence of one step, without a projection before it, and two classes.
    """

    family: Literal["resnext_lstm", "efficientnet_lite0_lstm", "resnext_lstm_cell"] = "resnext_lstm"
    layers: tuple[_Few, _Few, _Few, _Few] = (2, 2, 2, 2)
    groups: _Few = 16
    width_per_group: _Few = 4
    projection: _Positive = 256
    hidden: _Positive = 128
    lstm_bias: bool = True
    lstm_axis: Literal["time", "batch"] = "time"
    head_mode: Literal["mean", "last"] = "mean"
    classes: Literal[1, 2] = 1
    labels: Literal["positive_is_fake", "zero_is_fake"] = "positive_is_fake"
    mix: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        """Refuse what the family's network does not do."""
        if self.family == "resnext_lstm_cell":
            fits = (self.lstm_axis, self.lstm_bias, self.classes, self.labels) == _CELL
        else:
            fits = (self.lstm_axis, self.head_mode, self.classes, self.labels) == _SEQUENCE
        if not fits:
            raise ValueError(
                f"lstm_axis, lstm_bias, head_mode, classes, labels: not those of a {self.family}"
            )


class Input(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From a crop of the video to the network's input tensor."""

    size: Annotated[int, Meta(ge=32, le=512)] = 112
    fit: Literal["square", "squash"] = "square"
    scale: Annotated[float, Meta(ge=0.3, le=4)] = 0.90
    shift_y: Annotated[float, Meta(ge=-1, le=1)] = 0.03
    interpolation: Literal["area_linear"] = "area_linear"
    padding: Literal["shift"] = "shift"
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[_Mean, _Mean, _Mean] = (0.5, 0.5, 0.5)
    std: tuple[_Std, _Std, _Std] = (0.5, 0.5, 0.5)
    policy: Literal["even", "first"] = "even"
    frames: Annotated[int, Meta(ge=1, le=300)] = 10
    spacing_s: Annotated[float, Meta(gt=0, le=10)] = 0.1
    no_face: Literal["skip"] = "skip"


class Detector(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The face detector whose boxes the network was trained on."""

    name: DetectorName = "yunet"
    version: str = "2023mar"
    rasters: tuple[_Positive, ...] = (640, 320)
    colour: Literal["rgb", "bgr"] = "rgb"


class Header(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything but the tensors.

    `golden_logit` is the clip logit of `golden_clip` on a CPU in float32. `prior` is the share of fakes in
    the training set. `provenance` holds free text: data and terms, recipe, seed, hardware, time, start.
    `checksum` covers the tensors and the rest of the header; `write` sets it, older files have none.
    """

    format: Literal[1] = 1
    name: str
    architecture: Architecture = Architecture()
    input: Input = Input()
    detector: Detector = Detector()
    storage: Literal["float32", "float16"] = "float32"
    prior: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    policy: Policy
    golden_logit: float
    trained: bool = True
    provenance: dict[str, str] = {}
    checksum: str = ""

    @property
    def sampling(self) -> Sampling:
        """The sampling that the weights were trained for; a profile changes only the number of windows."""
        return Sampling(policy=self.input.policy, frames=self.input.frames, spacing_s=self.input.spacing_s)

    @property
    def crop(self) -> CropSpec:
        """The crops that the weights were trained on."""
        return CropSpec(
            size=self.input.size,
            scale=self.input.scale,
            shift_y=self.input.shift_y,
            square=self.input.fit == "square",
        )


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A weights file that was read and verified; `data` are its bytes."""

    header: Header
    weights_id: str
    sha256: str
    data: bytes

    def __repr__(self) -> str:
        return f"WeightsFile({self.header.name}, {self.weights_id}, {len(self.data)} bytes)"

    def tensors(self) -> dict[str, Tensor]:
        """The tensors on the CPU, as float32 unless they are counters.

        Raises:
            WeightsError: the index of the tensors is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            stored = load(self.data)
        except (SafetensorError, KeyError, ValueError) as error:
            raise WeightsError(f"weights {self.header.name}: the tensors cannot be read: {error}") from error
        return {name: t.float() if t.is_floating_point() else t for name, t in stored.items()}


def bundled() -> Path:
    """The folder with the weights that ship with this release."""
    return Path(str(files("weights")))


def manifest() -> dict[str, Any]:
    """The list of shipped files: `{"default": name, "files": {file: {"sha256": ..., "figures": ...}}}`."""
    content: dict[str, Any] = json.loads((bundled() / "manifest.json").read_text())
    return content


def resolve(name: str) -> Path:
    """The path of a weights file: `default`, the name of a shipped one, or a path.

    Raises:
        WeightsError: there is no such file.
    """
    shipped = manifest()
    file = shipped["default"] if name == "default" else name
    for path in (bundled() / file, bundled() / f"{file}.safetensors", Path(file)):
        if path.is_file():
            return path
    if Path(name).exists():
        raise WeightsError(f"weights {name!r}: this is not a regular file")
    known = ", ".join(sorted(f for f in shipped["files"] if f.endswith(".safetensors")))
    raise WeightsError(f"weights {name!r}: no such file", hint=f"Give a path, or one of: default, {known}.")


def read(path: Path) -> WeightsFile:
    """Read and verify a weights file: structure, header, and for shipped files the sha256 of the manifest.

    Raises:
        WeightsError: unreadable, damaged, of another format, or not the file that the manifest names.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"weights {path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise WeightsError(f"weights {path}: more than {MAX_BYTES:,} bytes are no weights file of ours")
    digest = hashlib.sha256(data).hexdigest()
    if path.parent.resolve() == bundled().resolve():
        expected = manifest()["files"].get(path.name, {}).get("sha256")
        if expected != digest:
            raise WeightsError(
                f"weights {path}: the sha256 is {digest[:16]}..., the manifest says {str(expected)[:16]}...",
                hint="The file is damaged or was replaced; install deepfake-scan again.",
            )
    return parse(data, str(path), digest)


def parse(data: bytes, name: str, digest: str) -> WeightsFile:
    """Parse the bytes of a weights file; `name` only words the errors.

    Raises:
        WeightsError: damaged, or of another format.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(_MAX_HEADER, len(data) - 8):
        raise WeightsError(
            f"weights {name}: this is not a safetensors file, or it is cut off",
            hint="`deepfake-scan weights import` makes one of a checkpoint of the reference application.",
        )
    try:
        index = json.loads(data[8 : 8 + length])
        text = index.pop("__metadata__")[_KEY]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"weights {name}: its header carries no deepfake-scan metadata",
            hint="Make weights files with `deepfake-scan train`.",
        ) from error
    try:
        header = msgspec.json.decode(text, type=Header)
    except (msgspec.DecodeError, TypeError) as error:
        raise WeightsError(f"weights {name}: the header does not fit this release: {error}") from error
    tensors = data[8 + length :]
    if len(tensors) != _end_of_tensors(index):
        raise WeightsError(f"weights {name}: the tensors are cut off, or something follows them")
    weights_id = _weights_id(header, index, tensors)
    if header.checksum not in ("", _checksum(header, weights_id)):
        raise WeightsError(
            f"weights {name}: the header or the tensors are not those that were written",
            hint="The file is damaged; copy or make it again.",
        )
    return WeightsFile(header, weights_id, digest, data)


class _Entry(Struct, forbid_unknown_fields=True):
    """What a safetensors header says of one tensor; anything else, nested ever so deep, is none of ours."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def _end_of_tensors(index: Mapping[str, Any]) -> int:
    """Bytes that the index names, -1 where it is damaged."""
    try:
        entries = msgspec.convert(index, dict[str, _Entry])
    except msgspec.ValidationError:
        return -1
    return max((entry.data_offsets[1] for entry in entries.values()), default=0)


def write(path: Path, header: Header, tensors: Mapping[str, Tensor]) -> WeightsFile:
    """Write a weights file, the tensors stored as the header's `storage` says, and read it back.

    Its header carries the checksum, whatever the given one has there.
    """
    import torch
    from safetensors.torch import save

    dtype = {"float32": torch.float32, "float16": torch.float16}[header.storage]
    stored = {
        name: tensor.detach().cpu().contiguous().to(dtype) if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in tensors.items()
    }

    def packed(header: Header) -> bytes:
        return save(stored, metadata={_KEY: msgspec.json.encode(header).decode()})

    header = structs.replace(header, checksum="")
    weights_id = parse(packed(header), path.name, "").weights_id
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_bytes(packed(structs.replace(header, checksum=_checksum(header, weights_id))))
    temporary.replace(path)
    return read(path)


def _weights_id(header: Header, index: Mapping[str, Any], tensors: bytes) -> str:
    """12 hex digits over the tensors and all of the header that changes a logit; the policy does not."""
    changes_a_logit = [header.architecture, header.input, header.detector, header.storage]
    digest = hashlib.sha256(msgspec.json.encode(changes_a_logit))
    digest.update(json.dumps(index, sort_keys=True).encode())
    digest.update(tensors)
    return digest.hexdigest()[:12]


def _checksum(header: Header, weights_id: str) -> str:
    """16 hex digits over the header and, by the id, the tensors: against damage, not against forgery."""
    text = msgspec.json.encode(structs.replace(header, checksum=""))
    return hashlib.sha256(text + weights_id.encode()).hexdigest()[:16]
