"""Looks for an owner's data, in every form a mistake would give them, in the bytes that left its site."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lepton_client.home import Home
from lepton_client.ledger import read_ledger
from lepton_client.records import read_jobs
from lepton_core.identity import IdentityKey
from lepton_core.ids import digest_of
from lepton_core.privacy.ledger import LedgerEntry
from lepton_core.task import Task
from lepton_kg.compiler import compile_plan
from lepton_kg.mapping import Mapping, parse_mapping
from lepton_kg.ontology import Ontology
from lepton_kg.source import read_columns

#: Shorter texts say nothing anywhere.
_SHORTEST_BYTES = 5
#: Among masks, keys and ciphertexts a text of five bytes stands by chance once in a thousand runs, of a site's
#: thousand such texts and its third of a million random bytes; one of six, once in 200,000.
_SHORTEST_AMONG_RANDOM_BYTES = 6
#: Numbers are looked for 8 bytes at a time: one float64, two float32 or int32 side by side, four int16.
_WINDOW = 8
#: A window of fewer different bytes, such as of zeros, says nothing.
_LEAST_VARIETY = 4
#: Fixed-point forms of raw and of scaled values.
_THOUSANDTHS, _LANE = 1_000, 32_767


@dataclass(frozen=True)
class Secrets:
    """What one owner keeps."""

    #: What it is -> the bytes to look for.
    texts: dict[str, tuple[bytes, ...]]
    #: Every window of 8 bytes of the records' values in some number format.
    windows: frozenset[bytes]
    #: Labels of 16 rows in a row, as bytes and as float32.
    labels: frozenset[bytes]

    def found_in(self, record: bytes, *, random: bool = True) -> list[str]:
        """What of it is in the record, at any offset; the shortest texts only where no bytes are `random`."""
        starts, needles = self._needles
        shortest = _SHORTEST_AMONG_RANDOM_BYTES if random else _SHORTEST_BYTES
        found = set()
        for place in _places_of(starts, record):
            for needle, what in needles.get(record[place : place + _SHORTEST_BYTES], ()):
                if len(needle) >= shortest and record.startswith(needle, place):
                    found.add(what)
        return sorted(found)

    @functools.cached_property
    def _needles(self) -> tuple[npt.NDArray[np.bool_], dict[bytes, list[tuple[bytes, str]]]]:
        """Which first three bytes any needle has, and by its first five each needle with what to call it."""
        named = [(needle, what) for what, needles in self.texts.items() for needle in needles]
        named += [(window, f"a number: {window.hex()}") for window in self.windows]
        named += [(label, f"labels: {label.hex()}") for label in self.labels]
        starts = np.zeros(1 << 24, dtype=np.bool_)
        needles: dict[bytes, list[tuple[bytes, str]]] = defaultdict(list)
        for needle, what in named:
            assert len(needle) >= _SHORTEST_BYTES, what
            needles[needle[:_SHORTEST_BYTES]].append((needle, what))
            starts[int.from_bytes(needle[:3], "little")] = True
        return starts, dict(needles)


def _places_of(starts: npt.NDArray[np.bool_], record: bytes) -> list[int]:
    """Where in the record the first three bytes of a needle stand."""
    if len(record) < _SHORTEST_BYTES:
        return []
    values = np.frombuffer(record, np.uint8).astype(np.uint32)
    threes = values[:-2] | values[1:-1] << 8 | values[2:] << 16
    places: list[int] = np.flatnonzero(starts[threes]).tolist()
    return places


def secrets_of(home: Home, mapping_file: Path, task: Task, ontology: Ontology) -> Secrets:
    """Everything of an owner's folder and source that must not leave."""
    text = mapping_file.read_text("utf-8")
    mapping = parse_mapping(text, source=str(mapping_file))
    source = mapping_file.parent / mapping.source.path
    cells = read_columns(mapping.source, tuple(column.column for column in mapping.columns), mapping_file.parent)
    names = {column.concept: column.column for column in mapping.columns}
    raw = [cells[names[feature.concept]].to_list() for feature in task.features if feature.concept in names]
    rows = compile_plan(task, mapping, ontology).execute(cells)

    texts: dict[str, Iterable[str | bytes]] = {
        **_names(mapping),
        "line of the mapping": [line.strip() for line in text.splitlines() if len(line.strip()) > 8],
        "line of the policy": [
            line for line in (home.folder / "policy.toml").read_text("utf-8").splitlines() if len(line) > 8
        ],
        "path": [str(home.folder), str(source), str(mapping_file), mapping.source.path, mapping_file.name],
        "raw value as text": {str(cell) for column in raw for cell in column if _is_decimal(str(cell))},
        "hash": [form for digest in _digests(home, source, mapping_file) for form in (digest, bytes.fromhex(digest))],
    }
    return Secrets(
        texts={what: tuple(_encodings(values)) for what, values in texts.items()},
        windows=frozenset(_number_windows(raw, rows.features)),
        labels=frozenset(_label_runs(rows.target)),
    )


def secrets_of_a_refusing_owner(home: Home, mapping_file: Path) -> Secrets:
    """As `secrets_of` for an owner whose plan cannot be compiled: its names, paths and hashes."""
    text = mapping_file.read_text("utf-8")
    mapping = parse_mapping(text, source=str(mapping_file))
    source = mapping_file.parent / mapping.source.path
    texts: dict[str, Iterable[str | bytes]] = {
        **_names(mapping),
        "line of the mapping": [line.strip() for line in text.splitlines() if len(line.strip()) > 8],
        "path": [str(home.folder), str(source), str(mapping_file), mapping.source.path, mapping_file.name],
        "hash": [digest_of(source.read_bytes()), digest_of(mapping_file.read_bytes())],
    }
    return Secrets({what: tuple(_encodings(values)) for what, values in texts.items()}, frozenset(), frozenset())


def windows_of(vector: npt.NDArray[np.float64]) -> Iterator[bytes]:
    """The windows of a vector's values as float64, and of pairs of neighbours as float32."""
    row = vector.reshape(1, -1)
    yield from _windows(row, ("<f8", ">f8"))
    yield from _windows(row, ("<f4", ">f4"))


def _names(mapping: Mapping) -> dict[str, Iterable[str | bytes]]:
    columns = mapping.columns
    return {
        "column's name": [column.column for column in columns],
        "code": [code for column in columns for code in column.codes or {}],
        "approver": {column.approver for column in columns if column.approver},
    }


def _digests(home: Home, source: Path, mapping_file: Path) -> Iterator[str]:
    yield digest_of(source.read_bytes())
    yield digest_of(mapping_file.read_bytes())
    yield digest_of((home.folder / "policy.toml").read_bytes())
    yield from {accepted.plan for accepted in read_jobs(home.jobs).values()}
    for entry in read_ledger(home.ledger, IdentityKey.from_pem(home.identity.read_bytes()).public):
        yield entry.head().digest
        if isinstance(entry, LedgerEntry):
            yield entry.charge.job


def _encodings(values: Iterable[str | bytes]) -> Iterator[bytes]:
    for value in values:
        forms = [value] if isinstance(value, bytes) else []
        if isinstance(value, str):
            for encoding in ("utf-8", "utf-16-le", "utf-16-be", "cp1252"):
                with contextlib.suppress(UnicodeEncodeError):
                    forms.append(value.encode(encoding))
        yield from {form for form in forms if len(form) >= _SHORTEST_BYTES}


def _is_decimal(cell: str) -> bool:
    """True of text that digests in hexadecimal cannot hold."""
    return len(cell) >= _SHORTEST_BYTES and any(mark in cell for mark in ".,")


def _number_windows(raw: list[list[object]], scaled: npt.NDArray[np.float32]) -> Iterator[bytes]:
    values = np.array([[_number(cell) for cell in column] for column in raw]).T  # (rows, columns)
    yield from _windows(values, ("<f8", ">f8"))
    for matrix in (values, scaled.astype(np.float64)):
        for turned in (matrix, matrix.T):
            yield from _windows(turned, ("<f4", ">f4"))
    thousandths, lanes = np.rint(values * _THOUSANDTHS), np.rint(scaled * _LANE)
    for turned in (thousandths, thousandths.T):
        yield from _windows(np.clip(turned, -(2**31), 2**31 - 1), ("<i4", ">i4"))
    for turned in (lanes, lanes.T):
        yield from _windows(turned, ("<i2", ">i2"))


def _windows(matrix: npt.NDArray[np.float64], formats: tuple[str, ...]) -> Iterator[bytes]:
    for number_format in formats:
        flat = np.ascontiguousarray(matrix).astype(number_format).tobytes()
        step = np.dtype(number_format).itemsize
        for start in range(0, len(flat) - _WINDOW + 1, step):
            window = flat[start : start + _WINDOW]
            if len(set(window)) >= _LEAST_VARIETY:
                yield window


def _label_runs(target: npt.NDArray[np.float32]) -> Iterator[bytes]:
    for start in range(len(target) - 15):
        run = target[start : start + 16]
        for number_format in ("u1", "<f4", ">f4"):
            yield run.astype(number_format).tobytes()


def _number(cell: object) -> float:
    try:
        return float(str(cell).replace(",", "."))
    except ValueError:
        return 0.0
