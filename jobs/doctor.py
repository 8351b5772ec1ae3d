"""What a scan needs on this machine, checked for real: each check runs the thing that it is about."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # where Ray keeps its objects


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `detail` says what is there, or what is wrong and how to mend it."""

    name: str
    ok: bool
    detail: str


def examine() -> list[Check]:
    """Run every check."""
    return [_run(name, check) for name, check in _CHECKS.items()]


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a check that fails in any way is its finding
        return Check(name, False, f"{type(error).__name__}: {error}")


def _system() -> str:
    if sys.platform != "linux":
        raise RuntimeError("deepfake-scan runs on Linux only")
    return f"{platform.system()} {platform.release()}, Python {platform.python_version()}"


def _ffmpeg() -> str:
    import av

    from detector.container import outdated_ffmpeg

    if found := outdated_ffmpeg():
        raise RuntimeError(f"{found}: pip install --upgrade av")
    return f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}"


def _sandbox() -> str:
    from detector.sandbox import Sandbox
    from detector.types import ExtractOptions, Reason

    with tempfile.TemporaryFile() as file, Sandbox() as sandbox:
        extraction = sandbox.extract(file, ExtractOptions())
        isolation = sandbox.isolation
    if extraction.facts.failure is not Reason.EMPTY_FILE:
        raise RuntimeError(f"an empty file gave {extraction.facts.failure}: {extraction.facts.message}")
    if isolation.possible:
        raise RuntimeError(isolation.in_words())
    return f"a child decodes behind {isolation.in_words()}; {extraction.peak_bytes >> 20} MiB at rest"


def _faces() -> str:
    import numpy as np

    from detector.faces import load

    for name in ("yunet", "hog"):
        load(name)(np.zeros((64, 64, 3), np.uint8), False)
    return "yunet and hog load"


def _weights() -> str:
    from detector.model import Model, default_dtype
    from detector.weights import read, resolve

    weights = read(resolve("default"))
    Model(weights)
    return (
        f"{weights.header.name} ({weights.weights_id}) gives its golden answer; {default_dtype('cpu')} here"
    )


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"none; torch {torch.__version__} runs on the CPU"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _ray() -> str:
    import importlib.metadata

    version = importlib.metadata.version("ray")
    if not version.startswith("2.60."):
        raise RuntimeError(
            f"Ray {version} is installed, 2.60 is needed: pip install 'ray[data,default]==2.60.*'"
        )
    return f"Ray {version}"


def _table() -> str:
    import deltalake
    import duckdb
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe"
        deltalake.write_deltalake(str(path), pa.table({"one": [1]}))
        rows = deltalake.DeltaTable(str(path)).to_pyarrow_table().num_rows
    if rows != 1:
        raise RuntimeError("a table that was written cannot be read back")
    return f"deltalake {deltalake.__version__} and duckdb {duckdb.__version__} write and read"


def _shared_memory() -> str:
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free < 1 << 30:
        raise RuntimeError(f"{free >> 20} MiB free where Ray needs 1 GiB: in Docker, --shm-size=2g")
    return f"{free / (1 << 30):.1f} GiB free"


_CHECKS: dict[str, Callable[[], str]] = {
    "system": _system,
    "decoder": _ffmpeg,
    "sandbox": _sandbox,
    "face detectors": _faces,
    "weights": _weights,
    "gpu": _gpu,
    "cluster": _ray,
    "shared memory": _shared_memory,
    "table": _table,
}
