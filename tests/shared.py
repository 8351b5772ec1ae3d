"""The one place through which tests and benchmarks find the shared test data: real videos and face crops.

They are not in the repository, because they show real people and carry other people's terms.
"""

import os
from pathlib import Path

VARIABLE = "_DEEPFAKE_SCAN_SHARED_DATA"


def shared_data_folder() -> Path:
    """Where the shared data lie, whether or not they are there."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get(VARIABLE) or beside)


def why_missing(folder: Path) -> str:
    """A sentence on what to do where the folder is not there, else nothing."""
    if (folder / "videos").is_dir() and (folder / "crops").is_dir():
        return ""
    return f"no shared test data in {folder}: name the folder that holds videos/ and crops/ in {VARIABLE}"
