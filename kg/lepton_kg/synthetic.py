"""Made-up records for a task, from nothing but its ontology: what a job can be tried on before any site is asked.

Numbers are drawn from the middle of the public ranges, codes from the value sets, and the target from a planted linear
rule over the features with noise, so that a model that learns anything beats chance. Nothing about real records is in
them: an accuracy on them says that the job works, not how good its model will be.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lepton_core.task import Task
from lepton_kg.mapping import Column, Mapping, Source, Subject
from lepton_kg.ontology import Concept, Ontology
from lepton_kg.task import CodedFeature, NumericFeature, ResolvedTask, resolve_task

#: A normal distribution this many times as narrow as the range hardly ever leaves it.
_WIDTHS = 6.0
#: Share of rows in which an optional value is missing.
_MISSING = 0.05
#: Standard deviation of the noise beside the planted rule's unit variance.
_NOISE = 0.3
#: Rows a subject has on average.
_ROWS_A_SUBJECT = 1.25
_DONE = {"status": "approved", "approver": "synthetic", "date": dt.date(1970, 1, 1)}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Synthetic:
    """A site that is made up: its table, and the mapping that goes with it."""

    frame: pl.DataFrame
    mapping: Mapping


def draw_site(task: Task, ontology: Ontology, rows: int, *, site: int, seed: int = 0) -> Synthetic:
    """The table of one site; the planted rule hangs on the seed alone, so that all sites have the same.

    Raises:
        JobError: the task has no meaning in the ontology.
    """
    resolved = resolve_task(task, ontology)
    draw = np.random.default_rng([seed, 1, site])
    columns: dict[str, list[object]] = {}
    lines: list[Column] = []
    scaled: list[Floats] = []
    for number, feature in enumerate(resolved.features):
        name = f"f{number}"
        if isinstance(feature, CodedFeature):
            cells, places = _codes(feature, rows, draw)
            lines.append(_coded(name, feature.concept))
        else:
            cells, places = _numbers(feature, rows, draw)
            lines.append(_measured(name, feature.concept))
        if not feature.required:
            gone = draw.random(rows) < _MISSING
            cells = [None if absent else cell for cell, absent in zip(cells, gone, strict=True)]
        columns[name] = cells
        scaled += places
    columns["y"] = _targets(resolved, np.stack(scaled, axis=1), seed, draw)
    lines.append(_coded("y", resolved.target.concept))
    for number, wanted in enumerate(resolved.filters):
        if any(line.concept == wanted.concept.iri for line in lines):
            continue
        columns[f"w{number}"] = _served(wanted.values, wanted.minimum, wanted.maximum, rows, draw=draw)
        make = _coded if wanted.values is not None else _measured
        lines.append(make(f"w{number}", wanted.concept))
    columns["subject"] = [int(one) for one in draw.integers(0, max(1, int(rows / _ROWS_A_SUBJECT)), rows)]
    mapping = Mapping(
        ontology=ontology.digest,
        source=Source(kind="parquet", path="synthetic.parquet"),
        subject=Subject(column="subject"),
        columns=tuple(lines),
    )
    return Synthetic(pl.DataFrame(columns, strict=False), mapping)


def _measured(name: str, concept: Concept) -> Column:
    return Column.model_validate({"column": name, "concept": concept.iri, "unit": concept.unit, **_DONE})


def _coded(name: str, concept: Concept) -> Column:
    codes = {value.iri: value.iri for value in concept.value_set}
    return Column.model_validate({"column": name, "concept": concept.iri, "codes": codes, **_DONE})


def _numbers(feature: NumericFeature, rows: int, draw: np.random.Generator) -> tuple[list[object], list[Floats]]:
    """Values in the canonical unit, and the same with unit variance."""
    standard = np.clip(draw.standard_normal(rows), -_WIDTHS / 2, _WIDTHS / 2)
    middle, width = (feature.minimum + feature.maximum) / 2, feature.maximum - feature.minimum
    return list((middle + standard * width / _WIDTHS).tolist()), [standard]


def _codes(feature: CodedFeature, rows: int, draw: np.random.Generator) -> tuple[list[object], list[Floats]]:
    known = [value.iri for value in feature.concept.value_set]
    chosen = [known[place] for place in draw.integers(0, len(known), rows)]
    share = 1 / len(known)
    spread = np.sqrt(share * (1 - share))
    return list(chosen), [(np.array([code == value for code in chosen]) - share) / spread for value in feature.values]


def _targets(resolved: ResolvedTask, scaled: Floats, seed: int, draw: np.random.Generator) -> list[object]:
    """Values of the target by the planted rule; each class has about the same share of the rows."""
    classes = sorted(set(resolved.target.classes.values()))
    rule = np.random.default_rng([seed, 0]).standard_normal((scaled.shape[1], len(classes)))
    rule /= np.linalg.norm(rule, axis=0)
    scores = scaled @ rule + _NOISE * draw.standard_normal((len(scaled), len(classes)))
    best = (scores[:, 1] > 0).astype(int) if len(classes) == 2 else scores.argmax(axis=1)
    values = {number: sorted(v for v, of in resolved.target.classes.items() if of == number) for number in classes}
    return [values[classes[number]][0] for number in best.tolist()]


def _served(
    values: frozenset[str] | None, low: float | None, high: float | None, rows: int, *, draw: np.random.Generator
) -> list[object]:
    """Cells that the task's filter lets through."""
    if values is not None:
        known = sorted(values)
        return [known[place] for place in draw.integers(0, len(known), rows)]
    start = low if low is not None else (high or 0.0) - 1.0
    stop = high if high is not None else start + 1.0
    return list(draw.uniform(start, stop, rows).tolist())
