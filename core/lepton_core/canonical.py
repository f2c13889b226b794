"""One byte string for one meaning: canonical JSON for documents that are hashed or signed."""

from __future__ import annotations

import json
import math
from typing import Any

from lepton_core.errors import InputError


def canonical_json(document: Any) -> bytes:
    """UTF-8 JSON with sorted keys, no spaces, no NaN; equal documents give equal bytes.

    Floats are written by Python's shortest round-trip form; -0.0 is refused.

    Raises:
        InputError: a value that JSON cannot hold exactly.
    """
    _require_plain(document, "document")
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _require_plain(value: Any, path: str) -> None:
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
                _require_plain(item, f"{path}.{key}")
        case list() | tuple():
            for index, item in enumerate(value):
                _require_plain(item, f"{path}[{index}]")
        case _:
            raise InputError("a value that has no canonical form", where=path, got=type(value).__name__)
