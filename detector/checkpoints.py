"""PyTorch checkpoints by others: tensors by name, and nothing in the file is run."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from detector.errors import WeightsError

MAX_BYTES = 1 << 30
_A_STATE_DICT = "It has to hold a state dict alone: torch.save(model.state_dict(), PATH)."
# What training programs put a state dict under, beside an epoch and an optimizer.
_NESTS = ("state_dict", "model_state_dict", "model")
_PARALLEL = "module."  # how DataParallel names what is inside it


def state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint on the CPU, also where they lie one level down or come from DataParallel.

    Raises:
        WeightsError: it cannot be read, is too large, holds code, or something else than tensors by name.
    """
    state = _loaded(path)
    if isinstance(state, Mapping):
        nested = [state[nest] for nest in _NESTS if isinstance(state.get(nest), Mapping)]
        state = nested[0] if nested else state
    if not isinstance(state, Mapping) or not state or not all(map(_is_named_tensor, state.items())):
        raise WeightsError(f"{path} holds something else than plain tensors by name", hint=_A_STATE_DICT)
    parallel = all(name.startswith(_PARALLEL) for name in state)
    return {name.removeprefix(_PARALLEL) if parallel else name: value for name, value in state.items()}


def _is_named_tensor(item: tuple[object, object]) -> bool:
    name, value = item
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and not (value.is_meta or value.is_quantized or value.is_nested)


def _loaded(path: Path) -> object:
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path} is not a regular file")
        size = _size(path)
        if size > MAX_BYTES:
            raise WeightsError(f"{path} is larger than any checkpoint that is read: {size:,} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about old pickles, which are read all the same
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
            return loaded
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # unpickling a stranger's file raises anything
        asked = re.search(r"\bGLOBAL (\S+)", str(error))  # PyTorch's own text advises to run it
        why = f"it asks for {asked[1]}" if asked else "damaged, or of another kind"
        raise WeightsError(
            f"{path} is not a checkpoint that can be loaded: {why}; nothing in it was run", hint=_A_STATE_DICT
        ) from error


def _size(path: Path) -> int:
    """Bytes of the file, or of what a ZIP says that is in it, where that is more."""
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return size
    with zipfile.ZipFile(path) as archive:
        return max(size, sum(entry.file_size for entry in archive.infolist()))
