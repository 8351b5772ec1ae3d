"""Where the shared test data lie: real videos, odd media, labelled crops. The product works without them."""

from __future__ import annotations

import os
from pathlib import Path


def shared_data() -> Path:
    """The folder: beside the checkout, or what `_DEEPFAKE_SCAN_SHARED_DATA` names. It may be missing."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("_DEEPFAKE_SCAN_SHARED_DATA", beside))
