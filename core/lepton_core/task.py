"""A job's task: ordered features and a target, all concepts of one ontology version, and which records serve it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_core.ids import DIGEST_PATTERN
from lepton_core.settings import Settings

#: IRI of a concept, or its local name within the task's vocabulary.
ConceptName = Annotated[str, Field(min_length=1, max_length=300)]
#: A value of a coded concept: local name or IRI in its value set.
ValueName = Annotated[str, Field(min_length=1, max_length=300)]

#: More steps than any closure has on its way up.
ANY_DISTANCE = 64


class Feature(Settings):
    """One input of the model: a measured concept scaled by its public plausible range, or a coded one in 0/1 places."""

    concept: ConceptName
    #: UCUM unit the model sees before scaling; None takes the concept's canonical unit.
    unit: str | None = None
    #: An owner without a required concept is refused; an optional one is imputed.
    required: bool = True
    #: Public rule for missing values: the middle of the plausible range, or its lower end; of a coded concept neither
    #: yes nor no in every place, or no in every place.
    impute: Literal["midpoint", "minimum"] = "midpoint"
    #: Of a coded concept: one place a value, in this order; other values of its value set are no in every place.
    values: tuple[ValueName, ...] | None = Field(default=None, min_length=1, max_length=1_000)
    #: Of a coded concept: exactly one place is yes, or as many as a value has nearest broader values here. With
    #: `one-hot` a code below two of the values is refused.
    encoding: Literal["one-hot", "multi-hot"] = "one-hot"
    #: Most steps that an owner's narrower concept, or value, may be rolled up; 0 takes exact ones only.
    roll_up: int = Field(default=ANY_DISTANCE, ge=0, le=ANY_DISTANCE)

    @property
    def width(self) -> int:
        """Numbers a row that the model sees of it."""
        return 1 if self.values is None else len(self.values)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.values is None and self.encoding != "one-hot":
            raise ValueError("encoding is for a coded concept; name its values, or leave it out")
        if self.values is not None and self.unit is not None:
            raise ValueError("a feature has a unit or values, not both")
        return self


class Target(Settings):
    """What the model predicts: a coded concept, either whether it is `positive`, or which of `classes` it is."""

    concept: ConceptName
    #: The value that is class 1; all other known values are class 0.
    positive: ValueName | None = None
    #: Or one class a value, numbered from 0 in this order; rows of other values are refused.
    classes: tuple[ValueName, ...] | None = Field(default=None, min_length=2, max_length=1_000)

    @property
    def values(self) -> tuple[str, ...]:
        """The values named."""
        return self.classes if self.classes is not None else tuple(filter(None, (self.positive,)))

    @property
    def class_count(self) -> int:
        """Number of classes, at least 2."""
        return 2 if self.classes is None else len(self.classes)

    @property
    def outputs(self) -> int:
        """Logits a row: one for `positive`, else one a class."""
        return 1 if self.classes is None else len(self.classes)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.positive is None) == (self.classes is None):
            raise ValueError("give either positive (one value against all others) or classes (one class a value)")
        return self


class Filter(Settings):
    """Which records serve the task, by a concept: a range in its canonical unit, or some of its values."""

    concept: ConceptName
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[ValueName, ...] | None = Field(default=None, min_length=1, max_length=1_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        ranged = self.minimum is not None or self.maximum is not None
        if ranged == (self.values is not None):
            raise ValueError("give either a range (minimum, maximum or both) or values")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self


class Split(Settings):
    """Keeps a share of the subjects out of training; all records of a subject are on one side, in every job alike."""

    #: Share of subjects held out.
    held_out: float = Field(gt=0.0, lt=1.0)
    #: Public key of the hash that decides; another seed holds out other subjects.
    seed: int = Field(default=0, ge=0, lt=2**53)


class Task(Settings):
    """Ordered features and the target, all concepts of one published ontology version."""

    #: SHA-256 (hex) of the ontology version's canonical N-Quads.
    ontology: str = Field(pattern=DIGEST_PATTERN)
    #: IRI prefix that local concept names are resolved against.
    vocabulary: str = Field(min_length=1, max_length=300)
    features: tuple[Feature, ...] = Field(min_length=1, max_length=10_000)
    target: Target
    #: A record serves the task if every one of these holds; one without the value does not.
    filters: tuple[Filter, ...] = Field(default=(), max_length=100)
    #: None trains on all records.
    split: Split | None = None

    def iri(self, name: str) -> str:
        """The full IRI of a concept or value named in this task."""
        return name if "://" in name else self.vocabulary + name

    @property
    def width(self) -> int:
        """Numbers a row that the model sees."""
        return sum(feature.width for feature in self.features)

    @property
    def concepts(self) -> tuple[str, ...]:
        """IRIs of all concepts it asks for, each once: features in order, the target, then those of the filters."""
        names = (*(feature.concept for feature in self.features), self.target.concept)
        return tuple(dict.fromkeys(self.iri(name) for name in (*names, *(one.concept for one in self.filters))))

    @property
    def unsplit(self) -> Task:
        """The same task of all subjects' records, for rows that nobody trains on."""
        return self.model_copy(update={"split": None})

    @property
    def values(self) -> tuple[str, ...]:
        """IRIs of all values it names, each once."""
        named = [*self.target.values]
        named += (value for feature in self.features for value in feature.values or ())
        named += (value for one in self.filters for value in one.values or ())
        return tuple(dict.fromkeys(self.iri(name) for name in named))

    @model_validator(mode="after")
    def _check(self) -> Self:
        iris = [self.iri(feature.concept) for feature in self.features]
        self._require_once(iris, "concepts named twice")
        if self.iri(self.target.concept) in iris:
            raise ValueError("the target is also a feature")
        self._require_once([self.iri(value) for value in self.target.values], "target.classes: values named twice")
        for number, feature in enumerate(self.features):
            named = [self.iri(value) for value in feature.values or ()]
            self._require_once(named, f"features.{number}.values: values named twice")
        self._require_once([self.iri(one.concept) for one in self.filters], "filters: concepts named twice")
        return self

    @staticmethod
    def _require_once(iris: list[str], what: str) -> None:
        twice = sorted(iri for iri, times in Counter(iris).items() if times > 1)
        if twice:
            raise ValueError(f"{what}: {', '.join(twice)}")
