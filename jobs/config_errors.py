"""What is wrong with a setting, in words: where it stands, what was seen there, what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobs.config_sources import Mistake, Source

_MAX_SHOWN = 60
_YAML_WORDS = {"None": "null", "True": "true", "False": "false"}


def mistakes(source: Source, error: ValidationError | None, keys: Collection[str]) -> list[str]:
    """Everything that is wrong with a source, in the order of its lines. `keys`: those that exist."""
    found = list(source.mistakes)
    for details in error.errors(include_url=False) if error else ():
        path = tuple(details["loc"]) or (details["input"],)  # of a key that is no Unicode it names no place
        found.append(Mistake(source.line(*path), _sentence(source, path, details, keys)))
    return [mistake.text for mistake in sorted(found, key=lambda mistake: mistake.line)]


def _sentence(
    source: Source, path: tuple[str | int, ...], details: ErrorDetails, keys: Collection[str]
) -> str:
    key = str(path[0])
    where = source.where(*path)
    if details["type"] == "extra_forbidden":
        near = _nearest(key.replace("-", "_"), keys)
        suggestion = f" Did you mean {source.spell(near)}?" if near else ""
        return f"{where}: {source.spell(key)} is not a key.{suggestion}"
    name = source.spell(key) + "".join(f"[{index}]" for index in path[1:])
    words = _WORDS.get(details["type"], _other)
    return f"{where}: {name}: {words(details['input'], details)}"


def _nearest(word: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(word.lower(), known, n=1)), None)


def _shown(value: object) -> str:
    try:
        text = _YAML_WORDS.get(repr(value), repr(value))
    except ValueError:  # Python writes no number of so many digits
        text = "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def _choice(value: Any, details: ErrorDetails) -> str:
    names = re.findall("'([^']*)'", details["ctx"]["expected"])
    near = _nearest(str(value), names)
    suggestion = f" Did you mean {near}?" if near else ""
    return f"{_shown(value)} is not one of {', '.join(names)}.{suggestion}"


def _must_be(what: str) -> Callable[[Any, ErrorDetails], str]:
    return lambda value, _: f"must be {what}, not {_shown(value)}"


def _bound(words: str, name: str) -> Callable[[Any, ErrorDetails], str]:
    return lambda value, details: f"{_shown(value)} is {words} {details['ctx'][name]:.12g}"


def _text(value: Any, _: ErrorDetails) -> str:
    quote = "; put it in quotes" if isinstance(value, int | float) else ""
    return f"must be text, not {_shown(value)}{quote}"


def _own(_: Any, details: ErrorDetails) -> str:
    return str(details["ctx"]["error"])


def _other(value: Any, details: ErrorDetails) -> str:
    return f"{details['msg']}, not {_shown(value)}"


_whole = _must_be("a whole number")
_number = _must_be("a number")
_yes_no = _must_be("true or false")

# By pydantic's error types: https://docs.pydantic.dev/latest/errors/validation_errors/
_WORDS: dict[str, Callable[[Any, ErrorDetails], str]] = {
    "bool_parsing": _yes_no,
    "bool_type": _yes_no,
    "finite_number": _number,
    "float_parsing": _number,
    "float_type": _number,
    "greater_than": _bound("too small: it must be above", "gt"),
    "greater_than_equal": _bound("too small: at least", "ge"),
    "int_from_float": _whole,
    "int_parsing": _whole,
    "int_type": _whole,
    "less_than": _bound("too large: it must be below", "lt"),
    "less_than_equal": _bound("too large: at most", "le"),
    "list_type": _must_be("a list"),
    "literal_error": _choice,
    "string_too_short": lambda *_: "must not be empty",
    "string_unicode": _must_be("text in UTF-8 (of a file's name, file:// and percent-encoded)"),
    "string_type": _text,
    "value_error": _own,
}
