"""A member steps from the model it holds to the next by a small difference, and fetches it whole if that fails."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lepton_client.downlink import Descents
from lepton_core.errors import NotFoundError, PeerViolation
from lepton_core.ids import Digest, JobId, ModelVersion, digest_of
from lepton_core.job import Job
from lepton_core.session import Lineage
from lepton_pool.downlink import descend, is_published_exact
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.weights import encode_weights

JOB = Job.model_validate(
    {
        "name": "test",
        "task": {
            "ontology": "0" * 64,
            "vocabulary": "https://example.org/",
            "features": [{"concept": f"f{index}"} for index in range(64)],
            "target": {"concept": "t", "positive": "yes"},
        },
        "model": {"kind": "mlp", "hidden": [32]},
        "training": {"rounds": 9},
        "privacy": {"mode": "none"},
        "aggregation": {"min_cohort": 3, "max_cohort": 8, "secure": False, "downlink": "delta"},
    }
)
JOB_ID = JobId("job")
LAYOUT = model_layout(architecture_of(JOB))


class Store:
    """What a coordinator publishes, version by version; counts what is fetched."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.vector = (generator.standard_normal(LAYOUT.length) * 0.1).astype(np.float32)
        self.exact = self.vector
        self.contents: dict[Digest, bytes] = {}
        self.links: list[Digest] = []
        self.snapshot: Digest | None = None
        self.fetched: list[int] = []
        self.digest = self.keep(encode_weights(LAYOUT, self.vector))

    def keep(self, content: bytes) -> Digest:
        digest = digest_of(content)
        self.contents[digest] = content
        return digest

    def advance(self) -> None:
        step = np.random.default_rng(len(self.links) + 1).standard_normal(LAYOUT.length) * 0.01
        self.exact = (self.exact + step).astype(np.float32)
        descent = descend(self.vector, self.digest, self.exact)
        self.vector = descent.held
        self.links.append(self.keep(descent.delta))
        self.snapshot = self.keep(descent.snapshot)
        self.digest = self.keep(encode_weights(LAYOUT, self.vector))

    async def download(self, digest: Digest, *, largest: int, deadline_s: float) -> bytes:
        del deadline_s
        if digest not in self.contents:
            raise NotFoundError("no such artifact", where=digest)
        content = self.contents[digest]
        assert len(content) <= largest
        self.fetched.append(len(content))
        return content

    async def lineage(self, job: JobId, after: ModelVersion) -> Lineage:
        assert job == JOB_ID
        return Lineage(tuple(self.links[after:]), self.snapshot)

    async def given_to(self, member: Descents) -> np.ndarray:
        announced = SimpleNamespace(
            job=JOB, job_id=JOB_ID, model_version=ModelVersion(len(self.links)), model_digest=self.digest
        )
        self.fetched.clear()
        return await member.model(LAYOUT, announced, 1.0)


@pytest.fixture
def store() -> Store:
    return Store()


async def test_each_next_model_costs_about_a_byte_a_value_and_is_the_coordinator_s_bit_for_bit(store: Store) -> None:
    member = Descents(store)
    assert np.array_equal(await store.given_to(member), store.vector)
    for _ in range(4):
        store.advance()
        assert np.array_equal(await store.given_to(member), store.vector)
        assert sum(store.fetched) < 1.1 * LAYOUT.length
    assert np.abs(store.vector - store.exact).max() < 2e-3
    await store.given_to(member)
    assert store.fetched == []  # the same model again


async def test_a_member_that_comes_late_or_again_takes_a_snapshot_of_half_the_bytes(store: Store) -> None:
    member = Descents(store)
    await store.given_to(member)
    for _ in range(3):
        store.advance()
    for one in (member, Descents(store)):
        assert np.array_equal(await store.given_to(one), store.vector)
        assert sum(store.fetched) < 2.2 * LAYOUT.length


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "another"])
async def test_a_difference_that_does_not_lead_there_costs_a_snapshot(store: Store, damage: str) -> None:
    member = Descents(store)
    await store.given_to(member)
    store.advance()
    content = store.contents[store.links[-1]]
    if damage == "gone":
        del store.contents[store.links[-1]]
    elif damage == "another":
        store.contents[store.links[-1]] = descend(store.vector, store.digest, store.vector).delta
    else:
        store.contents[store.links[-1]] = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
        if damage == "cut":
            store.contents[store.links[-1]] = content[:-1]
    assert np.array_equal(await store.given_to(member), store.vector)


async def test_a_snapshot_that_is_not_the_announced_model_is_the_coordinator_s_fault(store: Store) -> None:
    store.advance()
    other = Store()
    other.advance()
    other.advance()
    assert store.snapshot is not None
    assert other.snapshot is not None
    store.contents[store.snapshot] = other.contents[other.snapshot]
    with pytest.raises(PeerViolation) as refused:
        await store.given_to(Descents(store))
    assert refused.value.reason == "MODEL_SNAPSHOT"


async def test_a_model_beyond_half_precision_goes_down_exact(store: Store) -> None:
    member = Descents(store)
    await store.given_to(member)
    store.exact = store.exact.copy()
    store.exact[0] = 1e5
    store.advance()
    assert np.array_equal(await store.given_to(member), store.vector)
    assert store.vector[0] > 9e4


def test_the_last_version_is_exact_and_so_are_jobs_that_do_not_ask() -> None:
    plain = Job.model_validate(
        JOB.model_dump() | {"aggregation": {**JOB.aggregation.model_dump(), "downlink": "exact"}}
    )
    assert [is_published_exact(JOB, ModelVersion(number)) for number in (1, 8, 9)] == [False, False, True]
    assert is_published_exact(plain, ModelVersion(1))
