"""An error on standard error: a box for people, one JSON object for programs."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

#: Field of an error and the word it is shown under, in the order of reading.
_SHOWN = (("where", "where"), ("expected", "expected"), ("got", "got"), ("hint", "try"))


def wants_json(arguments: Sequence[str]) -> bool:
    """True if the command line asks for JSON; read before parsing, so that a parsing error is JSON as well."""
    follows = any(pair == ("--output", "json") for pair in itertools.pairwise(arguments))
    return follows or "--output=json" in arguments


def complain(fields: Mapping[str, str], *, as_json: bool) -> None:
    """Write the error's fields, as `LeptonError.as_dict` names them, to standard error."""
    if as_json:
        sys.stderr.write(json.dumps(dict(fields), ensure_ascii=False, sort_keys=True) + "\n")
        return
    # A terminal's width; piped, a line stays a line so that grep finds it.
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 1_000_000
    kind = fields.get("code", "error") + (f" {fields['reason']}" if fields.get("reason") else "")
    lines = [f"┌ error: {kind}", *_wrapped("what", fields.get("message", ""), width)]
    for key, word in _SHOWN:
        if fields.get(key):
            lines += _wrapped(word, fields[key], width)
    sys.stderr.write("\n".join([*lines, "└"]) + "\n")


def _wrapped(word: str, text: str, width: int) -> list[str]:
    first, rest = f"│ {word + ':':<10}", f"│ {'':<10}"
    return [
        line
        for paragraph in text.splitlines() or [""]
        for line in textwrap.wrap(paragraph, max(40, width - 1), initial_indent=first, subsequent_indent=rest)
    ]
