"""An owner's plan: a pure, deterministic list of polars expressions that turns rows into tensors, or refuses.

1. `compile_plan` (in `compiler`) resolves every concept of the task to one approved column, or refuses with a
   machine-readable reason.
2. `Plan.execute` leaves out rows that the task's filters or its split leave out, reads codes, converts units, checks
   the public ranges, refuses rows, imputes and scales to [-1, 1]; a batch of rows at a time.

Only `MatchRefusal` may leave the owner: it names concepts and reasons, never columns, rows, counts or values.
The plan, its digest and its report hold the owner's private mapping and stay.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as AbstractMapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lepton_core.canonical import canonical_json
from lepton_core.errors import DataError, MatchRefusal
from lepton_kg.reading import BATCH_ROWS
from lepton_kg.steps import CodedStep, FeatureStep, FilterStep, TargetStep, columns_of
from lepton_kg.subjects import SplitStep, SubjectStep, number_subjects
from lepton_kg.unknown_codes import CodeCount
from lepton_kg.version import COMPILER_VERSION

#: Largest share of an owner's rows that may be refused before the owner refuses the job.
MAX_REFUSED_FRACTION = 0.2

#: Why a row is refused, most basic first; a row counts under the first reason that holds.
ROW_REASONS = ("SUBJECT_MISSING", "TARGET_MISSING", "UNKNOWN_CODE", "NOT_A_NUMBER", "OUT_OF_RANGE", "MISSING_VALUE")

#: Why a row is none of the task's at all: a filter does not hold, or it is on the other side of the split.
FILTERED, HELD_OUT = "FILTERED", "HELD_OUT"

#: What a frame of rows is given as: whole, or in batches.
Frames = pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]


@dataclass(frozen=True)
class PlanReport:
    """What became of the owner's rows; for the owner's eyes. All rows are the sum of the first four."""

    rows_mapped: int
    rows_refused: int
    #: Rows that the task's filters left out.
    rows_filtered: int
    #: Rows of the other side of the task's split.
    rows_held_out: int
    #: Rows refused by the first reason of `ROW_REASONS` that held; sums to `rows_refused`.
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
    #: (rows,), int64, whose record each row is: numbers from 0 in order of first appearance; None in a plan that asks
    #: for no subjects.
    subjects: npt.NDArray[np.int64] | None
    report: PlanReport


@dataclass(frozen=True)
class Plan:
    """A compiled task: data that says what is computed, and nothing that could do anything else."""

    features: tuple[FeatureStep | CodedStep, ...]
    target: TargetStep
    ontology: str
    filters: tuple[FilterStep, ...] = ()
    subject: SubjectStep | None = None
    split: SplitStep | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The source columns it needs, sorted."""
        read = columns_of(self.features, (self.target,), self.filters)
        return tuple(sorted({*read, *((self.subject.column,) if self.subject is not None else ())}))

    @property
    def width(self) -> int:
        """Numbers a row of the features."""
        return sum(step.width for step in self.features)

    @property
    def rolled_up(self) -> AbstractMapping[str, int]:
        """Concepts that are given by something narrower, with the steps uphill; the others are exact."""
        return {step.concept: step.distance for step in self.features if step.distance}

    def digest(self) -> bytes:
        """SHA-256 of the plan and the compiler's version; 32 bytes; private, for the owner's ledger."""
        return hashlib.sha256(
            b"lepton/plan/v1" + canonical_json({"compiler": COMPILER_VERSION, **asdict(self)})
        ).digest()

    def execute(
        self, frames: Frames, *, max_refused_fraction: float = MAX_REFUSED_FRACTION, held_out: bool = False
    ) -> PreparedData:
        """The rows that can be read with certainty, as tensors; with `held_out` those of the split's other side.

        A row is refused if its subject or target is missing, if a code is unknown, if a value is no number or outside
        the public range, or if a required value is missing. A missing optional value is imputed by the task's rule.

        Raises:
            MatchRefusal: NO_ROWS if none is left, VIOLATIONS if a larger share than allowed is refused, SUBJECT_TWICE.
            DataError: the frame lacks a column of the plan.
        """
        run = _Run(self, held_out=held_out)
        tensors = list(run.batches(frames))
        report = run.report()
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
        features = np.empty((report.rows_mapped, self.width), dtype=np.float32)
        target = np.empty(report.rows_mapped, dtype=np.float32)
        start = 0
        tensors.reverse()
        while tensors:  # A batch is given back as soon as it is copied, so that memory holds the rows once.
            batch = tensors.pop()  # (rows of the batch, width + 1)
            stop = start + len(batch)
            features[start:stop], target[start:stop] = batch[:, :-1], batch[:, -1]
            start = stop
        return PreparedData(features, target, run.subjects(), report)

    def check(self, frames: Frames, *, codes: CodeCount | None = None) -> PlanReport:
        """What would become of the rows, without refusing the whole; `codes` counts those that nobody knows.

        Raises:
            MatchRefusal: SUBJECT_TWICE.
            DataError: the frame lacks a column of the plan.
        """
        run = _Run(self, held_out=False, codes=codes)
        for _ in run.batches(frames):
            pass
        return run.report()

    def reasons(self, frame: pl.DataFrame) -> pl.Series:
        """(rows,), text: why each row gives none of the tensors; null where it does, in the order of `execute`.

        FILTERED, HELD_OUT, or one of `ROW_REASONS`. Whether a subject comes twice is not looked at.

        Raises:
            DataError: the frame lacks a column of the plan.
        """
        return _Run(self, held_out=False).reasons(frame)


class _Run:
    """One pass over the rows, and what it counts."""

    def __init__(self, plan: Plan, *, held_out: bool, codes: CodeCount | None = None) -> None:
        self._codes = codes
        self._plan = plan
        self._held_out = held_out
        self._mapped = self._filtered = self._apart = 0
        self._refused: Counter[str] = Counter()
        self._imputed: Counter[str] = Counter()
        #: Hashes of subjects: of the mapped rows, and of all rows where none may come twice.
        self._of_rows: list[npt.NDArray[np.uint64]] = []
        self._of_all: list[npt.NDArray[np.uint64]] = []

    def batches(self, frames: Frames) -> Iterator[npt.NDArray[np.float32]]:
        """The mapped rows of each batch, (rows, width + 1), the class last."""
        for frame in _sliced(frames):
            mapped = self._map(frame)
            if len(mapped):
                yield mapped
        if self._plan.subject is not None and self._of_all:
            self._plan.subject.require_unique(np.concatenate(self._of_all))

    def report(self) -> PlanReport:
        """What became of the rows so far."""
        return PlanReport(
            rows_mapped=self._mapped,
            rows_refused=sum(self._refused.values()),
            rows_filtered=self._filtered,
            rows_held_out=self._apart,
            refused_by={reason: self._refused[reason] for reason in ROW_REASONS if self._refused[reason]},
            missing_by_concept={
                step.concept: self._imputed[step.concept] for step in self._plan.features if self._imputed[step.concept]
            },
        )

    def subjects(self) -> npt.NDArray[np.int64] | None:
        """Numbers of the mapped rows' subjects."""
        return None if self._plan.subject is None else number_subjects(np.concatenate(self._of_rows))

    def _map(self, frame: pl.DataFrame) -> npt.NDArray[np.float32]:
        plan = self._plan
        self._require_columns(frame)
        if plan.subject is not None and plan.subject.unique:
            self._of_all.append(plan.subject.hashes(frame, plan.subject.present(frame.schema)))
        frame = self._serving(frame)
        if self._codes is not None:
            self._codes.add(frame)
        values, reasons = self._read(frame)
        kept = values.filter(reasons.is_null())
        for (reason,), group in reasons.drop_nulls().to_frame().group_by("reason"):
            self._refused[str(reason)] += group.height
        for index, step in enumerate(plan.features):
            self._imputed[step.concept] += kept[f"v{index}"].null_count() if step.columns else kept.height
        self._mapped += kept.height
        if plan.subject is not None:
            self._of_rows.append(plan.subject.hashes(frame.filter(reasons.is_null()), None))
        places = [
            place.cast(pl.Float32).alias(f"f{index}.{number}")
            for index, step in enumerate(plan.features)
            for number, place in enumerate(step.places(pl.col(f"v{index}")))
        ]
        made = kept.select(*places, pl.col("class").cast(pl.Float32))
        return made.to_numpy(order="c").astype(np.float32, copy=False)

    def reasons(self, frame: pl.DataFrame) -> pl.Series:
        """Why each row is not mapped; null where it is."""
        self._require_columns(frame)
        serves, apart = self._sides(frame)
        told = np.where(serves, HELD_OUT, FILTERED).astype(object)  # (rows,)
        chosen = serves & ~apart
        told[chosen] = self._read(frame.filter(pl.Series(chosen)))[1].to_list()
        return pl.Series("reason", told.tolist(), dtype=pl.String)

    def _require_columns(self, frame: pl.DataFrame) -> None:
        absent = [column for column in self._plan.columns if column not in frame.schema]
        if absent:
            raise DataError(
                "the data lack columns of the plan", expected=", ".join(absent), got=", ".join(frame.schema.names())
            )

    def _serving(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that filters and split let through; the others are counted."""
        if not self._plan.filters and self._plan.split is None:
            return frame
        serves, apart = self._sides(frame)
        self._filtered += int((~serves).sum())
        self._apart += int(apart.sum())
        return frame.filter(pl.Series(serves & ~apart))

    def _sides(self, frame: pl.DataFrame) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(rows,) each: whether all filters hold, and whether a row for which they do is of the split's other side."""
        plan = self._plan
        serves = np.ones(frame.height, dtype=np.bool_)
        for step in plan.filters:
            serves &= frame.select(step.holds(frame.schema).alias("holds"))["holds"].to_numpy()
        if plan.split is None or plan.subject is None:
            return serves, np.zeros_like(serves)
        return serves, serves & (plan.split.held_out(plan.subject.texts(frame)) != self._held_out)

    def _read(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """What the steps read in each row, and the first reason to refuse it, or null."""
        values = frame.lazy().select(self._expressions(frame.schema)).collect()
        return values, values.select(self._reason().alias("reason"))["reason"]

    def _expressions(self, schema: pl.Schema) -> list[pl.Expr]:
        made: list[pl.Expr] = []
        for index, step in enumerate(self._plan.features):
            value, unreadable = step.read(schema)
            made += [value.alias(f"v{index}"), unreadable.alias(f"n{index}")]
        number, missing = self._plan.target.read(schema)
        subject = self._plan.subject
        present = pl.lit(value=True) if subject is None else subject.present(schema)
        # A literal alone would be one row of nothing.
        anchor = pl.col(self._plan.target.column).is_null().alias("anchor")
        return [anchor, *made, number.alias("class"), missing.alias("target_missing"), present.alias("subject")]

    def _reason(self) -> pl.Expr:
        """The first reason of `ROW_REASONS` that holds for a row, or null."""
        steps = list(enumerate(self._plan.features))
        measured = [(index, step) for index, step in steps if isinstance(step, FeatureStep) and step.inputs]
        coded = [index for index, step in steps if isinstance(step, CodedStep) and step.columns]
        needed = [index for index, step in steps if step.required and step.columns]
        never = pl.lit(value=False)
        holds = {
            "SUBJECT_MISSING": ~pl.col("subject"),
            "TARGET_MISSING": pl.col("target_missing"),
            "UNKNOWN_CODE": pl.any_horizontal([pl.col("class").is_null(), *(pl.col(f"n{index}") for index in coded)]),
            "NOT_A_NUMBER": pl.any_horizontal([never, *(pl.col(f"n{index}") for index, _ in measured)]),
            "OUT_OF_RANGE": pl.any_horizontal([never, *(s.outside(pl.col(f"v{i}")) for i, s in measured)]),
            "MISSING_VALUE": pl.any_horizontal([never, *(pl.col(f"v{index}").is_null() for index in needed)]),
        }
        return pl.coalesce(
            [pl.when(holds[reason].fill_null(value=False)).then(pl.lit(reason)) for reason in ROW_REASONS]
        )


def _sliced(frames: Frames) -> Iterator[pl.DataFrame]:
    """Batches of a bounded height."""
    if isinstance(frames, pl.LazyFrame):
        frames = frames.collect()
    for frame in (frames,) if isinstance(frames, pl.DataFrame) else frames:
        yield from frame.iter_slices(BATCH_ROWS) if frame.height > BATCH_ROWS else (frame,)
