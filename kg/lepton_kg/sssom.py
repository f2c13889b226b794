"""SSSOM TSV of a mapping's concept level, both ways: which column is which concept, how near, why, and by whom.

Source: A Simple Standard for Sharing Ontology Mappings, version 1.0 (mapping-commons): a YAML header in lines that
begin with `#`, then tab-separated slots. A column has no IRI, so it is a literal subject: `subject_label` with
`subject_type` "rdfs literal". Units, codes and the source have no slot there and stay in the YAML; an import merges
into a mapping that has them, or makes proposals that a person completes. Nothing that is imported is approved.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from lepton_core.errors import MappingError
from lepton_core.settings import parse_settings
from lepton_kg.mapping import MAX_BYTES, Mapping
from lepton_kg.ontology import Ontology
from lepton_kg.strict_yaml import parse_strict

_SKOS = "http://www.w3.org/2004/02/skos/core#"
_PREDICATES = {"exact": "skos:exactMatch", "broad": "skos:broadMatch", "narrow": "skos:narrowMatch"}
_PREDICATES |= {"close": "skos:closeMatch"}
_LITERAL = "rdfs literal"
_BY_HAND, _BY_NAME = "semapv:ManualMappingCuration", "semapv:LexicalMatching"
_SLOTS = (
    "subject_label",
    "subject_type",
    "predicate_id",
    "object_id",
    "object_label",
    "mapping_justification",
    "author_label",
    "mapping_date",
    "confidence",
    "comment",
)
_NEEDED = ("predicate_id", "object_id")
_HEADER = """#curie_map:
#  skos: {skos}
#  semapv: https://w3id.org/semapv/vocab/
#mapping_set_id: urn:lepton:mapping:{digest}
#license: https://w3id.org/sssom/license/unspecified
#object_source_version: {digest}
"""


def to_sssom(mapping: Mapping, ontology: Ontology) -> str:
    """The concept level of the mapping as SSSOM TSV; proposed lines are lexical matches, approved ones curated."""
    text = io.StringIO()
    text.write(_HEADER.format(skos=_SKOS, digest=mapping.ontology))
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    # Python 3.11 leaves a carriage return in a cell bare, which is the end of a line to who reads it.
    quoting = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(_SLOTS)
    for column in mapping.columns:
        iri = mapping.iri(column.concept)
        approved = column.status == "approved"
        label = ontology.concepts[iri].label if iri in ontology.concepts else ""
        cells = [
            column.column,
            _LITERAL,
            _PREDICATES[column.predicate],
            iri,
            label,
            _BY_HAND if approved else _BY_NAME,
            column.approver or "",
            column.date.isoformat() if column.date is not None else "",
            "" if column.score is None else repr(column.score),
            column.justification,
        ]
        (quoting if any("\r" in cell for cell in cells) else writer).writerow(cells)
    return text.getvalue()


def from_sssom(text: str, *, source: str, like: Mapping) -> Mapping:
    """The mapping `like` with its concept level replaced by the document's; units and codes stay with their column.

    A line whose concept or predicate is not the one that was approved becomes proposed; an unchanged one keeps its
    approval, though the signature is gone. Columns that the document does not name are left out.

    Raises:
        MappingError: not SSSOM TSV, with its line; a slot that is missing or has no meaning here.
        SettingsError: what comes out is no mapping, such as two lines for one concept.
    """
    if len(text) > MAX_BYTES:
        raise MappingError("a document this large is refused", where=source, expected=f"at most {MAX_BYTES} characters")
    lines = text.removeprefix("\ufeff").split("\n")  # a cell may hold the other signs that Unicode ends lines with
    first = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    # Only those: a column's name may begin with the sign as well.
    header = [line.removeprefix("#").rstrip("\r") for line in lines[:first]]
    prefixes = _prefixes("\n".join(header), source)
    # Quoted cells may hold line ends, so the table is read whole.
    rows = csv.reader(io.StringIO("\n".join(lines[first:]), newline=""), delimiter="\t", strict=True)
    try:
        slots = next(rows, [])
        _require_slots(slots, source, first + 1)
        columns = [
            _column(dict(zip(slots, cells, strict=True)), prefixes, like, f"{source}, line {first + rows.line_num}")
            for cells in _even(rows, len(slots), source, first)
        ]
    except csv.Error as error:
        raise MappingError(
            "a table that is not tab-separated", where=f"{source}, line {first + rows.line_num}", got=str(error)
        ) from None
    document = like.model_dump(exclude={"signature"}) | {"columns": columns}
    return parse_settings(Mapping, document, source=source)


def _prefixes(header: str, source: str) -> dict[str, str]:
    document = parse_strict(header, source=source) if header.strip() else {}
    given = document.get("curie_map") or {}
    if not isinstance(given, dict):
        raise MappingError("a curie_map that is no map", where=source, expected="prefix: IRI")
    return {"skos": _SKOS, **{str(key): str(value) for key, value in given.items()}}


def _require_slots(slots: Sequence[str], source: str, line: int) -> None:
    named = "subject_label" in slots or "subject_id" in slots
    if not named or not set(_NEEDED) <= set(slots) or len(set(slots)) != len(slots):
        raise MappingError(
            "a table without the slots of SSSOM",
            where=f"{source}, line {line}",
            expected="subject_label or subject_id, predicate_id, object_id, each once",
            got=", ".join(slots)[:300] or "nothing",
        )


def _even(rows: Iterable[list[str]], width: int, source: str, first: int) -> Iterable[list[str]]:
    for number, cells in enumerate(rows, first + 2):
        if cells and len(cells) != width:
            raise MappingError(
                "a line with another number of cells than the header",
                where=f"{source}, line {number}",
                expected=f"{width} cells",
                got=f"{len(cells)} cells",
            )
        if cells:
            yield cells


def _column(cells: dict[str, str], prefixes: dict[str, str], like: Mapping, where: str) -> dict[str, Any]:
    name = cells.get("subject_label") or _local(cells.get("subject_id", ""), prefixes)
    concept = _expanded(cells["object_id"], prefixes, where)
    predicate = _expanded(cells["predicate_id"], prefixes, where)
    near = next((key for key, curie in _PREDICATES.items() if predicate == _SKOS + curie.partition(":")[2]), None)
    if near is None or not name:
        raise MappingError(
            "a line that maps no column to a concept",
            where=where,
            expected="a subject_label and " + ", ".join(_PREDICATES.values()),
            got=cells["predicate_id"] if name else "no subject",
        )
    known = next((column for column in like.columns if column.column == name), None)
    read = {"column": name, "concept": concept, "predicate": near, "justification": cells.get("comment", "")}
    read |= {"score": cells["confidence"]} if cells.get("confidence") else {}
    if known is None:
        return read
    if like.iri(known.concept) == concept and known.predicate == near:
        return known.model_dump() | {"justification": read["justification"] or known.justification}
    # Another concept: its units and codes would be of the old one.
    return read | {"missing": known.missing}


def _expanded(curie: str, prefixes: dict[str, str], where: str) -> str:
    if "://" in curie:
        return curie
    prefix, colon, local = curie.partition(":")
    if not colon or prefix not in prefixes:
        raise MappingError(
            "a CURIE whose prefix is not declared",
            where=where,
            expected=f"an IRI, or one of the prefixes {', '.join(sorted(prefixes))}",
            got=curie[:100] or "nothing",
            hint="declare it in curie_map",
        )
    return prefixes[prefix] + local


def _local(curie: str, prefixes: dict[str, str]) -> str:
    """A column named by `prefix:name`, where a tool has given it an id."""
    prefix, _, local = curie.partition(":")
    return local if prefix in prefixes else curie
