"""One byte string for one meaning: canonical JSON for documents that are hashed or signed."""

from __future__ import annotations

import json
import math
from types import NoneType
from typing import Any

from lepton_core.errors import InputError

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(document: Any) -> bytes:
    """UTF-8 JSON with sorted keys, no spaces, no NaN; equal documents give equal bytes.

    Floats are written by Python's shortest round-trip form; -0.0 is refused.

    Raises:
        InputError: a value that JSON cannot hold exactly.
    """
    if not _is_plain(document):
        _refuse(document, "document")
    return _ENCODER.encode(document).encode()


def _is_plain(value: Any) -> bool:
    """True if everything in the value has a canonical form; `_refuse` tells what has not, and where."""
    kind = type(value)
    if kind in (str, int, bool, NoneType):
        return True
    if kind is float:
        return math.isfinite(value) and (value != 0.0 or math.copysign(1.0, value) > 0)
    if kind is dict:
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    return kind in (list, tuple) and all(_is_plain(item) for item in value)


def _refuse(value: Any, path: str) -> None:
    """Raise for the first thing without a canonical form; heirs of the plain types, such as `StrEnum`, have theirs."""
    match value:
        case None | bool() | int() | str():
            return
        case float():
            if not math.isfinite(value) or (value == 0.0 and math.copysign(1.0, value) < 0):
                raise InputError("a number that has no canonical form", where=path, got=repr(value))
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise InputError("a key that is not text", where=path, got=repr(key))
                _refuse(item, f"{path}.{key}")
        case list() | tuple():
            for index, item in enumerate(value):
                _refuse(item, f"{path}[{index}]")
        case _:
            raise InputError("a value that has no canonical form", where=path, got=type(value).__name__)
