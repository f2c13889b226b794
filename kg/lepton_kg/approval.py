"""A mapping's approval: by whom, signed with the owner's identity, and what ends it.

An approval holds for the mapping's every word, for the source's columns and types, and for what the mapped concepts
mean. Whatever of these changes ends it, and the difference is told in words.
"""

from __future__ import annotations

import datetime as dt
import difflib
import hmac
from collections.abc import Collection
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass
from typing import Any

from lepton_core.errors import IdentityError, MappingError, UnitError
from lepton_core.identity import IdentityKey, require_signature
from lepton_core.ids import Digest, digest_of
from lepton_core.settings import parse_settings
from lepton_kg.mapping import Column, Line, Mapping, Schema, Signature, fingerprint
from lepton_kg.ontology import Concept, Ontology
from lepton_kg.units import conversion

#: Largest relative difference of a stored conversion from what its units say: they are written in 17 digits.
_AGREEMENT = 1e-9
#: Longest meaning that is stored word by word; of a longer one the rest is a hash.
_LONGEST_MEANING = 800


@dataclass(frozen=True)
class Renewal:
    """A mapping taken to a changed source or ontology version."""

    mapping: Mapping
    #: What has changed, one line each; empty if nothing has.
    differences: tuple[str, ...]
    #: Columns whose approval ended.
    unapproved: tuple[str, ...]


def approve(
    mapping: Mapping,
    *,
    approver: str,
    date: dt.date,
    schema: Schema,
    ontology: Ontology | None = None,
    key: IdentityKey | None = None,
    only: Collection[str] | None = None,
) -> Mapping:
    """The mapping with every column approved by that person on that day, for a source of that schema.

    With `only` those columns alone are; the others stay as they are and are signed with the rest. With the ontology
    the conversions and the concepts' meanings are stored as well; with the key it is signed.

    Raises:
        MappingError: a mapped column is not in the source.
        UnitError, OntologyError: a unit or a concept that is not the ontology's.
    """
    wanted = [column.column for column in mapping.columns]
    wanted += [mapping.subject.column] if mapping.subject is not None else []
    absent = [name for name in wanted if name not in schema]
    if absent:
        raise MappingError(
            "mapped columns that the source does not have",
            where=mapping.source.shown,
            expected=", ".join(sorted(schema)),
            got=", ".join(absent),
            reason="MISSING_COLUMN",
        )
    document = mapping.model_dump(exclude={"signature"})
    for row, column in zip(document["columns"], mapping.columns, strict=True):
        if only is not None and column.column not in only:
            continue
        row.update(status="approved", approver=approver, date=date)
        if ontology is not None:
            line = line_of(column, ontology.concept(mapping.iri(column.concept)))
            row["conversion"] = None if line is None else {"a": line.a, "b": line.b}
    document.update(source_schema=dict(schema), schema_fingerprint=fingerprint(schema))
    if ontology is not None:
        document["meanings"] = _meanings(mapping, ontology)
    approved = parse_settings(Mapping, document, source="approval")
    if key is None:
        return approved
    signature = Signature(identity=key.public.hex(), signature=key.sign(approved.signed_bytes()).hex())
    return approved.model_copy(update={"signature": signature})


def line_of(column: Column, concept: Concept) -> Line | None:
    """The conversion of a column to the concept's unit, as stored or else as its units say; None if not measured.

    Raises:
        UnitError: the unit does not convert, or the stored conversion is another than the unit's.
    """
    if column.unit is None or concept.unit is None:
        return column.conversion
    found = conversion(column.unit, concept.unit, molar_mass_g_per_mol=concept.molar_mass_g_per_mol)
    stored = column.conversion
    if stored is not None:
        near = abs(stored.a - found.a) <= _AGREEMENT * abs(found.a)
        if not near or abs(stored.b - found.b) > _AGREEMENT * max(1.0, abs(found.b)):
            raise UnitError(
                "a stored conversion that is not the units' own",
                where=concept.iri,
                expected=f"a = {found.a:.17g}, b = {found.b:.17g} from {column.unit} to {concept.unit}",
                got=f"a = {stored.a:.17g}, b = {stored.b:.17g}",
                hint="leave the conversion out, or leave the unit out if the column has one of its own",
                reason="UNIT_MISMATCH",
            )
    return Line(a=found.a, b=found.b)


def require_signed(mapping: Mapping, identity: bytes) -> None:
    """Nothing, if the holder of this identity key has signed exactly this mapping.

    Raises:
        MappingError: nobody has signed it, or somebody else.
        IdentityError: it was changed after it was signed.
    """
    hint = "run `lepton mapping approve` with --client FOLDER"
    if mapping.signature is None:
        raise MappingError(
            "a mapping that is approved but not signed", where="signature", hint=hint, reason="UNSIGNED_MAPPING"
        )
    if not hmac.compare_digest(mapping.signature.identity, identity.hex()):
        raise MappingError(
            "a mapping signed by another identity",
            where="signature.identity",
            expected=identity.hex(),
            got=mapping.signature.identity,
            hint=hint,
            reason="UNSIGNED_MAPPING",
        )
    signature = bytes.fromhex(mapping.signature.signature)
    try:
        require_signature(identity, signature, mapping.signed_bytes(), who="signature", what="mapping")
    except IdentityError as error:
        raise IdentityError(
            "a mapping that was changed after it was approved",
            where=error.where,
            expected=error.expected,
            got=error.got,
            hint="read it again and run `lepton mapping approve`",
            reason=error.reason,
        ) from None


def require_current(mapping: Mapping, ontology: Digest, schema: Schema) -> None:
    """Nothing, if the approval holds for this ontology version and for the source as it is now.

    Raises:
        MappingError: approved for another ontology version or source schema, or never; tells the difference.
    """
    if not hmac.compare_digest(mapping.ontology, ontology):
        raise MappingError(
            "a mapping for another ontology version",
            where="ontology",
            expected=ontology,
            got=mapping.ontology,
            hint="`lepton mapping renew` takes it to the new version and tells what changed; then approve it again",
            reason="ONTOLOGY_MISMATCH",
        )
    if mapping.source_schema is None:
        raise MappingError(
            "a mapping that nobody has approved for its source",
            where="schema_fingerprint",
            hint="run `lepton mapping approve`",
            reason="UNAPPROVED_MAPPING",
        )
    if mapping.schema_fingerprint != fingerprint(schema):
        raise MappingError(
            "the source's columns have changed since the mapping was approved",
            where=mapping.source.shown,
            expected="the columns that were approved",
            got="; ".join(schema_differences(mapping.source_schema, schema).values()),
            hint="check the mapping and run `lepton mapping approve` again; `lepton mapping renew` tells which lines",
            reason="SCHEMA_CHANGED",
        )


def renew(mapping: Mapping, ontology: Ontology, schema: Schema) -> Renewal:
    """The mapping for this ontology version and this source, without the approval of what has changed.

    A line keeps its approval if its column is there as before and its concept means what it meant. The signature goes
    with any change: it is for the whole. Nothing is approved here.
    """
    lines: dict[str, str] = {}
    if mapping.source_schema is not None:
        lines |= schema_differences(mapping.source_schema, schema)
    concepts = _meaning_differences(mapping, ontology)
    if not lines and not concepts and mapping.ontology == ontology.digest:
        return Renewal(mapping, (), ())
    touched = [
        column.column
        for column in mapping.columns
        if column.column in lines or column.column not in schema or mapping.iri(column.concept) in concepts
    ]
    document: dict[str, Any] = mapping.model_dump(exclude={"signature", "source_schema", "schema_fingerprint"})
    document |= {"ontology": ontology.digest, "meanings": None}
    for row in document["columns"]:
        if row["column"] in touched:
            row.update(
                status="proposed", approver=None, date=None, conversion=None if row["unit"] else row["conversion"]
            )
    unapproved = tuple(
        column.column for column in mapping.columns if column.column in touched and column.status == "approved"
    )
    differences = [*lines.values(), *concepts.values()]
    if mapping.ontology != ontology.digest and not concepts:
        differences.append(f"the ontology is another version ({ontology.digest[:12]}); no mapped concept has changed")
    return Renewal(parse_settings(Mapping, document, source="renewal"), tuple(differences), unapproved)


def meaning_of(concept: Concept) -> str:
    """What a concept means to a mapping, in one line: equal lines, equal meaning of numbers and codes."""
    parts = [concept.label]
    if concept.datatype is not None:
        parts.append(concept.datatype.rpartition("#")[2])
    if concept.unit is not None:
        parts.append(f"in {concept.unit}")
    if concept.plausible_minimum is not None and concept.plausible_maximum is not None:
        parts.append(f"{concept.plausible_minimum:g} to {concept.plausible_maximum:g}")
    if concept.molar_mass_g_per_mol is not None:
        parts.append(f"{concept.molar_mass_g_per_mol:g} g/mol")
    if concept.value_set:
        parts.append("one of " + ", ".join(sorted(value.iri for value in concept.value_set)))
    if concept.broader:
        parts.append("below " + ", ".join(concept.broader))
    line = "; ".join(parts)
    if len(line) <= _LONGEST_MEANING:
        return line
    return f"{line[:_LONGEST_MEANING]}… ({digest_of(line.encode())[:16]})"


def schema_differences(before: Schema, now: Schema) -> dict[str, str]:
    """What has changed of a source's columns, in words, by column."""
    lines = {name: f"{name!r} is gone" + _rename_hint(name, before, now) for name in before if name not in now}
    lines |= {name: f"{name!r} is new" for name in now if name not in before}
    lines |= {
        name: f"{name!r} was {before[name]}, is {now[name]}"
        for name in before
        if name in now and now[name] != before[name]
    }
    return lines


def _meanings(mapping: Mapping, ontology: Ontology) -> dict[str, str]:
    iris = (mapping.iri(column.concept) for column in mapping.columns)
    return {iri: meaning_of(ontology.concept(iri)) for iri in iris}


def _meaning_differences(mapping: Mapping, ontology: Ontology) -> dict[str, str]:
    """What has changed of the mapped concepts, in words, by IRI; any may have, if their meanings are not stored."""
    known: AbstractMapping[str, str] = mapping.meanings or {}
    lines: dict[str, str] = {}
    for iri in (mapping.iri(column.concept) for column in mapping.columns):
        now = meaning_of(ontology.concepts[iri]) if iri in ontology.concepts else None
        if now is None:
            lines[iri] = f"{iri} is gone"
        elif iri in known and known[iri] != now:
            lines[iri] = f"{iri} was {known[iri]!r}, is {now!r}"
        elif iri not in known and mapping.ontology != ontology.digest:
            lines[iri] = f"{iri} may have changed: the mapping does not say what it meant"
    return lines


def _rename_hint(name: str, before: Schema, now: Schema) -> str:
    close = difflib.get_close_matches(name, [other for other in now if other not in before], n=1)
    return f" (renamed to {close[0]!r}?)" if close else ""
