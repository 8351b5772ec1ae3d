"""The settings files with every key, its meaning and its default.

`python -m jobs.config_template scan > configs/scan.yaml` writes one again after a change in `jobs.config`,
and the same with `train` after one in `jobs.train_config`.
"""

from __future__ import annotations

import sys
from textwrap import wrap
from typing import NamedTuple

import yaml
from pydantic import BaseModel

from jobs.config import ScanSettings
from jobs.train_config import TrainSettings


class _File(NamedTuple):
    """A settings file; `headings` stand above the keys that they are listed under."""

    model: type[BaseModel]
    module: str
    headings: dict[str, str]


FILES = {
    "scan": _File(
        ScanSettings,
        "jobs/config.py",
        {
            "inputs": "What is scanned, and where the results go",
            "profile": "How closely, and with what",
            "address": "Where it runs, and in what portions",
            "retry": "What is done again, and when a scan ends",
            "video_time_limit_s": "What one video may cost",
        },
    ),
    "train": _File(
        TrainSettings,
        "jobs/train_config.py",
        {
            "data": "What is learned from, and where the weights go",
            "init_from": "The network, and what it starts from",
            "images": "The course",
            "validation": "What is made of the data",
            "address": "Where it runs",
        },
    ),
}


def template(command: str) -> str:
    """YAML text with all keys of `scan` or `train` in the order of the model."""
    model, module, headings = FILES[command]
    lines = _comment(
        f"Every setting of `deepfake-scan {command}`, with its default. Copy what you change into a file of "
        f"your own. Printed from {module}: change it there, then `python -m jobs.config_template {command} > "
        f"configs/{command}.yaml`."
    )
    for key, value in model().model_dump(mode="json").items():
        if key in headings:
            lines += ["", "", f"# --- {headings[key]} ---"]
        lines += ["", *_comment(model.model_fields[key].description or ""), f"{key}: {_yaml(value)}"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return wrap(text, 108, initial_indent="# ", subsequent_indent="# ")


def _yaml(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


if __name__ == "__main__":
    print(template(sys.argv[1]), end="")
