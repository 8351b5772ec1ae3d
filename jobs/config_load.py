"""One model's settings out of all sources, with every mistake in them told at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from detector.errors import SettingsError
from jobs.config_errors import mistakes
from jobs.config_sources import Source, environment_source, file_source, flag_source, set_source

Model = TypeVar("Model", bound=BaseModel)


class Shown(NamedTuple):
    """A setting as `config show` prints it: `value` is what a YAML file would hold."""

    key: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Model]):
    """Effective settings; `origins` says for each key where its value comes from, or `default`."""

    settings: Model
    origins: Mapping[str, str]

    def shown(self) -> list[Shown]:
        """Every key with value and origin, in the order of the model."""
        values = self.settings.model_dump(mode="json")
        return [Shown(key, value, self.origins[key]) for key, value in values.items()]


def load_as(
    model: type[Model],
    files: Iterable[str | Path] = (),
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
) -> Loaded[Model]:
    """Settings of a flat model from all sources; no key may be required or depend on another one.

    Args:
        model: what the keys and their values may be.
        files: YAML files, the later ones winning.
        env: the environment; only `DEEPFAKE_SCAN_<KEY>` is looked at.
        overrides: flags and arguments by key; None and empty lists count as not given.
        sets: the `key=value` of each `--set`.

    Raises:
        SettingsError: something is wrong; the message has one line per mistake, from all sources.
    """
    fields = model.model_fields
    lists = frozenset(name for name, field in fields.items() if isinstance(field.default, list))
    sources = [file_source(path) for path in files]
    sources.append(environment_source(env or {}, lists))
    sources.append(set_source(sets, lists))
    sources.append(flag_source(overrides or {}, lists))
    found = [text for source in sources for text in _check(model, source)]
    if found:
        raise SettingsError("\n".join(found))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(fields, "default")
    for source in sources:
        values |= source.values
        origins |= {key: source.origin(key) for key in source.values}
    return Loaded(model.model_validate(values), origins)


def _check(model: type[BaseModel], source: Source) -> list[str]:
    """What is wrong with one source; works because no setting is required or depends on another one."""
    try:
        model.model_validate(source.values)
    except ValidationError as error:
        return mistakes(source, error, model.model_fields)
    return mistakes(source, None, model.model_fields)
