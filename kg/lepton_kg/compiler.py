"""From a task, an owner's mapping and an ontology to a plan: every concept resolved, or refused for a stable reason.

| the job asks for | the owner's mapping may give |
|---|---|
| a measured concept | its own column; the ontology's formula over others; the nearest narrower concept's column |
| a coded concept | its own column, or the nearest narrower one's; each code's value, or the nearest broader one |
| an optional concept | nothing: every row is imputed by the task's public rule |
"""

from __future__ import annotations

from collections.abc import Collection

from lepton_core.errors import JobError, MatchRefusal, OntologyError, UnitError
from lepton_core.task import ANY_DISTANCE, Task
from lepton_kg.columns import find_column, find_line
from lepton_kg.formulas import DATE, FORMULAS, derivation_of
from lepton_kg.mapping import Column, Mapping
from lepton_kg.ontology import Concept, Ontology
from lepton_kg.plan import Plan
from lepton_kg.steps import CodedStep, FeatureStep, FilterStep, InputStep, TargetStep
from lepton_kg.subjects import SplitStep, SubjectStep
from lepton_kg.task import CodedFeature, CodedTarget, NumericFeature, TaskFilter, resolve_task
from lepton_kg.units import conversion


def compile_plan(task: Task, mapping: Mapping, ontology: Ontology, *, subjects: bool = False) -> Plan:
    """The plan that computes the task from the mapping's source; `subjects` asks that it says whose each row is.

    Raises:
        MatchRefusal: `reason` is one of `resolve_task`'s, or MISSING_CONCEPT, UNAPPROVED_MAPPING, INEXACT_MAPPING,
            AMBIGUOUS_MAPPING, AMBIGUOUS_VALUE, UNIT_MISMATCH, UNKNOWN_VALUE, NO_SUBJECT; `where` names
            the concept. Or MISSING_SUBJECT.
    """
    try:
        resolved = resolve_task(task, ontology)
    except JobError as error:
        raise _as_refusal(error) from None
    if mapping.ontology != ontology.digest:
        raise MatchRefusal(
            "the owner's mapping is for another ontology version",
            where="ontology",
            expected=ontology.digest,
            got="another version",
            hint="the owner checks the mapping against the new version and approves it again",
            reason="ONTOLOGY_MISMATCH",
        )
    if subjects and mapping.subject is None:
        raise MatchRefusal(
            "the owner's mapping does not say whose the rows are",
            expected="a column of subject ids, as the job's privacy.unit is subject",
            got="none",
            hint="the owner names the column under subject in the mapping, and approves it",
            reason="MISSING_SUBJECT",
        )
    if task.split is not None and mapping.subject is None:
        raise MatchRefusal(
            "the job holds subjects out, and the owner's mapping does not say whose record a row is",
            expected="a mapping that names the subject's column",
            got="none",
            hint="the owner adds subject to the mapping and approves it again",
            reason="NO_SUBJECT",
        )
    compiler = _Compiler(mapping, ontology)
    return Plan(
        features=tuple(
            compiler.coded(one) if isinstance(one, CodedFeature) else compiler.measured(one)
            for one in resolved.features
        ),
        target=compiler.target(resolved.target),
        ontology=ontology.digest,
        filters=tuple(compiler.filter(one) for one in resolved.filters),
        # An id is read only where somebody asks whose the rows are.
        subject=_subject_step(mapping) if subjects or task.split is not None else None,
        split=None if task.split is None else SplitStep(task.split.held_out, task.split.seed),
    )


def _subject_step(mapping: Mapping) -> SubjectStep | None:
    named = mapping.subject
    if named is None:
        return None
    return SubjectStep(named.column, tuple(sorted({code.strip() for code in named.missing})), named.unique)


class _Compiler:
    """The steps of one mapping."""

    def __init__(self, mapping: Mapping, ontology: Ontology) -> None:
        self._mapping = mapping
        self._ontology = ontology

    def measured(self, feature: NumericFeature) -> FeatureStep:
        """The step of a measured feature."""
        try:
            inputs, formula, factor = self._inputs(feature)
        except MatchRefusal as refusal:
            if feature.required or refusal.reason in {"UNIT_MISMATCH", "BAD_FORMULA"}:
                raise
            inputs, formula, factor = (), None, 1.0
        return FeatureStep(
            concept=feature.concept.iri,
            inputs=inputs,
            formula=formula,
            factor=factor,
            minimum=feature.minimum,
            maximum=feature.maximum,
            required=feature.required,
            imputed=feature.imputed,
        )

    def coded(self, feature: CodedFeature) -> CodedStep:
        """The step of a coded feature."""
        concept = feature.concept
        try:
            row, distance = find_column(concept.iri, self._mapping, self._ontology, roll_up=feature.roll_up)
        except MatchRefusal:
            if feature.required:
                raise
            return CodedStep(concept.iri, None, (), (), len(feature.values), required=False, imputed=feature.imputed)
        places = {value: place for place, value in enumerate(feature.values)}
        codes: dict[str, tuple[int, ...]] = {}
        for raw, distances in self._values(row, concept).items():
            nearest = _nearest(distances, places, roll_up=feature.roll_up)
            if nearest is None:
                continue
            if len(nearest) > 1 and not feature.multi_hot:
                raise _ambiguous(concept)
            codes[raw] = tuple(sorted(places[value] for value in nearest))
        self._require_codes(codes, concept)
        return CodedStep(
            concept=concept.iri,
            column=row.column,
            missing=_stripped(row),
            codes=tuple(sorted(codes.items())),
            width=len(feature.values),
            required=feature.required,
            imputed=feature.imputed,
            distance=distance,
        )

    def target(self, target: CodedTarget) -> TargetStep:
        """The step of the target; a code without a class refuses its rows."""
        row, _ = find_column(target.concept.iri, self._mapping, self._ontology)
        classes: dict[str, int] = {}
        for raw, distances in self._values(row, target.concept).items():
            nearest = _nearest(distances, target.classes, roll_up=ANY_DISTANCE)
            found = {target.classes[value] for value in nearest or ()}
            if len(found) > 1:
                raise _ambiguous(target.concept)
            if found:
                classes[raw] = found.pop()
        self._require_codes(classes, target.concept)
        return TargetStep(
            concept=target.concept.iri,
            column=row.column,
            missing=_stripped(row),
            classes=tuple(sorted(classes.items())),
        )

    def filter(self, wanted: TaskFilter) -> FilterStep:
        """The step of a filter."""
        concept = wanted.concept
        row, distance = find_column(concept.iri, self._mapping, self._ontology)
        if wanted.values is None:
            step = self._number(row, distance, concept, concept.unit or "1")
            return FilterStep(concept.iri, step, row.column, wanted.minimum, wanted.maximum, ())
        chosen = self._values(row, concept)
        codes = tuple(sorted(raw for raw, distances in chosen.items() if not wanted.values.isdisjoint(distances)))
        return FilterStep(concept.iri, None, row.column, None, None, codes)

    def _inputs(self, feature: NumericFeature) -> tuple[tuple[InputStep, ...], str | None, float]:
        """The columns of a measured concept, the formula over them, and the factor to its unit."""
        concept = feature.concept
        try:
            row, distance = find_column(concept.iri, self._mapping, self._ontology, roll_up=feature.roll_up)
        except MatchRefusal as refusal:
            derived = self._derived(concept, feature.unit)
            if derived is None:
                raise refusal from None
            return derived
        if distance:
            derived = self._derived(concept, feature.unit)
            if derived is not None:
                return derived
        return (self._number(row, distance, concept, feature.unit),), None, 1.0

    def _derived(self, concept: Concept, unit: str) -> tuple[tuple[InputStep, ...], str, float] | None:
        """The formula's inputs, if the ontology has a formula and the owner exact columns for all of them."""
        try:
            derivation = derivation_of(concept.iri, self._ontology)
        except JobError as error:
            raise _as_refusal(error) from None
        if derivation is None:
            return None
        formula = FORMULAS[derivation.formula]
        steps = []
        for iri, wanted in zip(derivation.inputs, formula.inputs.values(), strict=True):
            try:
                row, distance = find_column(iri, self._mapping, self._ontology, roll_up=0)
                given = self._ontology.concept(iri)
            except (MatchRefusal, OntologyError):
                return None
            steps.append(self._day(row, iri) if wanted is None else self._number(row, distance, given, wanted))
        try:
            factor = conversion(formula.unit, unit).a
        except UnitError as error:
            raise MatchRefusal(
                "a formula whose result has another unit than its concept",
                where=concept.iri,
                expected=error.expected,
                got=error.got,
                reason="UNIT_MISMATCH",
            ) from None
        return tuple(steps), derivation.formula, factor

    def _number(self, row: Column, distance: int, concept: Concept, unit: str) -> InputStep:
        a, b = find_line(row, concept, unit, self._mapping, self._ontology)
        missing, decimal = tuple(sorted(row.missing)), self._mapping.source.decimal
        return InputStep(concept.iri, row.column, missing, decimal, a, b, distance)

    def _day(self, row: Column, iri: str) -> InputStep:
        if self._ontology.concept(iri).datatype != DATE:
            raise MatchRefusal(
                "a formula takes a day from a concept that is none",
                where=iri,
                expected="datatype xsd:date",
                got="another",
                reason="BAD_FORMULA",
            )
        missing = tuple(sorted(row.missing))
        decimal = self._mapping.source.decimal
        return InputStep(iri, row.column, missing, decimal, 1.0, 0.0, 0, is_date=True, date_format=row.date_format)

    def _values(self, row: Column, concept: Concept) -> dict[str, dict[str, int]]:
        """Raw code -> its value and all broader ones with their distance; every code is below the value set.

        Raises:
            MatchRefusal: UNKNOWN_VALUE.
        """
        members = {value.iri for value in concept.value_set}
        found: dict[str, dict[str, int]] = {}
        for raw, name in sorted(row.codes.items()):
            iri = self._mapping.iri(name)
            distances = {iri: 0, **self._ontology.ancestors(iri)}
            if members.isdisjoint(distances):
                raise MatchRefusal(
                    "the owner's mapping uses a value that is not in the concept's value set",
                    where=concept.iri,
                    expected=", ".join(sorted(members))[:1000],
                    got="another value",
                    reason="UNKNOWN_VALUE",
                )
            found[raw.strip()] = distances
        return found

    @staticmethod
    def _require_codes(codes: object, concept: Concept) -> None:
        if not codes:
            raise MatchRefusal(
                "the owner's mapping gives no codes for a coded concept",
                where=concept.iri,
                expected="at least one raw code for each value",
                got="none",
                reason="UNKNOWN_VALUE",
            )


def _nearest(distances: dict[str, int], named: Collection[str], *, roll_up: int) -> list[str] | None:
    """The named values nearest above a code's own; none if it is below none; None if they are too far up."""
    above = {value: steps for value, steps in distances.items() if value in named}
    if not above:
        return []
    near = min(above.values())
    return sorted(value for value, steps in above.items() if steps == near) if near <= roll_up else None


def _stripped(row: Column) -> tuple[str, ...]:
    return tuple(sorted({code.strip() for code in row.missing}))


def _ambiguous(concept: Concept) -> MatchRefusal:
    return MatchRefusal(
        "one of the owner's codes is below several of the values that the job tells apart",
        where=concept.iri,
        expected="codes below one value each",
        got="several at the same distance",
        hint='the job takes encoding = "multi-hot" for a feature, or names other values',
        reason="AMBIGUOUS_VALUE",
    )


def _as_refusal(error: JobError) -> MatchRefusal:
    return MatchRefusal(
        error.message,
        where=error.where,
        expected=error.expected,
        got=error.got,
        hint=error.hint,
        reason=error.reason,
    )
