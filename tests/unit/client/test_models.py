"""A member computes its models itself, and trains on no other: the chain from the first weights to the newest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lepton_client.effects import Follow, Train
from lepton_client.models import Chain, Models
from lepton_core.chain import Link, encode_link, parse_link, require_witnessed
from lepton_core.errors import IdentityError, InputError, LeptonError, NotFoundError, PeerViolation
from lepton_core.ids import Digest, JobId, ModelVersion, RoundNumber, digest_of
from lepton_core.secagg.messages import ConsistencySignature
from lepton_core.secagg.terms import Setup, commit_nonce, survivors_digest
from lepton_core.secagg.transcript import Transcript
from lepton_core.session import Lineage, Published
from lepton_pool.models import architecture_of, initial_vector, model_layout
from lepton_pool.steps import encode_update
from lepton_pool.terms import derive_ring_plan, derive_terms
from lepton_pool.weights import encode_weights
from tests.protocol.seeded import SeededRandomness, make_identities
from tests.unit.client.owners import JOB_ID, make_job

KEYS = make_identities(4)
PEERS = {key.member: key.public for key in KEYS}
JOB = make_job(
    training={"rounds": 10, "server": {"kind": "fedavgm"}}, privacy={"mode": "none", "noise_multiplier": None}
)
TERMS = derive_terms(JOB, bytes(32))
FIRST = initial_vector(architecture_of(JOB))


def make_link(chain: Chain, *, scale: float = 0.01, signers=KEYS, survivors=KEYS) -> Link:
    """The link of a round on the chain's model, over everybody's same small update."""
    setup = Setup(JOB_ID, RoundNumber(chain.version + 1), TERMS, commit_nonce(bytes([chain.version]) * 32))
    bare = Transcript(
        setup_id=setup.setup_id(),
        roster_root=b"r" * 32,
        model_version=chain.version,
        model_digest=bytes.fromhex(chain.digest),
        survivors=tuple(key.member for key in survivors),
        signatures=(),
    )
    signed = survivors_digest(bare.sid, bare.survivors)
    transcript = replace(bare, signatures=tuple(ConsistencySignature(key.member, key.sign(signed)) for key in signers))
    update = np.full(len(FIRST), scale, dtype=np.float32)
    seed = Link(setup, transcript, np.zeros(0, np.uint64)).codec_seed
    words = sum(
        encode_update(JOB, update, 1, member=key.member, codec_seed=seed, randomness=SeededRandomness(key.member.hex()))
        for key in survivors
    )
    return Link(setup, transcript, words)


class Server:
    """What a coordinator holds; counts what is fetched."""

    def __init__(self) -> None:
        self.chain = Chain.begin(JOB, FIRST)
        self.links: list[tuple[Link, bytes]] = []
        self.fetched: list[str] = []

    def advance(self, **changes) -> Link:
        link = make_link(self.chain, **changes)
        self.chain = self.chain.follow(link)
        self.links.append((link, encode_link(link)))
        return link

    def told(self, *, inline: bool = True) -> Follow:
        link, content = self.links[-1]
        published = Published(digest_of(content), content if inline else b"")
        return Follow(JOB_ID, published, link.transcript.sid, link.transcript.survivors)

    def train(self) -> Train:
        return Train(
            job_id=JOB_ID,
            job=JOB,
            setup=Setup(JOB_ID, RoundNumber(self.chain.version + 1), TERMS, bytes(32)),
            peers=PEERS,
            model_version=self.chain.version,
            model_digest=self.chain.digest,
            ring_plan=derive_ring_plan(JOB),
            codec_seed=bytes(32),
            expected_batch=1.0,
            shuffle=None,
        )

    async def download(self, digest: Digest, *, largest: int, deadline_s: float) -> bytes:
        self.fetched.append("link")
        for _, content in self.links:
            if digest_of(content) == digest:
                assert len(content) <= largest
                return content
        raise NotFoundError("no such artifact")

    async def links_after(self, after: ModelVersion) -> tuple[Digest, ...]:
        self.fetched.append("list")
        return tuple(digest_of(content) for link, content in self.links if link.version > after)


class Fetches:
    def __init__(self, server: Server) -> None:
        self.download = server.download
        self._server = server

    async def lineage(self, job: JobId, after: ModelVersion) -> Lineage:
        assert job == JOB_ID
        return Lineage(await self._server.links_after(after), None)


async def first(_job) -> np.ndarray:
    return FIRST


def member_of(server: Server) -> Models:
    return Models(Fetches(server), first)


async def get(models: Models, server: Server) -> np.ndarray:
    return await models.model(server.train(), deadline_s=5.0)


async def refused(models: Models, train: Train) -> LeptonError:
    with pytest.raises(LeptonError) as caught:
        await models.model(train, deadline_s=5.0)
    return caught.value


async def test_a_member_of_every_round_computes_every_model_and_fetches_nothing() -> None:
    server = Server()
    models = member_of(server)
    np.testing.assert_array_equal(await get(models, server), FIRST)
    for _ in range(3):
        server.advance()
        models.told(server.told())
        np.testing.assert_array_equal(await get(models, server), server.chain.vector)
    assert server.fetched == []


async def test_a_large_link_is_fetched_by_its_digest() -> None:
    server = Server()
    models = member_of(server)
    server.advance()
    models.told(server.told(inline=False))
    np.testing.assert_array_equal(await get(models, server), server.chain.vector)
    assert server.fetched == ["link"]


async def test_a_member_that_was_away_or_restarted_computes_what_it_has_missed() -> None:
    server = Server()
    for _ in range(4):
        server.advance()
    np.testing.assert_array_equal(await get(member_of(server), server), server.chain.vector)
    assert server.fetched == ["list", *["link"] * 4]


async def test_a_model_that_does_not_follow_from_the_transcript_is_not_trained_on() -> None:
    server = Server()
    models = member_of(server)
    server.advance()
    models.told(server.told())
    crafted = replace(server.train(), model_digest=Digest("c" * 64))
    error = await refused(models, crafted)
    assert isinstance(error, PeerViolation)
    assert error.reason == "MODEL_CHAIN"


async def test_first_weights_of_the_coordinator_s_own_are_not_trained_on() -> None:
    server = Server()
    error = await refused(member_of(server), replace(server.train(), model_digest=Digest("c" * 64)))
    assert error.reason == "MODEL_CHAIN"


async def test_another_sum_than_the_one_the_model_came_from_is_found_out() -> None:
    server = Server()
    models = member_of(server)
    honest = server.chain
    server.advance()
    other = encode_link(make_link(honest, scale=-0.5))
    models.told(replace(server.told(), published=Published(digest_of(other), other)))
    assert (await refused(models, server.train())).reason == "MODEL_CHAIN"


async def test_bytes_that_are_not_those_of_the_digest_are_no_link() -> None:
    server = Server()
    models = member_of(server)
    server.advance()
    told = server.told()
    models.told(replace(told, published=Published(told.published.digest, told.published.content[:-1] + b"x")))
    assert (await refused(models, server.train())).reason == "MODEL_CHAIN"


async def test_a_round_that_was_not_seen_needs_the_signatures_of_a_threshold() -> None:
    server = Server()
    server.advance(signers=KEYS[:2])
    error = await refused(member_of(server), server.train())
    assert isinstance(error, IdentityError)
    stranger = make_identities(5, "strangers")
    server = Server()
    server.advance(signers=stranger[:4], survivors=stranger[:4])
    assert isinstance(await refused(member_of(server), server.train()), IdentityError)


async def test_a_seen_round_with_other_survivors_than_were_agreed_on_is_checked_like_an_unseen_one() -> None:
    server = Server()
    models = member_of(server)
    server.advance(signers=KEYS[:2])
    models.told(replace(server.told(), survivors=tuple(key.member for key in KEYS[:3])))
    assert isinstance(await refused(models, server.train()), IdentityError)


def test_a_link_of_too_few_or_repeated_survivors_is_refused() -> None:
    chain = Chain.begin(JOB, FIRST)
    for survivors in (KEYS[:2], [KEYS[0], KEYS[0], KEYS[1]], KEYS[::-1]):
        with pytest.raises(PeerViolation) as caught:
            require_witnessed(make_link(chain, survivors=survivors, signers=()), PEERS, 3)
        assert caught.value.reason == "MODEL_CHAIN"


def test_a_link_that_begins_at_another_model_is_refused() -> None:
    chain = Chain.begin(JOB, FIRST)
    later = chain.follow(make_link(chain))
    with pytest.raises(PeerViolation) as caught:
        chain.follow(make_link(later))
    assert caught.value.reason == "MODEL_CHAIN"


def test_a_link_comes_back_as_it_was() -> None:
    link = make_link(Chain.begin(JOB, FIRST))
    again = parse_link(encode_link(link), JOB_ID, TERMS)
    assert (again.setup, again.transcript) == (link.setup, link.transcript)
    np.testing.assert_array_equal(again.words, link.words)
    other_job = parse_link(encode_link(link), JobId("another"), TERMS)
    assert other_job.transcript.setup_id != link.transcript.setup_id, "signatures hold for one job only"


@pytest.mark.parametrize(
    "bend",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content + bytes(8),
        lambda content: (2**62).to_bytes(8, "big") + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
        lambda content: content.replace(b'"round"', b'"rounb"'),
        lambda content: content.replace(b'"survivors":["', b'"survivors":["z'),
    ],
)
def test_bytes_that_are_no_link_give_a_typed_error(bend) -> None:
    content = encode_link(make_link(Chain.begin(JOB, FIRST)))
    with pytest.raises(InputError):
        parse_link(bend(content), JOB_ID, TERMS)


async def test_first_weights_from_a_file_are_fetched_by_their_digest_and_must_be_the_models():
    layout = model_layout(architecture_of(JOB))
    given = np.linspace(-1, 1, layout.length, dtype=np.float32)
    content = encode_weights(layout, given)
    named = JOB.model_copy(update={"model": JOB.model.model_copy(update={"initial": digest_of(content)})})
    asked = replace(Server().train(), job=named, model_digest=digest_of(content))

    class Artifacts:
        def __init__(self, held: bytes) -> None:
            self._held = held

        async def download(self, digest: Digest, *, largest: int, deadline_s: float) -> bytes:
            assert digest == digest_of(content)
            assert len(self._held) <= largest
            return self._held

        async def lineage(self, job: JobId, after: ModelVersion) -> Lineage:
            raise AssertionError

    async def from_seed(_job) -> np.ndarray:
        raise AssertionError

    assert np.array_equal(await Models(Artifacts(content), from_seed).model(asked, deadline_s=1), given)
    for wrong in (encode_weights(layout, np.full_like(given, np.float32(0.5))), content[:-4], b""):
        with pytest.raises(LeptonError):
            await Models(Artifacts(wrong), from_seed).model(asked, deadline_s=1)
