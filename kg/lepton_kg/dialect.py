"""How a CSV file is written, found out from the file: encoding, delimiter, decimal sign; a person has the last word.

1. Encoding: a byte order mark, else UTF-8 if the whole file is, else GB 18030 if its bytes above 127 stand in pairs (in
   a Western file they stand alone among letters), else Windows-1252, else Latin-1.
2. Delimiter: the one that gives the most cells, the same number in every line of the sample.
3. Decimal sign: the one that more cells of the sample have.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lepton_core.errors import DataError
from lepton_kg.mapping import CsvOptions

Encoding = Literal["utf-8", "cp1252", "latin-1", "utf-16", "gb18030"]

_BLOCK = 2**20
_SAMPLE_LINES = 500
_DELIMITERS = (",", ";", "\t", "|")
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
#: Bytes that Windows-1252 gives no character.
_NOT_1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")


@dataclass(frozen=True)
class Dialect:
    """What a file looks like, and from what."""

    options: CsvOptions
    #: One line a finding, for people.
    reasons: tuple[str, ...]


def detect_dialect(path: Path, *, delimiter: str | None = None, decimal: str | None = None) -> Dialect:
    """How the file is written; what is given is believed.

    Raises:
        DataError: it cannot be read, or no delimiter parts its lines alike.
    """
    try:
        encoding, why = _encoding(path)
        codec = "utf-8-sig" if encoding == "utf-8" else encoding
        with path.open(encoding=codec, newline="") as file:
            lines = [line for line, _ in zip(file, range(_SAMPLE_LINES), strict=False)]
    except OSError as error:
        raise DataError(
            "the source file is missing",
            where=str(path),
            expected="a CSV file",
            got=error.strerror or "",
            reason="MISSING_FILE",
        ) from None
    found, width = _delimiter(lines, delimiter, path)
    comma, dot = _decimals(lines, found)
    sign: Literal[".", ","] = "," if comma > dot and found != "," else "."
    if decimal in {".", ","}:
        sign = "," if decimal == "," else "."
    reasons = [why, f"{width} cells a line, parted by {found!r}", f"decimal sign {sign!r}"]
    if comma and dot and found != ",":
        reasons.append(f"decimal signs are mixed: {comma} cells of the sample have ',' and {dot} have '.'")
    return Dialect(CsvOptions(delimiter=found, encoding=encoding, decimal=sign), tuple(reasons))


def _encoding(path: Path) -> tuple[Encoding, str]:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "utf-16, by its byte order mark"
    decoder = codecs.getincrementaldecoder("utf-8")(errors="strict")
    pairs = alone = 0
    is_utf8, undefined = True, False
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if is_utf8:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError:
                    is_utf8 = False
            for run in _HIGH_RUN.findall(block):
                pairs += len(run) % 2 == 0
                alone += len(run) % 2
            undefined = undefined or not _NOT_1252.isdisjoint(block)
    if is_utf8:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            is_utf8 = False
    if is_utf8:
        return "utf-8", "utf-8, all of it"
    if pairs > 9 * alone:
        return "gb18030", "gb18030: not utf-8, and its bytes above 127 stand in pairs"
    if undefined:
        return "latin-1", "latin-1: not utf-8, and it has bytes that windows-1252 leaves undefined"
    return "cp1252", "cp1252: not utf-8, and its bytes above 127 stand alone"


def _delimiter(lines: list[str], given: str | None, path: Path) -> tuple[str, int]:
    best, width = "", 0
    for candidate in (given,) if given else _DELIMITERS:
        try:
            counts = Counter(len(cells) for cells in csv.reader(lines, delimiter=candidate, strict=True) if cells)
        except csv.Error:
            continue
        if len(counts) == 1 and next(iter(counts)) > width:
            best, width = candidate, next(iter(counts))
    if width == 1 and not given and any(candidate in lines[0] for candidate in _DELIMITERS):
        best = ""
    if not best:
        raise DataError(
            "a file that no delimiter parts alike in every line",
            where=str(path),
            expected="as many cells in each line as in the first, parted by one of , ; tab |",
            got="another number in some line" if lines else "an empty file",
            hint="name it with --delimiter, and correct the lines that `lepton mapping check` tells",
            reason="UNREADABLE",
        )
    return best, width


def _decimals(lines: list[str], delimiter: str) -> tuple[int, int]:
    """Cells of the sample that are numbers with a decimal comma, and with a decimal dot."""
    comma = dot = 0
    for cells in csv.reader(lines[1:], delimiter=delimiter):
        comma += sum(re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell) is not None for cell in cells)
        dot += sum(re.fullmatch(r"\s*[+-]?\d+\.\d+\s*", cell) is not None for cell in cells)
    return comma, dot
