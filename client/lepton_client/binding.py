"""From a job's concepts to this owner's tensors: ontology by hash, approved mapping, compiled plan, rows.

Libraries for tables and RDF are imported when a job comes, not when the daemon starts.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lepton_client.journal import write_private
from lepton_client.logs import Log
from lepton_client.policy import Population
from lepton_core.errors import DataError, FaultError, IdentityError, LeptonError, MappingError, MatchRefusal
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, digest_of
from lepton_core.job import Job, ontology_digest
from lepton_core.privacy.units import UNIT_SUBJECT
from lepton_core.session import coverage_of

if TYPE_CHECKING:
    from lepton_kg.mapping import Mapping

#: Fetches the canonical bytes of an ontology version; whatever it gives is checked against the hash.
FetchOntology = Callable[[Digest], Awaitable[bytes]]


_CONTENT_KEY_LABEL = b"lepton/ledger-content-key/v1"
_CONTENT_LABEL = b"lepton/ledger-content/v1"
#: Rows may differ from those declared by this factor.
_FAR_OFF = 2
_SPENT_STAYS = "what was spent stays spent"


@dataclass(frozen=True)
class Prepared:
    """An owner's rows for one job."""

    #: Digest of the owner's plan, for the ledger only.
    plan: Digest
    #: (rows, d) in [-1, 1] and (rows,) of 0 and 1, float32.
    features: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32]
    #: Keyed digest of the rows, for the ledger only; empty without a key.
    content: str = ""
    #: Whose each row is, (rows,), int64; None unless the job protects subjects.
    subjects: npt.NDArray[np.int64] | None = None
    #: What may be told of how many rows there are, as `100+`; empty unless the policy says so.
    coverage: str = ""

    def __repr__(self) -> str:
        """Without the rows and their number."""
        return f"Prepared(plan={self.plan!r})"


class Binding:
    """Prepares this owner's data for jobs; nothing of the data is in what it raises."""

    def __init__(
        self,
        policy_folder: Path,
        ontologies: Path,
        fetch: FetchOntology,
        log: Log,
        *,
        identity: bytes,
        content_key: bytes = b"",
    ) -> None:
        """`policy_folder` is what the policy's mapping paths are relative to; `ontologies` is a cache.

        `identity` is the public key that signs this owner's mappings. `content_key` keeps the digest of the rows from
        whoever could guess them: the ledger is exported.
        """
        self._identity = identity
        self._folder = policy_folder
        self._ontologies = ontologies
        self._fetch = fetch
        self._log = log
        self._content_key = content_key

    async def prepare(self, job: Job, population: Population) -> Prepared:
        """The rows that serve the job, in a thread of their own.

        Raises:
            MatchRefusal: the mapping or the data cannot serve it; `reason` is machine-readable.
            OntologyError, MappingError, DataError, FaultError: something to be put right first.
        """
        digest = ontology_digest(job)
        # A job must name the version that the owner's mapping was made for; no other is fetched, parsed or kept.
        await asyncio.to_thread(self._require_mapped, population, digest)
        canonical = self._cached(digest)
        if canonical is None:
            canonical = await self._fetch(digest)
        return await asyncio.to_thread(self._prepare, job, population, canonical)

    def _prepare(self, job: Job, population: Population, canonical: bytes) -> Prepared:
        from lepton_kg.approval import require_current
        from lepton_kg.compiler import compile_plan
        from lepton_kg.mapping import parse_mapping
        from lepton_kg.ontology import load_canonical
        from lepton_kg.source import read_batches, source_schema

        # 1. The ontology is believed only by its hash.
        ontology = load_canonical(canonical, ontology_digest(job))
        self._keep(ontology.digest, canonical)
        # 2. The mapping must be approved for this version, and for the source as it is today.
        path = self._folder / population.mapping
        mapping = parse_mapping(_read_text(path), source=str(path))
        if mapping.signature is not None or population.signed_mapping:
            self._require_signed(mapping)
        protects_subjects = job.privacy.unit == UNIT_SUBJECT
        plan = compile_plan(job.task, mapping, ontology, subjects=protects_subjects)
        schema = source_schema(mapping.source, path.parent)
        try:
            require_current(mapping, ontology.digest, schema)
        except MappingError as error:
            raise MatchRefusal(
                error.message, expected=error.expected, got=error.got, hint=error.hint, reason=error.reason
            ) from None
        # 3. The plan is data: which columns, which codes, which factors; it reads what it needs and nothing else.
        rows = plan.execute(read_batches(mapping.source, plan.columns, path.parent))
        coverage = coverage_of(len(rows.target)) if population.tell_coverage else ""
        self._log.info("data prepared", plan=plan.digest().hex()[:16], population=population.name)
        subjects = rows.subjects if protects_subjects else None
        self._require_size(population, "rows", len(rows.target), population.declared_rows)
        if subjects is not None:
            self._require_size(population, "subjects", len(np.unique(subjects)), population.declared_subjects)
        nobodys = rows.report.refused_by.get("SUBJECT_MISSING", 0)
        if nobodys:
            self._log.warning("rows without a subject are left out", population=population.name, rows=nobodys)
        parts = (rows.features, rows.target) if subjects is None else (rows.features, rows.target, subjects)
        content = derive_content(self._content_key, *parts) if self._content_key else ""
        return Prepared(Digest(plan.digest().hex()), rows.features, rows.target, content, subjects, coverage)

    def _require_size(self, population: Population, units: str, found: int, declared: int | None) -> None:
        """Refuse data that are no longer what the policy declares, and tell the owner of far more; never how many.

        The coordinator gets the word that it gets for any data that cannot be used.

        Raises:
            DataError: DATA_UNUSABLE, fewer than half of those declared, or a delta that is not below one over them.
        """
        where = f"population {population.name}"
        if declared is not None and found * _FAR_OFF < declared:
            raise DataError(
                f"far fewer {units} than the policy declares",
                where=where,
                expected=f"about {declared}, as declared_{units} says",
                hint=f"put the source right, or declare what is there now in the policy; {_SPENT_STAYS}",
                reason="DATA_UNUSABLE",
            )
        if population.delta * found >= 1.0:
            raise DataError(
                f"delta is not below one over the {units}",
                where=where,
                expected="well below one over their number, as a delta of one over it shows somebody's record as it is",
                got=f"delta {population.delta:g}",
                hint=f"lower delta in the policy; {_SPENT_STAYS}",
                reason="DATA_UNUSABLE",
            )
        if declared is not None and found > declared * _FAR_OFF:
            told = {"population": population.name, f"declared_{units}": declared}
            self._log.warning(f"far more {units} than the policy declares", **told)

    def _require_signed(self, mapping: Mapping) -> None:
        """Refuse a mapping that this owner's identity has not signed, word for word as it stands.

        Raises:
            MatchRefusal: UNSIGNED_MAPPING or BAD_SIGNATURE.
        """
        from lepton_kg.approval import require_signed

        try:
            require_signed(mapping, self._identity)
        except (MappingError, IdentityError) as error:
            raise MatchRefusal(
                error.message, expected=error.expected, got=error.got, hint=error.hint, reason=error.reason
            ) from None

    def _require_mapped(self, population: Population, digest: Digest) -> None:
        from lepton_kg.mapping import parse_mapping

        path = self._folder / population.mapping
        if parse_mapping(_read_text(path), source=str(path)).ontology != digest:
            raise MatchRefusal(
                "the owner's mapping is for another ontology version",
                expected=digest,
                got="another version",
                hint="check the mapping against the new version and approve it again",
                reason="ONTOLOGY_MISMATCH",
            )

    def _cached(self, digest: Digest) -> bytes | None:
        try:
            canonical = (self._ontologies / f"{digest}.nq").read_bytes()
        except OSError:
            return None
        return canonical if digest_of(canonical) == digest else None

    def _keep(self, digest: Digest, canonical: bytes) -> None:
        if self._cached(digest) is None:
            self._ontologies.mkdir(parents=True, exist_ok=True)
            write_private(self._ontologies / f"{digest}.nq", canonical)


def derive_content_key(identity: IdentityKey) -> bytes:
    """32 bytes that only the holder of the identity can make."""
    return hashlib.sha256(identity.sign(_CONTENT_KEY_LABEL)).digest()


def derive_content(key: bytes, features: npt.NDArray[np.float32], *others: npt.NDArray[Any]) -> str:
    """What tells one state of the rows from another, to the holder of the key alone; hex.

    `others` are the target and, in jobs that protect subjects, whose each row is.
    """
    keyed = hmac.new(key, _CONTENT_LABEL + repr(features.shape).encode(), "sha256")
    for part in (features, *others):
        keyed.update(np.ascontiguousarray(part).data)
    return keyed.hexdigest()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise MappingError(
            "the population's mapping cannot be read",
            where=str(path),
            expected="a YAML mapping, as `lepton mapping approve` writes it",
            hint="correct populations.mapping in the policy, or write the mapping",
            reason="MISSING_MAPPING",
        ) from None


def told_of(error: Exception) -> LeptonError:
    """The error as one of ours; what a library raised over the owner's data is named, never quoted."""
    if isinstance(error, LeptonError):
        return error
    if isinstance(error, OSError):
        return FaultError("the owner's data cannot be reached", got=type(error).__name__, reason="DATA_UNREACHABLE")
    return DataError("the owner's data cannot be prepared", got=type(error).__name__, reason="DATA_UNUSABLE")
