"""Mode `client-distributed` with a hundred members: what leaves each of them, and what the published sums hold.

A hundred daemons are too many processes for a test. The members are the real participants with their consent and
ledgers, the coordinator is the real one, and every message is read in the bytes that the sessions carry.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from lepton_client import participant
from lepton_client.feedback import Feedback
from lepton_core.chain import parse_link
from lepton_core.ids import Digest, MemberId
from lepton_core.secagg.payload import encode_payload
from lepton_core.views import JobState, JobView
from lepton_protos import convert
from lepton_protos.v1 import control_pb2
from tests.e2e.allowed_fields import Told, violations
from tests.e2e.leak_search import Secrets, windows_of
from tests.e2e.published_noise import deviation_of_noise, noise_in
from tests.e2e.recording_proxy import Call
from tests.e2e.uniformity import FAR, deviation
from tests.simulation.federation import Federation, Member
from tests.simulation.test_federation import decode_facts

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("hidden members")]

MEMBERS, ROUNDS = 100, 2
#: The member whose update is fifty times as long as a member's may count, and the length of the others' updates.
LONG, LENGTH = 7, 0.9
SESSION = "/lepton.v1.Control/Session"


def update_of(person: Member, version: int) -> npt.NDArray[np.float32]:
    """What a member learns: dense, another in each round."""
    drawn = np.random.default_rng((person.index, version)).normal(size=MEMBERS + 1)
    return (drawn * (50.0 if person.index == LONG else LENGTH) / np.linalg.norm(drawn)).astype(np.float32)


def counted_of(person: Member, version: int) -> npt.NDArray[np.float64]:
    """What of it counts: no more than a length of 1."""
    update = update_of(person, version).astype(np.float64)
    return update / max(1.0, float(np.linalg.norm(update)))


@dataclass
class Ended:
    """The job, with all that left its members."""

    world: Federation
    view: JobView
    #: Member -> its session, as a proxy would have recorded it.
    calls: dict[MemberId, Call]
    #: What members encoded, before their masks.
    bare: dict[MemberId, list[bytes]]

    def reports(self, member: MemberId) -> list[control_pb2.MemberReport]:
        """What a member said."""
        batches = (control_pb2.ReportBatch.FromString(raw) for raw in self.calls[member].sent)
        return [report for batch in batches for report in batch.reports]

    def left(self, member: MemberId) -> bytes:
        """Everything that a member sent."""
        return b"\0".join(self.calls[member].sent)

    def payloads(self, member: MemberId) -> list[bytes]:
        """Its masked words, by round."""
        found = {r.round_report.round: r.round_report.payload for r in self.reports(member) if r.round_report.payload}
        return [found[number] for number in sorted(found)]


@pytest.fixture(scope="module")
def ended():
    calls: dict[MemberId, Call] = {}
    bare: dict[MemberId, list[bytes]] = defaultdict(list)

    class Watched(Feedback):
        def encode(self, job, setup, train, update, rows):
            words = super().encode(job, setup, train, update, rows)
            bare[self._member].append(encode_payload(words))
            return words

    def heard(person: Member, said: bool, raw: bytes) -> None:
        call = calls.setdefault(person.key.member, Call(SESSION, (), None))
        if said:
            batch = control_pb2.ReportBatch(reports=[control_pb2.MemberReport.FromString(raw)])
        else:
            batch = control_pb2.CommandBatch(commands=[control_pb2.ServerCommand.FromString(raw)])
        call.messages.append((said, batch.SerializeToString()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(participant, "Feedback", Watched)
        world = Federation(
            seed=1,
            members=MEMBERS,
            min_cohort=MEMBERS,
            rounds=ROUNDS,
            mode="client-distributed",
            # A record of a member's may cost more than the member itself: it is replaced, not added or removed.
            budget=40.0,
            update_of=update_of,
            on_wire=heard,
        )
        view = world.run()
    return Ended(world, view, calls, bare)


def test_both_rounds_have_all_members_and_each_is_charged_as_a_member(ended):
    assert ended.view.state is JobState.FINISHED, ended.view.reason
    assert [len(entry.survivors) for entry in ended.view.rounds] == [MEMBERS] * ROUNDS
    for person in ended.world.people.values():
        entries = person.ledger.entries
        assert {(entry.charge.unit, entry.charge.round) for entry in entries} == {("member", 1), ("member", 2)}


def test_what_is_published_is_the_clipped_updates_with_fresh_noise_of_the_promised_variance(ended):
    world, job = ended.world, ended.world.make_job()
    terms = decode_facts(world).terms
    deviations = []
    for version, model in enumerate(ended.view.models[1:]):
        link = parse_link(world.artifacts.get(Digest(model.link)), world.job_id, terms)
        signal = sum(counted_of(person, version) for person in world.people.values())
        deviations.append(noise_in(job, link, MEMBERS, signal) / deviation_of_noise(job, MEMBERS))
    together = np.concatenate(deviations)
    assert len(together) == ROUNDS * (MEMBERS + 1)
    assert abs(together.mean()) < 5 / len(together) ** 0.5
    assert (together**2).mean() == pytest.approx(1.0, abs=0.5)
    assert deviation_of_noise(job, MEMBERS) > job.privacy.noise_multiplier * job.privacy.clip_norm
    for one, other in itertools.combinations(deviations, 2):
        assert abs((one * other).mean()) < 5 / len(one) ** 0.5


def test_every_value_that_left_a_member_is_what_the_table_allows(ended):
    members = frozenset(ended.calls)
    for person in list(ended.world.people.values())[::10]:
        told = Told(person.owner, "", person.key.public, person.key.member, members)
        assert violations([ended.calls[person.key.member]], told) == []


def test_a_message_is_as_long_at_every_member_and_in_every_round(ended):
    lengths = defaultdict(set)
    for member in ended.calls:
        for report in ended.reports(member):
            kind = report.WhichOneof("body")
            if kind == "round_report":
                kind = type(convert.report_from_proto(report).message).__name__
            lengths[kind].add(len(report.SerializeToString()))
    assert {"Advert", "ShareMessage", "InputTrailer", "ConsistencySignature", "Unmasking"} <= set(lengths)
    # Messages with every neighbour are as long as there are neighbours; some members have one more.
    assert {kind: len(each) for kind, each in lengths.items()} == dict.fromkeys(lengths, 1)


def test_no_update_and_no_words_without_masks_are_in_the_bytes(ended):
    for person in ended.world.people.values():
        vectors = [form(person, version) for version in range(ROUNDS) for form in (update_of, counted_of)]
        windows = {window for vector in vectors for window in windows_of(vector.astype(np.float64))}
        for words in ended.bare[person.key.member]:
            windows |= {words[start : start + 8] for start in range(0, len(words) - 7, 8)}
        hidden = Secrets({}, frozenset(windows), frozenset())
        left = ended.left(person.key.member)
        assert hidden.found_in(left) == []
    for leak in (vectors[0][3:5].tobytes(), ended.bare[person.key.member][1][16:24]):
        assert hidden.found_in(left[:101] + leak + left[101:])


def test_masked_words_are_uniform_and_words_without_masks_are_not(ended):
    masked = b"".join(payload for member in ended.calls for payload in ended.payloads(member))
    bare = b"".join(words for member in ended.calls for words in ended.bare[member])
    assert len(masked) == len(bare) > 40_000
    assert deviation(masked) < FAR
    assert deviation(bare) > 10 * FAR
    first, second = (
        np.frombuffer(b"".join(ended.payloads(member)[place] for member in ended.calls), "<u8") for place in range(2)
    )
    assert deviation((second - first).tobytes()) < FAR
