"""Where settings come from: YAML files, environment, `--set` and flags, each read into a `Source`.

A source knows for each value where it stands, and what was wrong with the source itself. Whether keys and
values are right is decided in `jobs.config`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ENVIRONMENT_PREFIX = "DEEPFAKE_SCAN_"

# A date such as 2026-02-30 is a ValueError, what PyYAML makes of `!!bool maybe` one of its own mistakes.
_YAML_FAILS = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
# What Kubernetes puts into every pod beside a Service that is named deepfake-scan.
_KUBERNETES = re.compile(r"DEEPFAKE_SCAN_(SERVICE_(HOST|PORT.*)|PORT|PORT_\d+_.*)")


class Mistake(NamedTuple):
    """One sentence for the user, and the line it is about (0 outside files), to sort by."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """Raw values by key. `spell` gives a key as this source writes it: `DEEPFAKE_SCAN_LIMIT`, `--limit`."""

    place: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    spell: Callable[[str], str] = str

    def line(self, *path: str | int) -> int:
        """The line of a value, of the list around it where that is not known; 0 outside files."""
        return self.lines.get(path) or self.lines.get(path[:1], 0)

    def where(self, *path: str | int) -> str:
        """`configs/x.yaml:14`, or the words for a source without lines."""
        line = self.line(*path)
        return f"{self.place}:{line}" if line else self.place

    def origin(self, key: str) -> str:
        """Where a value comes from, for `config show`."""
        spelled = self.spell(key)
        return self.where(key) if spelled == key else f"{self.place} {spelled}"

    def report(self, line: int, text: str) -> None:
        """Note a mistake in the source itself."""
        self.mistakes.append(
            Mistake(line, f"{self.place}:{line}: {text}" if line else f"{self.place}: {text}")
        )


class _Loader(yaml.SafeLoader):
    """Without aliases: settings are flat, and nine levels of them make a billion values."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As the base class, for any event but an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML leaves it bare
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not taken here", problem_mark=mark)
        return super().compose_node(parent, index)


def file_source(path: str | Path) -> Source:
    """Read one YAML file: a mapping of keys to values."""
    source = Source(str(path))
    try:
        loader = _Loader(Path(path).read_bytes())
        root = loader.get_single_node()
    except OSError as error:
        source.report(0, f"cannot be read: {error.strerror}")
        return source
    except _YAML_FAILS as error:
        source.report(*_yaml_mistake(error))
        return source
    if isinstance(root, yaml.MappingNode):
        _read_mapping(loader, root, source)
    elif root is not None:
        source.report(root.start_mark.line + 1, "must hold lines of the form `key: value`")
    return source


def _read_mapping(loader: yaml.SafeLoader, root: yaml.MappingNode, source: Source) -> None:
    for key_node, value_node in root.value:
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if key in source.values:
            source.report(line, f"{key} stands here a second time, after line {source.line(key)}")
            continue
        source.lines[key,] = line
        if isinstance(value_node, yaml.SequenceNode):
            for index, item in enumerate(value_node.value):
                source.lines[key, index] = item.start_mark.line + 1
        try:
            source.values[key] = loader.construct_object(value_node, deep=True)
        except _YAML_FAILS as error:
            source.values[key] = None
            source.report(*_yaml_mistake(error, line))


def _yaml_mistake(error: Exception, line: int = 0) -> tuple[int, str]:
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, RecursionError):
        what = "it is nested too deeply"
    elif isinstance(error, LookupError | AttributeError):
        what = "a value does not fit the tag before it"
    else:
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return (mark.line + 1 if mark else line), f"this is not YAML: {what}"


def environment_source(env: Mapping[str, str], lists: Collection[str]) -> Source:
    """The variables `DEEPFAKE_SCAN_<KEY>`; an empty one counts as not set."""
    source = Source("environment", spell=lambda key: ENVIRONMENT_PREFIX + key.upper())
    for name in sorted(env):
        if name.startswith(ENVIRONMENT_PREFIX) and env[name] and not _KUBERNETES.fullmatch(name):
            _take_text(source, name.removeprefix(ENVIRONMENT_PREFIX).lower(), env[name], lists)
    return source


def set_source(assignments: Iterable[str], lists: Collection[str]) -> Source:
    """The arguments of `--set key=value`; of two for one key the last one counts."""
    source = Source("--set")
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if equals:
            _take_text(source, key.strip(), text, lists)
        else:
            source.report(0, f"{assignment!r} must have the form key=value")
    return source


def flag_source(flags: Mapping[str, Any], lists: Collection[str]) -> Source:
    """Values of flags and arguments by key; None and empty lists count as not given."""
    source = Source("command line", spell=lambda key: "--" + key.replace("_", "-"))
    for key, value in flags.items():
        if isinstance(value, str):
            _take_text(source, key, value, lists)
        elif isinstance(value, list | tuple):
            if value:
                source.values[key] = list(value)
        elif value is not None:
            source.values[key] = value
    return source


def _take_text(source: Source, key: str, text: str, lists: Collection[str]) -> None:
    """Take over a value that can only be text: `null` means none, a list is one item or JSON."""
    if text == "null":
        source.values[key] = None
    elif key not in lists:
        source.values[key] = text
    elif not text.startswith("["):
        source.values[key] = [text]
    else:
        try:
            source.values[key] = json.loads(text)
        except ValueError:
            source.report(
                0, f'{source.spell(key)}: several values are written as ["one", "two"], not {text!r}'
            )
