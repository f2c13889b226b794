"""A CSV file in blocks of whole lines: every line checked for its number of cells, only mapped columns kept, as text.

Quotes are double quotes, doubled within a cell (RFC 4180). polars pads short lines and drops the end of long ones: a
decimal comma in a file that is parted by commas would shift every later cell into the wrong concept without a word. So
the cells of each line are counted before polars sees it.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from lepton_core.errors import DataError
from lepton_kg.mapping import CsvOptions, Source
from lepton_kg.reading import readable

#: Bytes of the file that are read at once.
_BLOCK = 4 * 2**20
#: Longest run of bytes without a line end outside quotes; longer, a quote has been left open.
_LONGEST = 16 * _BLOCK
_OPEN_QUOTE, _UNEVEN = "a quote that is opened and not closed", "a line with another number of cells than the header"
_SHAPE_HINT = "check source.csv.delimiter and decimal; quote cells that hold the delimiter, and double quotes in them"
_QUOTE, _LINE_END, _RETURN = b'"'[0], b"\n"[0], b"\r"[0]


def csv_header(path: Path, source: Source) -> list[str]:
    """The names in the first line."""
    options = source.csv or CsvOptions()
    with (
        readable(source),
        _decodable(path, source, options),
        path.open(encoding=codec_of(options), newline="") as lines,
    ):
        try:
            names = next(csv.reader(lines, delimiter=options.delimiter), [])
            if lines.newlines == "\r":  # all would be one line to polars, and rows none
                raise _unreadable(
                    "lines that end with carriage returns alone",
                    source,
                    1,
                    "line feeds, with or without carriage returns",
                    "none",
                    hint="save the file with the line ends of today's systems",
                )
            return names
        except csv.Error as error:
            raise _unreadable(_UNEVEN, source, 1, "a header", type(error).__name__) from None


def read_csv(path: Path, source: Source, columns: Sequence[str], names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Batches of those columns as text, in the order asked for; `names` are all columns of the file.

    Raises:
        DataError: another encoding than the mapping says, or a line with more or fewer cells than the header, with its
            number.
    """
    options = source.csv or CsvOptions()
    places = [names.index(column) for column in columns]
    line = 1
    with readable(source), _decodable(path, source, options):
        for number, block in enumerate(_blocks(path, source, options)):
            line = _require_even(block, options.delimiter, len(names), line, source)
            # The header is a line like others: named columns would make polars rename twins.
            cells = pl.read_csv(
                io.BytesIO(block),
                has_header=False,
                new_columns=[f"c{place}" for place in range(len(names))],
                columns=places,
                separator=options.delimiter,
                infer_schema=False,
                glob=False,
            )
            made = cells.select(pl.col(f"c{place}").alias(name) for place, name in zip(places, columns, strict=True))
            yield made[1:] if number == 0 else made


def codec_of(options: CsvOptions) -> str:
    """Python's name of the encoding; a byte order mark is no part of the first name."""
    return "utf-8-sig" if options.encoding == "utf-8" else options.encoding


def _blocks(path: Path, source: Source, options: CsvOptions) -> Iterator[bytes]:
    """The file as UTF-8 in blocks that end where a line ends, blank lines taken out."""
    decoder = codecs.getincrementaldecoder(codec_of(options))(errors="strict")
    rest = b""
    line = 1  # where `rest` begins
    with path.open("rb") as file:
        while True:
            read = file.read(_BLOCK)
            rest += decoder.decode(read, final=not read).encode()
            if not read:
                break
            end = _last_line_end(rest)
            if end:
                yield rest[:end]
                line += rest.count(b"\n", 0, end)
                rest = rest[end:]
            elif len(rest) > _LONGEST:
                raise _unreadable(_OPEN_QUOTE, source, line, "a line end", f"none in {_LONGEST} bytes")
    if rest.strip(b"\r\n"):
        if rest.count(b'"') % 2:
            opened = line + rest.count(b"\n", 0, _last_line_end(rest))
            raise _unreadable(_OPEN_QUOTE, source, opened, "a closing quote", "the end of the file")
        yield rest


def _last_line_end(data: bytes) -> int:
    """Where the last line ends that ends outside quotes; 0 if none does."""
    if b'"' not in data:
        return data.rfind(b"\n") + 1
    ends = _line_ends(np.frombuffer(data, dtype=np.uint8))
    return int(ends[-1]) + 1 if len(ends) else 0


def _line_ends(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    ends: npt.NDArray[np.intp] = np.flatnonzero(cells == _LINE_END)
    quotes = np.flatnonzero(cells == _QUOTE)
    if len(quotes) == 0:
        return ends
    within: npt.NDArray[np.intp] = ends[np.searchsorted(quotes, ends) % 2 == 0]
    return within


def _require_even(block: bytes, delimiter: str, width: int, line: int, source: Source) -> int:
    """The number of the line behind the block, if each line but blank ones has as many cells as the header."""
    cells = np.frombuffer(block, dtype=np.uint8)
    quotes = np.flatnonzero(cells == _QUOTE)
    parts = np.flatnonzero(cells == ord(delimiter))
    if len(quotes):
        parts = parts[np.searchsorted(quotes, parts) % 2 == 0]
    ends = _line_ends(cells)
    if len(ends) == 0 or ends[-1] != len(block) - 1:
        ends = np.append(ends, len(block))
    starts = np.concatenate([[0], ends[:-1] + 1])
    counts = np.searchsorted(parts, ends) - np.searchsorted(parts, starts) + 1
    lengths = ends - starts
    blank = (lengths == 0) | ((lengths == 1) & (cells[np.minimum(starts, len(cells) - 1)] == _RETURN))
    wrong = np.flatnonzero((counts != width) & ~blank)
    line_ends = np.flatnonzero(cells == _LINE_END)
    if len(wrong):
        at = line + int(np.searchsorted(line_ends, ends[wrong[0]]))
        raise _unreadable(_UNEVEN, source, at, f"{width} cells", f"{int(counts[wrong[0]])} cells")
    return line + len(line_ends)


@contextmanager
def _decodable(path: Path, source: Source, options: CsvOptions) -> Iterator[None]:
    """Turns bytes that are not of the encoding into a DataError that says where the first of them is."""
    try:
        yield
    except UnicodeDecodeError:
        line, offset = _first_undecodable(path, options)
        raise DataError(
            "the file is not in the encoding that the mapping says",
            where=f"{source.shown}, line {line}",
            expected=options.encoding,
            got=f"an invalid byte at offset {offset}",
            hint="set source.csv.encoding; `lepton mapping suggest` tells which it finds",
            reason="BAD_ENCODING",
        ) from None


def _first_undecodable(path: Path, options: CsvOptions) -> tuple[int, int]:
    """Line, from 1, and offset of the first byte that is not of the encoding."""
    decoder = codecs.getincrementaldecoder(codec_of(options))(errors="strict")
    line = 1
    with path.open("rb") as file:
        while True:
            read = file.read(_BLOCK)
            try:
                line += decoder.decode(read, final=not read).count("\n")
            except UnicodeDecodeError as error:
                # What the decoder had kept back of the block before comes first in its object.
                return line + error.object.count(b"\n", 0, error.start), file.tell() - len(error.object) + error.start
            if not read:
                return line, file.tell()


def _unreadable(
    message: str,
    source: Source,
    line: int,
    expected: str,
    got: str,
    *,
    hint: str = _SHAPE_HINT,
) -> DataError:
    return DataError(
        message,
        where=f"{source.shown}, line {line}",
        expected=expected,
        got=got,
        hint=hint,
        reason="UNREADABLE",
    )
