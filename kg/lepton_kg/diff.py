"""What changed between two ontology versions, concept by concept and field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from lepton_kg.concept import Concept, Value
from lepton_kg.ontology import Ontology


@dataclass(frozen=True)
class FieldChange:
    """One field of a concept, as text in both versions; empty where it has none."""

    field: str
    old: str
    new: str


@dataclass(frozen=True)
class ConceptChange:
    """A concept that both versions have, and do not describe alike."""

    iri: str
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class OntologyDiff:
    """What the new version has, lacks and says otherwise; concepts sorted by IRI."""

    old: str
    new: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[ConceptChange, ...]
    #: Statements of any vocabulary. Those about blank nodes count as changed where their canonical names moved.
    statements_added: int
    statements_removed: int


def diff(old: Ontology, new: Ontology) -> OntologyDiff:
    """What changed from the old version to the new one."""
    before, after = set(old.canonical.splitlines()), set(new.canonical.splitlines())
    both = sorted(old.concepts.keys() & new.concepts.keys())
    changes = (ConceptChange(iri, _changes(old.concepts[iri], new.concepts[iri])) for iri in both)
    return OntologyDiff(
        old=old.digest,
        new=new.digest,
        added=tuple(sorted(new.concepts.keys() - old.concepts.keys())),
        removed=tuple(sorted(old.concepts.keys() - new.concepts.keys())),
        changed=tuple(change for change in changes if change.fields),
        statements_added=len(after - before),
        statements_removed=len(before - after),
    )


def _changes(old: Concept, new: Concept) -> tuple[FieldChange, ...]:
    names = [field.name for field in dataclasses.fields(Concept)]
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in names)
    return tuple(FieldChange(name, _shown(before), _shown(after)) for name, before, after in pairs if before != after)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{text}@{language}" if language else str(text) for language, text in value.items())
    if isinstance(value, tuple):
        return "; ".join(_shown(item) for item in value)
    if isinstance(value, Value):
        names = ", ".join((*value.labels.values(), *value.synonyms))
        return f"{value.notation or value.iri} ({names})"
    return str(value)
