"""Durations, sizes and shares as people write them: `30s`, `5GB`, `5%`.

Each `parse_*` takes what a settings file may hold and raises ValueError with the sentence for the user; each
`format_*` gives the text that parses to the same value.
"""

from __future__ import annotations

import re
from decimal import Decimal

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%]*)", re.ASCII)


def parse_duration(value: object) -> float:
    """Seconds from text such as `30s`, `2m`, `1.5h`, or from a number of seconds."""
    number, unit = _quantity(value, "a duration, such as 30s, 2m or 1h")
    factor = _SECONDS.get(unit or "s")
    if factor is None:
        raise ValueError(f"{value!r} is not a duration, such as 30s, 2m or 1h")
    return float(number * factor)


def format_duration(seconds: float) -> str:
    """`2m` from 120.0: the largest unit that leaves a whole number, else seconds."""
    for unit, factor in (("h", 3600), ("m", 60)):
        if seconds % factor == 0:
            return f"{seconds / factor:.0f}{unit}"
    return f"{repr(float(seconds)).removesuffix('.0')}s"


def parse_size(value: object) -> int:
    """Bytes from text such as `5GB` (10^9 each) or `4GiB` (2^30 each), or from a number of bytes."""
    number, unit = _quantity(value, "a size, such as 800MB, 5GB or 4GiB")
    factors = {name.lower(): factor for name, factor in _BYTES.items()}
    factor = factors.get(unit.lower() or "b")
    if factor is None:
        raise ValueError(f"{value!r} is not a size, such as 800MB, 5GB or 4GiB")
    size = number * factor
    if size != int(size) or not size:
        raise ValueError(f"{value!r} is not a whole number of bytes above 0")
    return int(size)


def format_size(size: int) -> str | int:
    """`5GB` from 5000000000: the largest unit that leaves a whole number, else bytes without a unit."""
    for unit, factor in sorted(_BYTES.items(), key=lambda item: -item[1]):
        if factor > 1 and size % factor == 0:
            return f"{size // factor}{unit}"
    return size


def parse_percent(value: object) -> float:
    """A share in [0, 1] from text such as `5%`. A bare number is refused: 0.05 might mean either."""
    found = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found[2] != "%" or Decimal(found[1]) > 100:
        raise ValueError(f"{value!r} is not a percentage from 0% to 100%, such as 5% or 0.1%")
    return float(Decimal(found[1]) / 100)


def format_percent(share: float) -> str:
    """`5%` from 0.05."""
    return f"{float(Decimal(repr(share)) * 100):.12g}%"


def rounded_size(size: int) -> str:
    """`5.3 GB`: what a size is about, for people."""
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def rounded_time(seconds: float) -> str:
    """`12 min`: how long something takes, for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _quantity(value: object, what: str) -> tuple[Decimal, str]:
    """Number and unit, the unit empty where `value` is a number or has none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(value)
    found = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not {what}")
    return Decimal(found[1]), found[2]
