"""The owner's policy: which jobs may touch which population, with whom, at what price. A job cannot loosen it.

`policy.toml` in full:

    [peers]
    federation_key = "…64 hex digits…"   # or: members = ["…64 hex digits…", …]
    minimum_cohort = 5
    corruption = 0.1

    [[populations]]
    name = "patients"
    mapping = "mapping.yaml"
    declared_rows = 100
    modes = ["record-local"]
    epsilon = 8.0
    delta = 1e-3
    # For jobs that protect subjects, a person's rows together, in place of rows:
    # declared_subjects = 40
    # subject_epsilon = 4.0

    [jobs]
    purposes = ["research"]
    concepts = ["https://example.org/vocabulary#*"]
    models = ["logistic", "mlp"]
    expires = 2027-12-31
    max_rounds = 100
"""

from __future__ import annotations

import datetime as dt
import math
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from lepton_core.errors import InputError, PolicyRefusal, SettingsError
from lepton_core.ids import require_digest
from lepton_core.job import Job
from lepton_core.privacy.rules import PrivacyMode
from lepton_core.privacy.units import UNIT_RECORD, UNIT_SUBJECT, Unit
from lepton_core.settings import Settings, parse_settings

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]

#: A prefix must name at least a scheme and a host, so that `*` and `https://*` do not admit everything.
_SHORTEST_PREFIX = 10

#: Rounds that a job may lose whatever its length: a daemon that is restarted, or cut off at the wrong moment.
LEAST_UNPUBLISHED = 3


class Peers(Settings):
    """Whose protocol identities count as peers, and how many must be in a sum."""

    #: Ed25519 public key (hex) that signs the membership list; held by the federation, never by the coordinator.
    federation_key: str | None = None
    #: Or the peers' Ed25519 identity keys (hex), pinned one by one.
    members: tuple[str, ...] | None = None
    #: Fewest members whose sum may be revealed.
    minimum_cohort: int = Field(default=5, ge=3, le=100_000)
    #: Share of members that a job must assume to collude with the coordinator, at least.
    corruption: float = Field(default=0.1, ge=0.0, lt=0.5)

    @field_validator("federation_key")
    @classmethod
    def _check_key(cls, value: str | None) -> str | None:
        return value if value is None else _hex_key(value)

    @field_validator("members")
    @classmethod
    def _check_members(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None:
            if len({_hex_key(key) for key in value}) != len(value):
                raise ValueError("an identity key is pinned twice")
            if len(value) < 3:
                raise ValueError("fewer than 3 peers can never make a cohort")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.federation_key is None) == (self.members is None):
            raise ValueError("give either federation_key or members")
        return self


class Population(Settings):
    """The records of one group of people, with one privacy budget a unit over all jobs, for ever."""

    #: What a job calls it.
    name: Name
    #: The approved mapping, relative to the policy's folder.
    mapping: str = Field(min_length=1)
    #: Refuse a mapping that this owner's identity has not signed; one that is signed must hold in any case.
    signed_mapping: bool = False
    #: Tell the coordinator how many records serve a job, as a power of ten.
    tell_coverage: bool = False
    #: Rounded number of records, public: expected batch sizes come from it, never from the true count.
    declared_rows: int = Field(ge=1)
    #: Rounded number of subjects, public: the same for jobs whose unit is the subject.
    declared_subjects: int | None = Field(default=None, ge=1)
    modes: tuple[PrivacyMode, ...] = ("record-local",)
    #: Budget for one record over all jobs together; delta must be below, and should be far below, one over the number
    #: of records.
    epsilon: float = Field(gt=0.0, allow_inf_nan=False)
    delta: float = Field(gt=0.0, lt=1.0)
    #: Budget for one subject with all its records, at the same delta. With it, jobs for records are refused, as they
    #: have no bound for a subject; without it, jobs for subjects are.
    subject_epsilon: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)

    @property
    def budgets(self) -> dict[Unit, float]:
        """Epsilon over all jobs, by the unit it is for."""
        budgets: dict[Unit, float] = {UNIT_RECORD: self.epsilon}
        if self.subject_epsilon is not None:
            budgets[UNIT_SUBJECT] = self.subject_epsilon
        return budgets

    def declared(self, unit: Unit) -> int:
        """The public number of units that a batch is drawn from: subjects if they are what is protected, else records.

        Raises:
            PolicyRefusal: the owner declares none.
        """
        if unit != UNIT_SUBJECT:
            return self.declared_rows
        if self.declared_subjects is None:
            raise _refusal(
                "DECLARED_SUBJECTS",
                f"populations.{self.name}.declared_subjects",
                "the number of subjects is not declared",
                "a rounded number of subjects, which is public",
                "none",
                hint="write `declared_subjects = 40` under [[populations]] in the policy, with this owner's number",
            )
        return self.declared_subjects

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.modes:
            raise ValueError("modes: name at least one privacy mode")
        if self.delta * self.declared_rows >= 1.0:
            # Such a delta lets a mechanism that shows one record in full, drawn at random, pass as private.
            raise ValueError(
                f"delta must be below one over declared_rows, {1 / self.declared_rows:g}, "
                f"and is better far below it: try {_rounded(0.1 / self.declared_rows)}"
            )
        if self.declared_subjects is not None and self.declared_subjects > self.declared_rows:
            raise ValueError("declared_subjects is above declared_rows, and no subject is without a row")
        return self


class AllowedJobs(Settings):
    """What jobs may ask for; nothing is allowed that is not named."""

    purposes: tuple[Name, ...] = Field(min_length=1)
    #: IRIs of concepts, or prefixes that end in `*`, `#` or `/`.
    concepts: tuple[str, ...] = Field(min_length=1)
    #: Kinds of model: `logistic`, `mlp`, `cnn`, or installed entry points.
    models: tuple[Name, ...] = Field(min_length=1)
    #: Last day on which anything is allowed, in UTC.
    expires: dt.date
    max_rounds: int = Field(default=1_000, ge=1)
    #: Share of a job's rounds that may be charged without their sum ever being published, because they were aborted
    #: after training; at least 3 rounds, unless it is 0. Beyond it the job is left.
    max_unreleased_fraction: float = Field(default=0.05, ge=0.0, le=1.0)
    #: Colluding members that distributed noise must withstand, at least; beyond them the job's epsilon is larger.
    colluders: int = Field(default=0, ge=0, le=100_000)
    #: Permission for jobs without privacy (mode `none`); the population's modes must name it as well.
    allow_unprotected: bool = False
    #: Permission for jobs without secure aggregation, whose coordinator sees this owner's updates one by one.
    allow_plain_updates: bool = False
    #: Permission for jobs whose rounds leave out a part of an update, which is kept in the client's folder until sent.
    allow_error_feedback: bool = False

    @field_validator("concepts")
    @classmethod
    def _check_concepts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if "://" not in entry or len(entry.rstrip("*")) < _SHORTEST_PREFIX or "*" in entry[:-1]:
                raise ValueError(f"not an IRI, or a prefix of IRIs that names a host: {entry!r:.80}")
        return value

    def admits(self, iri: str) -> bool:
        """Whether the concept may be asked for."""
        return any(
            iri == entry or (entry.endswith(("*", "#", "/")) and iri.startswith(entry.rstrip("*")))
            for entry in self.concepts
        )


class Policy(Settings):
    """`policy.toml`."""

    peers: Peers
    populations: tuple[Population, ...] = Field(min_length=1)
    jobs: AllowedJobs

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [population.name for population in self.populations]
        if len(set(names)) != len(names):
            raise ValueError("two populations have one name")
        return self


def load_policy(path: Path) -> Policy:
    """The policy in a TOML file.

    Raises:
        InputError: no such file.
        SettingsError: not TOML, or not a policy; every problem is told.
    """
    return parse_settings(Policy, load_toml(path), source=str(path))


def load_toml(path: Path) -> dict[str, Any]:
    """The document in a TOML file.

    Raises:
        InputError: the file is missing or cannot be read.
        SettingsError: not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("a settings file that cannot be read", where=str(path), got=error.strerror or "") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError("a settings file that is not TOML", problems=(str(error),), where=str(path)) from None


def policy_json_schema() -> dict[str, Any]:
    """JSON Schema of `policy.toml`, for editors and checkers."""
    return Policy.model_json_schema()


def admit(policy: Policy, job: Job, now: float) -> Population:
    """The population that the job may use.

    `now` is in seconds since the epoch. The budget itself is the ledger's to check.

    Raises:
        PolicyRefusal: `where` is the key of the policy that says no.
    """
    expires = policy.jobs.expires
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    if today > expires:
        raise _refusal("EXPIRED", "jobs.expires", "the policy has expired", expires.isoformat(), str(today))
    return _admit(policy, job)


@lru_cache(maxsize=64)
def _admit(policy: Policy, job: Job) -> Population:
    """`admit` on any day; remembered, as a round asks four times and neither policy nor job ever changes."""
    allowed = policy.jobs
    if job.purpose not in allowed.purposes:
        raise _refusal(
            "PURPOSE", "jobs.purposes", "this purpose is not allowed", _any_of(allowed.purposes), job.purpose
        )
    if job.model.kind not in allowed.models:
        raise _refusal("MODEL", "jobs.models", "this model is not allowed", _any_of(allowed.models), job.model.kind)
    if job.training.rounds > allowed.max_rounds:
        raise _refusal(
            "ROUNDS", "jobs.max_rounds", "too many rounds", f"at most {allowed.max_rounds}", str(job.training.rounds)
        )
    for iri in job.task.concepts:
        if not allowed.admits(iri):
            raise _refusal("CONCEPT", "jobs.concepts", "this concept is not allowed", _any_of(allowed.concepts), iri)
    _require_cohort(policy.peers, job)
    population = next((entry for entry in policy.populations if entry.name == job.population), None)
    if population is None:
        names = tuple(entry.name for entry in policy.populations)
        raise _refusal("POPULATION", "populations", "no such population", _any_of(names), job.population)
    _require_privacy(allowed, population, job)
    return population


def _require_cohort(peers: Peers, job: Job) -> None:
    asked = job.aggregation
    if asked.min_cohort < peers.minimum_cohort:
        floor = f"at least {peers.minimum_cohort}"
        raise _refusal("COHORT", "peers.minimum_cohort", "too small a cohort", floor, str(asked.min_cohort))
    if asked.corruption < peers.corruption:
        floor = f"at least {peers.corruption:g}"
        raise _refusal("CORRUPTION", "peers.corruption", "too few colluders assumed", floor, f"{asked.corruption:g}")


def _require_privacy(allowed: AllowedJobs, population: Population, job: Job) -> None:
    key = f"populations.{population.name}"
    asked = job.privacy
    if not job.aggregation.secure and not allowed.allow_plain_updates:
        key = "jobs.allow_plain_updates"
        raise _refusal("PLAIN_UPDATES", key, "updates without masks", "aggregation.secure = true", "false")
    if job.aggregation.feeds_back and not allowed.allow_error_feedback:
        feedback = "jobs.allow_error_feedback"
        told = "a codec without error feedback"
        raise _refusal("ERROR_FEEDBACK", feedback, "a job with error feedback", told, job.aggregation.codec)
    if asked.mode == "none" and not allowed.allow_unprotected:
        raise _refusal("UNPROTECTED", "jobs.allow_unprotected", "a job without privacy", "a privacy mode", "none")
    if asked.mode not in population.modes:
        raise _refusal(
            "MODE", f"{key}.modes", "this privacy mode is not allowed", _any_of(population.modes), asked.mode
        )
    if asked.mode == "none":
        return
    if asked.distributed and asked.colluders < allowed.colluders:
        floor = f"at least {allowed.colluders}"
        raise _refusal("COLLUDERS", "jobs.colluders", "noise for too few colluders", floor, str(asked.colluders))
    _require_unit(population, asked.unit)
    budget = "subject_epsilon" if asked.unit == UNIT_SUBJECT else "epsilon"
    most = population.budgets[UNIT_SUBJECT if asked.unit == UNIT_SUBJECT else UNIT_RECORD]
    if asked.epsilon > most:
        raise _refusal("EPSILON", f"{key}.{budget}", "too large an epsilon", f"at most {most:g}", f"{asked.epsilon:g}")
    if asked.delta > population.delta:
        ceiling = f"at most {population.delta:g}"
        raise _refusal("DELTA", f"{key}.delta", "too large a delta", ceiling, f"{asked.delta:g}")


def _require_unit(population: Population, unit: Unit) -> None:
    """Refuse a job for records where subjects have a budget, and one for subjects where they have none."""
    key = f"populations.{population.name}.subject_epsilon"
    if unit == UNIT_RECORD and population.subject_epsilon is not None:
        told = "a job for records, where subjects have a budget"
        raise _refusal("UNIT", key, told, 'privacy.unit = "subject"', repr(unit))
    if unit == UNIT_SUBJECT:
        if population.subject_epsilon is None:
            raise _refusal(
                "UNIT",
                key,
                "subjects have no budget",
                "a budget for subjects",
                "none",
                hint="write `subject_epsilon = 4.0` under [[populations]] in the policy, with this owner's number",
            )
        population.declared(unit)


def most_unpublished(policy: Policy, job: Job) -> int:
    """How many rounds of the job may be charged whose sum is never published."""
    fraction = policy.jobs.max_unreleased_fraction
    return max(LEAST_UNPUBLISHED, math.ceil(fraction * job.training.rounds)) if fraction > 0 else 0


def _rounded(delta: float) -> str:
    return f"{delta:.0e}".replace("e-0", "e-")


def _refusal(
    reason: str,
    key: str,
    message: str,
    expected: str,
    got: str,
    *,
    hint: str = "change the job, or ask the owner to change the policy",
) -> PolicyRefusal:
    return PolicyRefusal(
        f"the owner's policy refuses: {message}",
        where=f"policy.{key}",
        expected=expected,
        got=got,
        hint=hint,
        reason=reason,
    )


def _any_of(names: tuple[str, ...]) -> str:
    return f"one of {', '.join(names)}"


def _hex_key(value: str) -> str:
    try:
        return require_digest(value, "Ed25519 public key")
    except InputError:
        raise ValueError("not an Ed25519 public key in 64 lower-case hex digits") from None
