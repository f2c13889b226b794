"""How a mapping writes numbers, dates and switches: one pattern each, for the parser and for its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

#: Regular expressions over the whole text, in the dialect that JSON Schema shares with Python.
NUMBER = r"^[+-]?(0|[1-9][0-9]{0,17})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$"
SCORE = r"^(0(\.[0-9]{1,30})?|1(\.0{1,30})?|[0-9](\.[0-9]{1,30})?[eE]-[0-9]{1,3})$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
SWITCH = r"^(true|false)$"
WHOLE = r"^1$"
#: What no database URL in a mapping may hold: a password as SQLAlchemy reads it, or as an option of a driver.
CREDENTIAL_IN_URL = r"^[^/]*//[^/:]*:[^@]*@|[?&](ssl|ssl_key_)?(password|passwd|pwd|passphrase)="


def as_written(pattern: str, expected: str) -> Callable[[Any], Any]:
    """A check of text before its type is read; values that are no text pass on to the type's own check.

    pydantic alone would take `1_000`, `yes`, or seconds for a date.
    """
    known = re.compile(pattern)

    def check(value: Any) -> Any:
        if isinstance(value, str) and known.fullmatch(value) is None:
            raise ValueError(f"expected {expected}")
        return value

    return check
