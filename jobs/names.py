"""Names of videos, struck out of what scans noted about themselves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from typing import Any

from detector.errors import InputError
from jobs.local import scheme_of, uri_of

PURGED = "(purged)"
_INPUTS = "inputs"


class Names:
    """Names of videos as they stand in the table.

    Args:
        uris: A text that merely holds one of them is left alone.
    """

    def __init__(self, uris: Collection[str]) -> None:
        self._uris = frozenset(uris)

    def __bool__(self) -> bool:
        return bool(self._uris)

    def struck(self, value: Any, key: str = "") -> Any:
        """A value of JSON without them; `inputs` may spell them otherwise than the table does."""
        if isinstance(value, str):
            return PURGED if value in self._uris or (key == _INPUTS and self._means(value)) else value
        if isinstance(value, dict):
            return {name: self.struck(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.struck(inner, key) for inner in value]
        return value

    def struck_text(self, text: str) -> str:
        """The same for JSON as text; what is no JSON holds no name that was written by a scan."""
        try:
            value = json.loads(text)
        except ValueError:
            return text
        without = self.struck(value)
        return text if without == value else json.dumps(without, indent=2 if "\n" in text else None)

    def _means(self, name: str) -> bool:
        """Whether an input, written as on a command line, is one of the videos."""
        scheme = scheme_of(name)
        if scheme not in (None, "file"):
            return f"{scheme}{name[len(scheme or '') :]}" in self._uris
        try:
            if uri_of(name.removeprefix("file://")) in self._uris:
                return True
        except InputError:
            return False
        # A relative name was meant from a folder that nobody noted.
        below = "/" + re.sub(r"^(\.\./)+", "", os.path.normpath(name))  # a Path would keep `..` inside
        return not name.startswith(("/", "~")) and any(uri.endswith(below) for uri in self._uris)
