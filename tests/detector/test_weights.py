"""A weights file comes back as it was written, and anything that is damaged is refused in a sentence."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from detector import weights
from detector.errors import WeightsError
from detector.model import Model
from detector.weights import Header, WeightsFile, bundled, parse, read, resolve, write
from tests.seeded import seeded_weights


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WeightsFile:
    return seeded_weights(tmp_path_factory.mktemp("weights") / "made.safetensors", seed=3)


def header_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    index: dict[str, Any] = json.loads(data[8 : 8 + length])
    return index


def with_index(data: bytes, index: dict[str, Any]) -> bytes:
    """The file with another header in front of the same tensors."""
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(index).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def with_header(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with its own header changed."""
    index = header_of(data)
    header = json.loads(index["__metadata__"]["deepfake_scan"])
    change(header)
    index["__metadata__"]["deepfake_scan"] = json.dumps(header)
    return with_index(data, index)


def changed(header: Header, **fields: Any) -> Header:
    return msgspec.structs.replace(header, **fields)


def refused(data: bytes, tmp_path: Path) -> WeightsError:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        read(path)
    assert "damaged.safetensors" in caught.value.message, "the message does not name the file"
    return caught.value


def test_header_and_tensors_come_back(made: WeightsFile, tmp_path: Path) -> None:
    again = write(tmp_path / "again.safetensors", made.header, made.tensors())

    assert again.header == made.header
    assert again.weights_id == made.weights_id
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in made.tensors().items())
    assert (tmp_path / "again.safetensors").read_bytes() == made.data


def test_a_header_says_how_to_sample_and_crop(made: WeightsFile) -> None:
    assert (made.header.sampling.frames, made.header.sampling.spacing_s) == (10, 0.1)
    assert (made.header.crop.size, made.header.crop.square) == (64, True)


# --- damage -----------------------------------------------------------------------------------------------


def test_one_flipped_bit_anywhere_is_refused(made: WeightsFile) -> None:
    draw = random.Random(0)
    header = range(8 + int.from_bytes(made.data[:8], "little"))
    for place in [*draw.sample(header, 60), *draw.sample(range(len(made.data)), 40)]:
        flipped = bytearray(made.data)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(WeightsError):
            parse(bytes(flipped), f"flipped at {place}", "")


def test_a_change_of_the_policy_alone_is_noticed(made: WeightsFile, tmp_path: Path) -> None:
    changed_policy = with_header(made.data, lambda h: h["policy"].update(flag=0.999))

    assert "not those that were written" in refused(changed_policy, tmp_path).message


def test_a_file_without_a_checksum_is_read_as_before(made: WeightsFile, tmp_path: Path) -> None:
    path = tmp_path / "older.safetensors"
    path.write_bytes(with_header(made.data, lambda h: h.pop("checksum")))

    assert read(path).weights_id == made.weights_id


@pytest.mark.parametrize("keep", [0, 5, 8, 500, 5000, -1])
def test_a_file_that_is_cut_off_is_refused(made: WeightsFile, tmp_path: Path, keep: int) -> None:
    assert "cut off" in refused(made.data[:keep], tmp_path).message


def test_a_file_that_goes_on_after_its_tensors_is_refused(made: WeightsFile, tmp_path: Path) -> None:
    assert "something follows" in refused(made.data + b"more", tmp_path).message


@pytest.mark.parametrize(
    "content", [b"This is text.\n" * 40, b"\x89PNG\r\n\x1a\n" * 40, b"PK\x03\x04" + bytes(500)]
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "not a safetensors file" in refused(content, tmp_path).message


@pytest.mark.parametrize(
    "metadata", [None, {}, {"format": "pt"}, {"deepfake_scan": "{"}, {"deepfake_scan": 3}]
)
def test_the_header_of_another_program_is_refused(made: WeightsFile, tmp_path: Path, metadata: Any) -> None:
    index = header_of(made.data) | {"__metadata__": metadata}

    assert "header" in refused(with_index(made.data, index), tmp_path).message


def test_a_header_that_is_no_object_is_refused(tmp_path: Path) -> None:
    for text in (b"[]", b"3", b"null", b'"text"', b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        refused(len(text).to_bytes(8, "little") + text, tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda h: h.update(colour="blue"), "colour"),
        (lambda h: h.update(format=2), "format"),
        (lambda h: h["input"].update(size=4000), "size"),
        (lambda h: h["input"].update(padding="zero"), "padding"),
        (lambda h: h["architecture"].update(mix=1.5), "mix"),
        (lambda h: h["architecture"].update(family="meso"), "family"),
        (lambda h: h["architecture"].update(head_mode="last"), "head_mode"),
        (lambda h: h["architecture"].update(lstm_axis="batch"), "lstm_axis"),
        (lambda h: h["architecture"].update(classes=2), "classes"),
        (lambda h: h["architecture"].update(labels="zero_is_fake"), "labels"),
        (lambda h: h["architecture"].update(family="resnext_lstm_cell"), "lstm_axis"),
        (lambda h: h["policy"].pop("flag"), "flag"),
        (lambda h: h["policy"].update(slope=-1.0), "slope and bias"),
        (lambda h: h["policy"].update(bias=-1e308), "slope and bias"),
        (lambda h: h["policy"].update(flag=2.0), "not thresholds"),
        (lambda h: h["policy"].update(flag=0.1), "not thresholds"),
        (lambda h: h["input"].update(std=[0.0, 0.5, 0.5]), "std"),
        (lambda h: h["input"].update(mean=[1e308, 0.5, 0.5]), "mean"),
        (lambda h: h["architecture"].update(layers=[4096, 1, 1, 1]), "layers"),
        (lambda h: h.pop("golden_logit"), "golden_logit"),
    ],
)
def test_a_field_that_this_release_does_not_know_is_refused_by_name(
    made: WeightsFile, tmp_path: Path, change: Callable[[dict[str, Any]], object], word: str
) -> None:
    error = refused(with_header(made.data, change), tmp_path)

    assert "does not fit this release" in error.message
    assert word in error.message


def test_a_damaged_index_of_tensors_is_refused(made: WeightsFile, tmp_path: Path) -> None:
    name = next(name for name in header_of(made.data) if name != "__metadata__")
    infinite = {"data_offsets": [0, float("inf")]}
    for entry in ({}, {"dtype": "F16"}, {"data_offsets": "all"}, infinite, None):
        refused(with_index(made.data, header_of(made.data) | {"extra": entry}), tmp_path)

    path = tmp_path / "shape.safetensors"
    index = header_of(made.data)
    index[name]["shape"] = [1, 2, 3]
    path.write_bytes(with_index(made.data, index))
    with pytest.raises(WeightsError, match="tensors"):
        Model(read(path))


@pytest.mark.parametrize("field", ["extra", "shape"])
def test_what_is_nested_deep_in_the_index_of_tensors_is_refused(made: WeightsFile, field: str) -> None:
    entry = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} | {field: "deep"}
    index = {"__metadata__": header_of(made.data)["__metadata__"], "projection.bias": entry}
    for depth in range(800, 1000):  # at one of them JSON can be read, but not written again
        text = json.dumps(index).replace('"deep"', "[" * depth + "]" * depth).encode()
        with pytest.raises(WeightsError):
            weights.parse(len(text).to_bytes(8, "little") + text, "deep", "")


def test_a_flipped_bit_in_a_shipped_file_is_refused(
    made: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(weights.bundled(), tmp_path / "weights")
    monkeypatch.setattr(weights, "bundled", lambda: tmp_path / "weights")
    manifest = {"default": "made.safetensors", "files": {"made.safetensors": {"sha256": made.sha256}}}
    (tmp_path / "weights" / "manifest.json").write_text(json.dumps(manifest))
    path = tmp_path / "weights" / "made.safetensors"
    path.write_bytes(made.data)
    assert read(resolve("default")).weights_id == made.weights_id

    flipped = bytearray(made.data)
    flipped[-1000] ^= 1
    path.write_bytes(flipped)
    assert "sha256" in refused_at(path).message
    (tmp_path / "weights" / "stranger.safetensors").write_bytes(made.data)
    assert "manifest" in refused_at(tmp_path / "weights" / "stranger.safetensors").message


def refused_at(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        read(path)
    return caught.value


def test_the_shipped_file_is_the_one_of_the_manifest() -> None:
    path = resolve("default")

    assert path == resolve(path.name) == resolve(path.stem)
    assert read(path).sha256 == weights.manifest()["files"][path.name]["sha256"]


def test_a_name_that_is_not_there_lists_the_names_that_are() -> None:
    with pytest.raises(WeightsError) as caught:
        resolve("missing")
    assert "default" in caught.value.hint
    with pytest.raises(WeightsError, match="directory"):
        read(Path(__file__).parent)


# --- tensors that are whole, but not those of the header ------------------------------------------------


def test_tensors_of_another_network_are_refused(made: WeightsFile, tmp_path: Path) -> None:
    tensors = made.tensors()
    tensors.pop("frame_head.bias")
    missing = write(tmp_path / "missing.safetensors", made.header, tensors)
    more = write(tmp_path / "more.safetensors", made.header, made.tensors() | {"extra": torch.zeros(3)})
    for damaged, name in ((missing, "frame_head.bias"), (more, "extra")):
        with pytest.raises(WeightsError, match=f"(?s)do not fit.*{name}"):
            Model(damaged)


@pytest.mark.parametrize("value", [0.3, float("nan"), float("inf")])
def test_weights_that_compute_something_else_than_their_header_says_are_refused(
    made: WeightsFile, tmp_path: Path, value: float
) -> None:
    tensors = made.tensors()
    tensors["projection.weight"][0, :] = value
    damaged = write(tmp_path / "golden.safetensors", made.header, tensors)

    with pytest.raises(WeightsError, match="golden clip"):
        Model(damaged)


# --- weights_id ---------------------------------------------------------------------------------------------


def test_another_policy_or_name_leaves_the_id(made: WeightsFile, tmp_path: Path) -> None:
    policy = made.header.policy
    other = replace(policy, flag=0.97, slope=2.0)
    header = changed(made.header, policy=other, name="other", provenance={"seed": "4"}, prior=0.2)

    assert write(tmp_path / "a.safetensors", header, made.tensors()).weights_id == made.weights_id


def test_the_ids_of_the_shipped_files_stay() -> None:
    """Tables hold them: another id means that every video would be scanned again."""
    ids = {path.stem: read(path).weights_id for path in bundled().glob("*.safetensors")}

    assert ids == {"efficientnet_lite0_lstm": "38648c8eb56f", "resnext_lstm": "9a2c6ecbeda5"}


def test_whatever_changes_a_logit_changes_the_id(made: WeightsFile, tmp_path: Path) -> None:
    header, tensors = made.header, made.tensors()
    inputs: list[dict[str, Any]] = [
        {"scale": 1.2},
        {"shift_y": 0.1},
        {"size": 96},
        {"colour": "bgr"},
        {"frames": 8},
        {"fit": "squash"},
    ]
    headers = [changed(header, input=changed_input(header, **fields)) for fields in inputs]
    headers.append(changed(header, detector=weights.Detector(name="hog", version="20")))
    headers.append(changed(header, architecture=msgspec.structs.replace(header.architecture, mix=0.4)))
    ids = [write(tmp_path / "a.safetensors", each, tensors).weights_id for each in headers]
    tensors["frame_head.bias"] += 0.5
    ids.append(write(tmp_path / "a.safetensors", header, tensors).weights_id)

    assert len({made.weights_id, *ids}) == len(ids) + 1, "two of them share an id"


def changed_input(header: Header, **fields: Any) -> weights.Input:
    return msgspec.structs.replace(header.input, **fields)
