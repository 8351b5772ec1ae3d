"""How long the user's way takes: 20 videos with an obvious artefact, from the folder to AUC 1.0.

`make bench BAR=training`; Ray's start, cutting, both stages and all figures are in the time.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.toy import make_toy_set

IMAGES = 320


def main() -> None:
    """Prints one line."""
    with tempfile.TemporaryDirectory() as folder:
        toy_set = make_toy_set(Path(folder) / "toy")
        words = [sys.executable, "-m", "jobs", "train", str(toy_set), "--output", f"{folder}/out", "--json"]
        words += ["--images", str(IMAGES), "--set", "validation=40%", "--set", "clips=20"]
        began = time.monotonic()
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - began
        auc = json.loads(done.stdout)["figures"]["auc"]
    print(f"20 videos, {IMAGES} images: validation AUC {auc:.3f} after {seconds:.0f} s (bar: 1.0 in 180 s)")


if __name__ == "__main__":
    main()
