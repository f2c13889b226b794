"""From a task, an owner's mapping and an ontology to tensors: a pure, deterministic list of polars expressions.

1. `compile_plan` resolves every concept of the task to one approved column, or refuses with a machine-readable reason.
2. `Plan.execute` reads codes, converts units, checks the public ranges, refuses rows, imputes and scales to [-1, 1].

Only `MatchRefusal` may leave the owner: it names concepts and reasons, never columns, rows, counts or values.
The plan, its digest and its report hold the owner's private mapping and stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as AbstractMapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lepton_core.canonical import canonical_json
from lepton_core.errors import DataError, JobError, MatchRefusal, UnitError
from lepton_core.job import Task
from lepton_kg.cells import coded, is_missing, numeric
from lepton_kg.mapping import Column, Mapping
from lepton_kg.ontology import Ontology
from lepton_kg.subjects import SUBJECT_MISSING, SubjectStep, subject_step
from lepton_kg.task import CodedTarget, NumericFeature, resolve_task
from lepton_kg.units import conversion
from lepton_kg.version import COMPILER_VERSION

#: Largest share of an owner's rows that may be refused before the owner refuses the job.
MAX_REFUSED_FRACTION = 0.2

#: Why a row is refused, most basic first; a row counts under the first reason that holds.
ROW_REASONS = ("TARGET_MISSING", "UNKNOWN_CODE", "NOT_A_NUMBER", "OUT_OF_RANGE", "MISSING_VALUE")

#: Slack at the ends of a range, as a share of its width: rounding of unit conversion, far below any measurement.
_RANGE_SLACK = 1e-9


@dataclass(frozen=True)
class FeatureStep:
    """How one feature is computed."""

    concept: str
    #: Source column; None if the owner has none and every row is imputed.
    column: str | None
    #: Raw codes that mean "no value".
    missing: tuple[str, ...]
    #: Decimal sign of numbers written as text.
    decimal: str
    #: Canonical value = raw * a + b.
    a: float
    b: float
    #: Public range in the canonical unit; scaled to [-1, 1].
    minimum: float
    maximum: float
    required: bool
    imputed: float


@dataclass(frozen=True)
class TargetStep:
    """How the target is computed."""

    concept: str
    column: str
    missing: tuple[str, ...]
    #: Raw code -> class, sorted by code; rows of other codes are refused.
    classes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PlanReport:
    """What became of the owner's rows; for the owner's eyes, `rows_mapped + rows_refused` is all rows."""

    rows_mapped: int
    rows_refused: int
    #: Rows refused by the first reason of `ROW_REASONS` that held, SUBJECT_MISSING last; sums to `rows_refused`.
    refused_by: AbstractMapping[str, int]
    #: Mapped rows in which the concept was missing and imputed, by IRI; concepts never missing are left out.
    missing_by_concept: AbstractMapping[str, int]


@dataclass(frozen=True)
class PreparedData:
    """An owner's rows as the model sees them, in source order."""

    #: (rows, d), float32, C-contiguous, each in [-1, 1].
    features: npt.NDArray[np.float32]
    #: (rows,), float32, each row's class: a whole number from 0.
    target: npt.NDArray[np.float32]
    report: PlanReport
    #: Whose each row is, (rows,), int64; None in a plan without subjects.
    subjects: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Plan:
    """A compiled task: data that says what is computed, and nothing that could do anything else."""

    features: tuple[FeatureStep, ...]
    target: TargetStep
    ontology: str
    #: Whose each row is; only where the job protects subjects.
    subject: SubjectStep | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The source columns it needs, sorted."""
        needed = {step.column for step in self.features if step.column is not None}
        needed |= {self.subject.column} if self.subject is not None else set()
        return tuple(sorted(needed | {self.target.column}))

    def digest(self) -> bytes:
        """SHA-256 of the plan and the compiler's version; 32 bytes; private, for the owner's ledger."""
        document = {"compiler": COMPILER_VERSION, **asdict(self)}
        return hashlib.sha256(b"lepton/plan/v1" + canonical_json(document)).digest()

    def execute(
        self, frame: pl.DataFrame | pl.LazyFrame, *, max_refused_fraction: float = MAX_REFUSED_FRACTION
    ) -> PreparedData:
        """The rows that can be read with certainty, as tensors.

        A row is refused if its target is missing or of an unknown code, if a value is no number or outside the
        public range, or if a required value is missing; in a plan with subjects, if its subject is missing too. A
        missing optional value is imputed by the task's rule.

        Raises:
            MatchRefusal: NO_ROWS if none is left, VIOLATIONS if a larger share than allowed is refused, SUBJECT_TWICE.
            DataError: the frame lacks a column of the plan.
        """
        tensors, report = self._run(frame)
        rows = report.rows_mapped + report.rows_refused
        if report.rows_refused > max_refused_fraction * rows:
            raise MatchRefusal(
                "too many rows of the data do not fit the job's concepts",
                expected=f"at most {max_refused_fraction:.0%} of the rows refused",
                got="more",
                hint="`lepton mapping check` shows the owner which rules the rows break",
                reason="VIOLATIONS",
            )
        if report.rows_mapped == 0:
            raise MatchRefusal("no row of the data serves the job", expected="at least 1", got="0", reason="NO_ROWS")
        subjects = None
        if self.subject is not None:
            subjects = np.ascontiguousarray(tensors["subject"].to_numpy(), dtype=np.int64)
            tensors = tensors.drop("subject")
        values = np.ascontiguousarray(tensors.to_numpy(), dtype=np.float32)  # (rows, d + 1)
        return PreparedData(
            features=np.ascontiguousarray(values[:, :-1]),
            target=np.ascontiguousarray(values[:, -1]),
            report=report,
            subjects=subjects,
        )

    def check(self, frame: pl.DataFrame | pl.LazyFrame) -> PlanReport:
        """What `execute` would report, whatever the share of refused rows; for the owner's own eyes."""
        return self._run(frame)[1]

    def expressions(self, schema: AbstractMapping[str, pl.DataType]) -> list[pl.Expr]:
        """The plan over a source with these column types.

        Columns `v0..` (canonical value or null) and `n0..` (neither number nor missing) a feature with a column;
        `class` (number or null), `target_missing`.
        """
        found: list[pl.Expr] = []
        for index, step in enumerate(self.features):
            if step.column is None:
                continue
            dtype = schema[step.column]
            raw = numeric(step.column, dtype, decimal=step.decimal, missing=step.missing)
            absent = is_missing(step.column, dtype, decimal=step.decimal, missing=step.missing)
            found.append((raw * step.a + step.b).alias(f"v{index}"))
            found.append((raw.is_null() & ~absent).alias(f"n{index}"))
        code = coded(self.target.column, schema[self.target.column])
        known = dict(self.target.classes)
        missing = code.is_null() | code.is_in(list(self.target.missing))
        found.append(code.replace_strict(known, default=None, return_dtype=pl.Float64).alias("class"))
        found.append(missing.alias("target_missing"))
        if self.subject is not None:
            found += self.subject.expressions(schema)
        return found

    def _run(self, frame: pl.DataFrame | pl.LazyFrame) -> tuple[pl.DataFrame, PlanReport]:
        lazy = frame.lazy()
        schema = lazy.collect_schema()
        absent = [column for column in self.columns if column not in schema]
        if absent:
            raise DataError(
                "the data lack columns of the plan", expected=", ".join(absent), got=", ".join(schema.names())
            )
        values = lazy.select(self.expressions(schema)).collect()
        if self.subject is not None:
            self.subject.require_once(values)
        counts = values.select(self._refused().alias("reason"))["reason"]
        kept = values.filter(counts.is_null())
        told = ["class"] if self.subject is None else ["class", "subject"]
        tensors = kept.select(*(self._scaled(index) for index in range(len(self.features))), *told)
        by_reason = {reason: int((counts == reason).sum()) for reason in (*ROW_REASONS, SUBJECT_MISSING)}
        imputed = {
            step.concept: kept.height if step.column is None else kept[f"v{index}"].null_count()
            for index, step in enumerate(self.features)
        }
        return tensors, PlanReport(
            rows_mapped=kept.height,
            rows_refused=values.height - kept.height,
            refused_by={reason: count for reason, count in by_reason.items() if count},
            missing_by_concept={concept: count for concept, count in imputed.items() if count},
        )

    def _refused(self) -> pl.Expr:
        """The first reason of `ROW_REASONS` that holds for a row, or null."""
        held = [(index, step) for index, step in enumerate(self.features) if step.column is not None]
        outside = [
            (pl.col(f"v{index}") < step.minimum - _RANGE_SLACK * (step.maximum - step.minimum))
            | (pl.col(f"v{index}") > step.maximum + _RANGE_SLACK * (step.maximum - step.minimum))
            for index, step in held
        ]
        holds = {
            "TARGET_MISSING": pl.col("target_missing"),
            "UNKNOWN_CODE": pl.col("class").is_null(),
            "NOT_A_NUMBER": pl.any_horizontal([pl.lit(value=False), *(pl.col(f"n{index}") for index, _ in held)]),
            "OUT_OF_RANGE": pl.any_horizontal([pl.lit(value=False), *outside]).fill_null(value=False),
            "MISSING_VALUE": pl.any_horizontal(
                [pl.lit(value=False), *(pl.col(f"v{index}").is_null() for index, step in held if step.required)]
            ),
        }
        if self.subject is not None:
            holds[SUBJECT_MISSING] = pl.col("subject").is_null()
        return pl.coalesce([pl.when(broken).then(pl.lit(reason)) for reason, broken in holds.items()])

    def _scaled(self, index: int) -> pl.Expr:
        step = self.features[index]
        middle, half = (step.minimum + step.maximum) / 2, (step.maximum - step.minimum) / 2
        value = pl.lit(step.imputed) if step.column is None else pl.col(f"v{index}").fill_null(step.imputed)
        return ((value - middle) / half).clip(-1.0, 1.0).alias(f"f{index}")


def compile_plan(task: Task, mapping: Mapping, ontology: Ontology, *, subjects: bool = False) -> Plan:
    """The plan that computes the task from the mapping's source; with `subjects`, whose each row is as well.

    A column of the concept itself is preferred; else the nearest narrower concept is rolled up to the one asked for.

    Raises:
        MatchRefusal: `reason` is one of `resolve_task`'s, or MISSING_CONCEPT, UNAPPROVED_MAPPING, INEXACT_MAPPING,
            AMBIGUOUS_MAPPING, UNIT_MISMATCH, UNKNOWN_VALUE; `where` names the concept. Or MISSING_SUBJECT.
    """
    try:
        resolved = resolve_task(task, ontology)
    except JobError as error:
        raise MatchRefusal(
            error.message,
            where=error.where,
            expected=error.expected,
            got=error.got,
            hint=error.hint,
            reason=error.reason,
        ) from None
    if mapping.ontology != ontology.digest:
        raise MatchRefusal(
            "the owner's mapping is for another ontology version",
            where="ontology",
            expected=ontology.digest,
            got="another version",
            hint="the owner checks the mapping against the new version and approves it again",
            reason="ONTOLOGY_MISMATCH",
        )
    return Plan(
        features=tuple(_feature_step(feature, mapping, ontology) for feature in resolved.features),
        target=_target_step(resolved.target, mapping, ontology),
        ontology=ontology.digest,
        subject=subject_step(mapping) if subjects else None,
    )


def _feature_step(feature: NumericFeature, mapping: Mapping, ontology: Ontology) -> FeatureStep:
    try:
        row = _find_column(feature.concept.iri, mapping, ontology)
    except MatchRefusal:
        if feature.required:
            raise
        row = None
    line = (1.0, 0.0) if row is None else _line(row, feature)
    return FeatureStep(
        concept=feature.concept.iri,
        column=None if row is None else row.column,
        missing=() if row is None else tuple(sorted(row.missing)),
        decimal=mapping.source.decimal,
        a=line[0],
        b=line[1],
        minimum=feature.minimum,
        maximum=feature.maximum,
        required=feature.required,
        imputed=feature.imputed,
    )


def _line(row: Column, feature: NumericFeature) -> tuple[float, float]:
    if row.unit is None:
        raise MatchRefusal(
            "the owner's mapping gives no unit for a measured concept",
            where=feature.concept.iri,
            expected=f'a unit of {feature.concept.quantity_kind} ("1" if it has none)',
            got="none",
            reason="UNIT_MISMATCH",
        )
    try:
        found = conversion(row.unit, feature.unit, molar_mass_g_per_mol=feature.concept.molar_mass_g_per_mol)
    except UnitError as error:
        raise MatchRefusal(
            "the owner's unit does not convert to the concept's",
            where=feature.concept.iri,
            expected=error.expected,
            got=error.got,
            hint="the owner corrects the unit in the mapping",
            reason="UNIT_MISMATCH",
        ) from None
    return found.a, found.b


def _target_step(target: CodedTarget, mapping: Mapping, ontology: Ontology) -> TargetStep:
    row = _find_column(target.concept.iri, mapping, ontology)
    members = {value.iri for value in target.concept.value_set}
    classes: dict[str, int] = {}
    for raw, name in sorted(row.codes.items()):
        iri = mapping.iri(name)
        distances = {iri: 0, **ontology.ancestors(iri)}
        if members.isdisjoint(distances):
            raise MatchRefusal(
                "the owner's mapping uses a value that is not in the target's value set",
                where=target.concept.iri,
                expected=", ".join(sorted(members))[:1000],
                got="another value",
                reason="UNKNOWN_VALUE",
            )
        # A narrower value is rolled up to the nearest one that has a class; a code without a class refuses its rows.
        rolled_up = (value for value in target.classes if value in distances)
        nearest = min(rolled_up, key=lambda value: (distances[value], value), default=None)
        if nearest is not None:
            classes[raw.strip()] = target.classes[nearest]
    if not classes:
        raise MatchRefusal(
            "the owner's mapping gives no codes for the target",
            where=target.concept.iri,
            expected="at least one raw code for each value",
            got="none",
            reason="UNKNOWN_VALUE",
        )
    return TargetStep(
        concept=target.concept.iri,
        column=row.column,
        missing=tuple(sorted({code.strip() for code in row.missing})),
        classes=tuple(sorted(classes.items())),
    )


def _find_column(iri: str, mapping: Mapping, ontology: Ontology) -> Column:
    """The one approved column that gives the concept: its own, or the nearest narrower concept's."""
    candidates: list[tuple[int, Column]] = []
    for row in mapping.columns:
        mapped = mapping.iri(row.concept)
        distance = 0 if mapped == iri else ontology.ancestors(mapped).get(iri)
        if distance is not None:
            candidates.append((distance, row))
    if not candidates:
        raise MatchRefusal(
            "the owner's data have no such concept",
            where=iri,
            hint="the owner maps and approves a column for it, or the job makes it optional",
            reason="MISSING_CONCEPT",
        )
    fitting = [(distance, row) for distance, row in candidates if row.predicate in {"exact", "broad"}]
    if not fitting:
        raise MatchRefusal(
            "the owner's column only comes near the concept",
            where=iri,
            expected="a match that is exact, or to a broader concept",
            got="narrow or close",
            reason="INEXACT_MAPPING",
        )
    approved = [(distance, row) for distance, row in fitting if row.status == "approved"]
    if not approved:
        raise MatchRefusal(
            "the owner has not approved the mapping of this concept",
            where=iri,
            hint="the owner runs `lepton mapping approve`",
            reason="UNAPPROVED_MAPPING",
        )
    nearest = min(distance for distance, _ in approved)
    rows = [row for distance, row in approved if distance == nearest]
    if len(rows) > 1:
        raise MatchRefusal(
            "more than one of the owner's columns gives this concept",
            where=iri,
            expected="one column, or one for the concept itself",
            got="several narrower concepts at the same distance",
            reason="AMBIGUOUS_MAPPING",
        )
    return rows[0]
