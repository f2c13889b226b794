"""A job's task against its ontology version: every named concept found, numeric, ranged, and in a unit that converts.

Submitting a job and compiling an owner's plan ask the same questions here; this needs no polars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lepton_core.errors import JobError, OntologyError, UnitError
from lepton_core.task import ANY_DISTANCE, Feature, Filter, Target, Task
from lepton_kg.formulas import derivation_of
from lepton_kg.ontology import Concept, Ontology
from lepton_kg.units import conversion


@dataclass(frozen=True)
class NumericFeature:
    """One feature as everybody in the job computes it: (value - middle) / half of the public range."""

    concept: Concept
    #: The concept's canonical unit; `minimum` and `maximum` are in it.
    unit: str
    minimum: float
    maximum: float
    required: bool
    #: Public value that stands in for a missing one.
    imputed: float
    #: Most steps that a narrower concept may be rolled up.
    roll_up: int = ANY_DISTANCE


@dataclass(frozen=True)
class CodedFeature:
    """A coded feature as everybody in the job computes it: one place a value, 1 for yes and -1 for no."""

    concept: Concept
    #: IRIs of the values, in the order of their places.
    values: tuple[str, ...]
    multi_hot: bool
    required: bool
    #: In every place of a row without a code.
    imputed: float
    roll_up: int = ANY_DISTANCE


@dataclass(frozen=True)
class TaskFilter:
    """Which records serve the task."""

    concept: Concept
    minimum: float | None
    maximum: float | None
    #: IRIs; None for a range.
    values: frozenset[str] | None


@dataclass(frozen=True)
class CodedTarget:
    """The target as everybody in the job codes it."""

    concept: Concept
    #: Value's IRI -> class. With a positive value every other value of the value set is class 0; with classes the
    #: values that are not named have none.
    classes: Mapping[str, int]


@dataclass(frozen=True)
class ResolvedTask:
    """A task whose every word has a meaning in the ontology."""

    features: tuple[NumericFeature | CodedFeature, ...]
    target: CodedTarget
    filters: tuple[TaskFilter, ...] = ()


def resolve_task(task: Task, ontology: Ontology) -> ResolvedTask:
    """The task's features and target in the ontology.

    Raises:
        JobError: `reason` is ONTOLOGY_MISMATCH, UNKNOWN_CONCEPT, NOT_NUMERIC, NO_PLAUSIBLE_RANGE, UNIT_MISMATCH,
            NOT_CODED, UNKNOWN_VALUE or BAD_FORMULA; `where` names the concept.
    """
    if task.ontology != ontology.digest:
        raise JobError(
            "the job names another ontology version",
            where="task.ontology",
            expected=ontology.digest,
            got=task.ontology,
            hint="publish that version, or name this one in the job",
            reason="ONTOLOGY_MISMATCH",
        )
    return ResolvedTask(
        features=tuple(_resolve_feature(feature, task, ontology) for feature in task.features),
        target=_resolve_target(task.target, task, ontology),
        filters=tuple(_resolve_filter(one, task, ontology) for one in task.filters),
    )


def _resolve_feature(feature: Feature, task: Task, ontology: Ontology) -> NumericFeature | CodedFeature:
    concept = _find(task.iri(feature.concept), ontology)
    if concept.value_set or feature.values is not None:
        return _resolve_coded(feature, concept, task)
    if not concept.is_numeric or concept.unit is None:
        raise JobError(
            "a feature whose concept is not numeric",
            where=concept.iri,
            expected="a concept with a numeric datatype and a unit",
            got=concept.datatype or "no datatype",
            hint=_numeric_hint(concept, ontology.concepts),
            reason="NOT_NUMERIC",
        )
    minimum, maximum = concept.plausible_minimum, concept.plausible_maximum
    if minimum is None or maximum is None:
        raise JobError(
            "a feature whose concept has no public plausible range",
            where=concept.iri,
            expected="plausibleMinimum and plausibleMaximum",
            hint="add them to the ontology and publish the new version",
            reason="NO_PLAUSIBLE_RANGE",
        )
    if feature.unit is not None:
        try:
            conversion(feature.unit, concept.unit, molar_mass_g_per_mol=concept.molar_mass_g_per_mol)
        except UnitError as error:
            raise JobError(
                f"a feature in a unit that its concept does not have: {error.message}",
                where=concept.iri,
                expected=error.expected,
                got=error.got,
                hint=f"leave the unit out to take the concept's own, {concept.unit}",
                reason="UNIT_MISMATCH",
            ) from None
    imputed = minimum if feature.impute == "minimum" else (minimum + maximum) / 2
    derivation_of(concept.iri, ontology)
    return NumericFeature(concept, concept.unit, minimum, maximum, feature.required, imputed, feature.roll_up)


def _resolve_coded(feature: Feature, concept: Concept, task: Task) -> CodedFeature:
    if feature.values is None:
        raise JobError(
            "a coded feature whose values the job does not name",
            where=concept.iri,
            expected="values, one place each",
            hint="values = [" + ", ".join(f'"{value.iri}"' for value in concept.value_set)[:500] + "]",
            reason="NOT_NUMERIC",
        )
    named = tuple(task.iri(value) for value in feature.values)
    _require_values(named, concept, "correct the feature's values")
    imputed = -1.0 if feature.impute == "minimum" else 0.0
    return CodedFeature(concept, named, feature.encoding == "multi-hot", feature.required, imputed, feature.roll_up)


def _resolve_filter(wanted: Filter, task: Task, ontology: Ontology) -> TaskFilter:
    concept = _find(task.iri(wanted.concept), ontology)
    if wanted.values is None:
        if not concept.is_numeric or concept.unit is None:
            raise JobError(
                "a range of a concept that is not numeric",
                where=concept.iri,
                expected="values, or a concept with a numeric datatype and a unit",
                got=concept.datatype or "no datatype",
                hint="correct task.filters",
                reason="NOT_NUMERIC",
            )
        return TaskFilter(concept, wanted.minimum, wanted.maximum, None)
    named = tuple(task.iri(value) for value in wanted.values)
    _require_values(named, concept, "correct task.filters")
    return TaskFilter(concept, None, None, frozenset(named))


def _require_values(named: Sequence[str], concept: Concept, hint: str) -> None:
    if not concept.value_set:
        raise JobError(
            "values of a concept that has no value set",
            where=concept.iri,
            expected="a coded concept",
            hint=hint,
            reason="NOT_CODED",
        )
    known = [value.iri for value in concept.value_set]
    unknown = [iri for iri in named if iri not in known]
    if unknown:
        raise JobError(
            "a value that is not in the concept's value set",
            where=concept.iri,
            expected=", ".join(known)[:1000],
            got=", ".join(unknown)[:1000],
            hint=hint,
            reason="UNKNOWN_VALUE",
        )


def _resolve_target(target: Target, task: Task, ontology: Ontology) -> CodedTarget:
    concept = _find(task.iri(target.concept), ontology)
    named = [task.iri(value) for value in target.values]
    hint = "correct task.target.classes" if target.classes is not None else "correct task.target.positive"
    _require_values(named, concept, hint)
    known = [value.iri for value in concept.value_set]
    if target.classes is not None:
        return CodedTarget(concept, {iri: index for index, iri in enumerate(named)})
    return CodedTarget(concept, {iri: int(iri == named[0]) for iri in known})


def _find(iri: str, ontology: Ontology) -> Concept:
    try:
        return ontology.concept(iri)
    except OntologyError as error:
        raise JobError(
            "the job asks for a concept that the ontology does not have",
            where=error.where,
            expected=f"a concept of ontology version {ontology.digest[:16]}",
            got=error.got,
            hint=error.hint,
            reason="UNKNOWN_CONCEPT",
        ) from None


def _numeric_hint(concept: Concept, concepts: Mapping[str, Concept]) -> str:
    narrower = sorted(iri for iri, other in concepts.items() if concept.iri in other.broader and other.is_numeric)
    return f"numeric concepts below it: {', '.join(narrower[:5])}" if narrower else ""
