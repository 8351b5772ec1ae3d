"""The settings file with every key, its meaning and its default.

`python -m jobs.config_template > configs/scan.yaml` writes it again after a change in `jobs.config`.
"""

from __future__ import annotations

from textwrap import wrap

import yaml

from jobs.config import ScanSettings

_INTRODUCTION = (
    "Every setting of `deepfake-scan scan`, with its default. Copy what you change into a file of your own. "
    "Printed from jobs/config.py: change it there, then `python -m jobs.config_template > configs/scan.yaml`."
)

# By the key that each stands above.
_HEADINGS = {
    "inputs": "What is scanned, and where the results go",
    "profile": "How closely, and with what",
    "address": "Where it runs, and in what portions",
    "retry": "What is done again, and when a scan ends",
    "video_time_limit_s": "What one video may cost",
}


def template() -> str:
    """YAML text with all keys in the order of the model."""
    lines = _comment(_INTRODUCTION)
    for key, value in ScanSettings().model_dump(mode="json").items():
        if key in _HEADINGS:
            lines += ["", "", f"# --- {_HEADINGS[key]} ---"]
        lines += ["", *_comment(ScanSettings.model_fields[key].description or ""), f"{key}: {_yaml(value)}"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return wrap(text, 108, initial_indent="# ", subsequent_indent="# ")


def _yaml(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


if __name__ == "__main__":
    print(template(), end="")
