"""A coordinator that lies: the member aborts, says why, and keeps no secret."""

from dataclasses import replace

import pytest

from lepton_core.errors import IdentityError, InputError, LeptonError, PeerViolation, PolicyRefusal
from lepton_core.identity import IdentityKey
from lepton_core.ids import MemberId, ModelVersion
from lepton_core.secagg import client, client_phases
from lepton_core.secagg import client_events as told
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.messages import (
    Certificate,
    ConsistencySignature,
    Delivery,
    Leaf,
    Roster,
    ShareKind,
    SurvivorSet,
    Unmasking,
)
from lepton_core.secagg.simulate import event_of, member_event_of
from lepton_core.secagg.terms import LaneGroup
from tests.protocol.fake_link import FakeRound
from tests.protocol.secret_search import secrets_of, shows_any
from tests.protocol.seeded import SeededRandomness, make_identities, make_terms

COUNT = 5  # t = 4


class Victim:
    """A round in which the coordinator forges what it tells one member."""

    def __init__(self, forge=None, kind=None, **options):
        self.forge, self.kind = forge, kind
        self.member = make_identities(COUNT)[2].member
        self.secrets: set[bytes] = set()
        self.before = None
        self.fake = FakeRound(COUNT, down=self._down, **options)
        advertised = self.fake.members[self.member]
        if isinstance(advertised, client_phases.Advertised):
            drawn = advertised.secrets
            self.secrets = {drawn.mask_secret.value, drawn.encryption_private.value, drawn.seed.value}

    def _down(self, member, message):
        if member == self.member and isinstance(message, self.kind or ()):
            return [self.forge(self.fake, message)]
        return [message]

    def run(self):
        self.fake.run()
        return self.error()

    def error(self) -> LeptonError:
        error = self.fake.error_of(self.member)
        failed = self.fake.members[self.member]
        assert secrets_of(failed) == set()
        assert not shows_any(failed, self.secrets)
        return error


def until(fake, member, phase_type):
    """Run the link until the member is in a phase, holding what comes for it afterwards."""
    while not isinstance(fake.members[member], phase_type):
        kind, receiver, message = fake.queue.pop(0)
        if kind == "up":
            fake.hear(event_of(message))
        else:
            fake.tell(receiver, member_event_of(message))


def readvert(fake, index, **changes):
    """A colluding peer's advert, properly signed, with other contents."""
    key = fake.identities[index]
    advert = (
        replace(fake.members[key.member].advert, **changes) if hasattr(fake.members[key.member], "advert") else None
    )
    if advert is None:
        advert = next(event.advert for event in fake.journal if event.advert.member == key.member)
        advert = replace(advert, **changes)
    return replace(advert, signature=key.sign(advert.signed_bytes(fake.setup.setup_id())))


def with_advert(fake, roster, advert):
    """The roster with this advert, and the leaf that fits it."""
    leaf = Leaf(advert.member, advert.digest(fake.setup.setup_id()))
    return replace(
        roster,
        leaves=tuple(leaf if old.member == leaf.member else old for old in roster.leaves),
        adverts=tuple(advert if old.member == advert.member else old for old in roster.adverts),
    )


def without(roster, *members):
    return replace(
        roster,
        leaves=tuple(leaf for leaf in roster.leaves if leaf.member not in members),
        adverts=tuple(advert for advert in roster.adverts if advert.member not in members),
    )


def invented(fake, roster):
    """The CA holder's own members beside the victim, each with good keys and signatures."""
    adverts = []
    for key in make_identities(4, seed="invented by the coordinator"):
        _, (send,) = client.start(
            fake.setup,
            key,
            replace(fake.admission, members={key.member: key.public}),
            SeededRandomness(key.member.hex()),
        )
        adverts.append(send.message)
    adverts.sort(key=lambda advert: advert.member)
    victim = make_identities(COUNT)[2].member
    own = next(leaf for leaf in roster.leaves if leaf.member == victim)
    leaves = [own, *(Leaf(advert.member, advert.digest(fake.setup.setup_id())) for advert in adverts)]
    return Roster(tuple(sorted(leaves, key=lambda leaf: leaf.member)), roster.server_nonce, tuple(adverts))


def altered_leaf(roster, member):
    return replace(
        roster,
        leaves=tuple(
            replace(leaf, advert_digest=b"x" * 32) if leaf.member == member else leaf for leaf in roster.leaves
        ),
    )


FORGED_ROSTERS = {
    "a duplicated leaf": (lambda fake, r: replace(r, leaves=(*r.leaves[:1], *r.leaves)), "BAD_ROSTER"),
    "leaves out of order": (lambda fake, r: replace(r, leaves=r.leaves[::-1]), "BAD_ROSTER"),
    "four members of the coordinator's own": (invented, "NOT_ADMITTED"),
    "one invented member": (
        lambda fake, r: replace(r, leaves=(*r.leaves, Leaf(MemberId(b"\xff" * 16), b"x" * 32))),
        "NOT_ADMITTED",
    ),
    "its own key altered": (lambda fake, r: altered_leaf(r, fake.ids[2]), "OWN_KEY_ALTERED"),
    "itself left out": (lambda fake, r: replace(r, leaves=r.leaves[:2] + r.leaves[3:]), "OWN_KEY_ALTERED"),
    "a neighbour's key substituted": (
        lambda fake, r: with_advert(fake, r, replace(r.adverts[0], mask_public=b"\x09" + bytes(31))),
        "BAD_SIGNATURE",
    ),
    "an advert signed for another setup": (
        lambda fake, r: with_advert(
            fake, r, replace(r.adverts[0], signature=fake.identities[0].sign(r.adverts[0].signed_bytes(b"s" * 32)))
        ),
        "BAD_SIGNATURE",
    ),
    "another identity under an admitted id": (
        lambda fake, r: with_advert(fake, r, replace(r.adverts[0], identity=fake.identities[1].public)),
        "OTHER_IDENTITY",
    ),
    "an advert that is not the leaf's": (lambda fake, r: altered_leaf(r, fake.ids[0]), "SUBSTITUTED_KEY"),
    "a colluder's low-order masking key": (
        lambda fake, r: with_advert(fake, r, readvert(fake, 0, mask_public=bytes(32))),
        "BAD_KEY",
    ),
    "a colluder's low-order encryption key": (
        lambda fake, r: with_advert(fake, r, readvert(fake, 0, encryption_public=b"\x01" + bytes(31))),
        "BAD_KEY",
    ),
    "a colluder with a neighbour's key": (
        lambda fake, r: with_advert(fake, r, readvert(fake, 0, mask_public=r.adverts[1].mask_public)),
        "REPEATED_KEY",
    ),
    "an omitted neighbour": (lambda fake, r: replace(r, adverts=r.adverts[1:]), "WRONG_NEIGHBOURS"),
    "neighbours out of order": (lambda fake, r: replace(r, adverts=r.adverts[::-1]), "WRONG_NEIGHBOURS"),
    "a nonce that does not open the commitment": (lambda fake, r: replace(r, server_nonce=b"x" * 32), "BAD_NONCE"),
    "fewer members than the terms say": (lambda fake, r: without(r, fake.ids[0], fake.ids[1]), "ROSTER_SIZE"),
}


@pytest.mark.parametrize("name", FORGED_ROSTERS)
def test_a_member_aborts_before_dealing_when_the_roster_holds(name):
    forge, reason = FORGED_ROSTERS[name]
    victim = Victim(forge, Roster, terms=make_terms(min_cohort=4))
    error = victim.run()
    assert error.reason == reason
    assert not any(message.dealer == victim.member for message in sent_shares(victim.fake))


def sent_shares(fake):
    return [event.message for event in fake.journal if isinstance(event, heard.SharesReceived)]


FORGED_SURVIVORS = {
    "itself dead": (lambda fake, s: s.survivors[:2] + s.survivors[3:], "LEFT_OUT"),
    "an id that is not on the roster": (lambda fake, s: (*s.survivors, MemberId(b"\xff" * 16)), "UNKNOWN_SURVIVOR"),
    "a repeated id": (lambda fake, s: (s.survivors[0], *s.survivors), "BAD_SURVIVORS"),
    "ids out of order": (lambda fake, s: s.survivors[::-1], "BAD_SURVIVORS"),
    "fewer than the threshold": (lambda fake, s: s.survivors[:3], "TOO_FEW_SURVIVORS"),
    "nobody": (lambda fake, s: (), "LEFT_OUT"),
}


@pytest.mark.parametrize("name", FORGED_SURVIVORS)
def test_a_member_signs_no_survivor_set_with(name):
    forge, reason = FORGED_SURVIVORS[name]
    victim = Victim(lambda fake, s: SurvivorSet(forge(fake, s)), SurvivorSet)
    assert victim.run().reason == reason
    assert not any(
        type(e).__name__ == "SignatureReceived" and e.signature.member == victim.member for e in victim.fake.journal
    )


def test_a_member_signs_no_survivor_set_below_the_minimum_cohort():
    victim = Victim(lambda fake, s: SurvivorSet(s.survivors[:4]), SurvivorSet, terms=make_terms(min_cohort=5))
    error = victim.run()
    assert error.reason == "TOO_FEW_SURVIVORS"
    assert "at least 5" in error.expected


def test_a_member_signs_no_survivor_set_with_a_neighbour_whose_shares_it_lacks():
    victim = Victim(lambda fake, d: replace(d, dealt=d.dealt[1:]), Delivery)
    until(victim.fake, victim.member, client_phases.Uploaded)
    victim.fake.tell(victim.member, told.SurvivorsReceived(SurvivorSet(tuple(victim.fake.ids))))
    assert victim.error().reason == "UNHELD_SURVIVOR"


def own_only(fake, certificate):
    victim = make_identities(COUNT)[2].member
    return Certificate(tuple(entry for entry in certificate.signatures if entry.member == victim))


def other_set(fake, certificate):
    forged = tuple(ConsistencySignature(key.member, key.sign(b"another survivor set")) for key in fake.identities)
    return Certificate(forged)


FORGED_CERTIFICATES = {
    "too few signatures": (lambda fake, c: Certificate(c.signatures[:2]), "TOO_FEW_SIGNATURES"),
    "only its own signature": (own_only, "TOO_FEW_SIGNATURES"),
    "one signature counted twice": (
        lambda fake, c: Certificate((c.signatures[0], c.signatures[0], *c.signatures[1:3])),
        "BAD_CERTIFICATE",
    ),
    "signatures over another set": (other_set, "BAD_SIGNATURE"),
    "a stranger's signature": (
        lambda fake, c: Certificate((*c.signatures, ConsistencySignature(MemberId(b"\xff" * 16), b"s" * 64))),
        "BAD_SIGNER",
    ),
}


@pytest.mark.parametrize("name", FORGED_CERTIFICATES)
def test_a_member_reveals_no_share_for_a_certificate_with(name):
    forge, reason = FORGED_CERTIFICATES[name]
    victim = Victim(forge, Certificate)
    assert victim.run().reason == reason
    assert not victim.fake.recorded[victim.member, ModelVersion(4)]
    assert not any(
        isinstance(event, heard.UnmaskingReceived) and event.unmasking.member == victim.member
        for event in victim.fake.journal
    )


def test_too_few_signatures_are_too_few_although_the_own_one_counts():
    kept = Victim(
        lambda fake, c: Certificate(tuple(e for e in c.signatures if e.member != fake.ids[2])[:3]), Certificate
    )
    kept.fake.run()
    assert isinstance(kept.fake.members[kept.member], client_phases.Done)


def tampered(dealt):
    return replace(dealt, ciphertext=bytes([dealt.ciphertext[0] ^ 1]) + dealt.ciphertext[1:])


FORGED_DELIVERIES = {
    "a dealer that is no neighbour": (
        lambda fake, d: replace(d, dealt=(*d.dealt, replace(d.dealt[-1], dealer=MemberId(b"\xff" * 16)))),
        "UNKNOWN_DEALER",
    ),
    "itself as a dealer": (
        lambda fake, d: replace(
            d, dealt=tuple(sorted((*d.dealt, replace(d.dealt[0], dealer=fake.ids[2])), key=lambda x: x.dealer))
        ),
        "UNKNOWN_DEALER",
    ),
    "a dealer twice": (lambda fake, d: replace(d, dealt=(d.dealt[0], *d.dealt)), "BAD_DELIVERY"),
    "too few dealers": (lambda fake, d: replace(d, dealt=d.dealt[:2]), "TOO_FEW_SHARES"),
    "two ciphertexts swapped": (
        lambda fake, d: replace(
            d,
            dealt=(
                replace(d.dealt[0], ciphertext=d.dealt[1].ciphertext),
                replace(d.dealt[1], ciphertext=d.dealt[0].ciphertext),
                *d.dealt[2:],
            ),
        ),
        "TOO_FEW_SHARES",
    ),
    "two ciphertexts tampered with": (
        lambda fake, d: replace(
            d,
            dealt=(
                *(replace(x, ciphertext=bytes([x.ciphertext[0] ^ 1]) + x.ciphertext[1:]) for x in d.dealt[:2]),
                *d.dealt[2:],
            ),
        ),
        "TOO_FEW_SHARES",
    ),
    "its own ciphertexts reflected": (
        lambda fake, d: replace(
            d,
            dealt=tuple(
                replace(
                    x,
                    ciphertext=next(
                        s.ciphertext for s in fake.phase.shares[fake.ids[2]].sealed if s.holder == x.dealer
                    ),
                )
                for x in d.dealt
            ),
        ),
        "TOO_FEW_SHARES",
    ),
    "digests that nobody signed": (
        lambda fake, d: replace(d, dealt=tuple(replace(x, signature=b"s" * 64) for x in d.dealt)),
        "TOO_FEW_SHARES",
    ),
    "digests cut short": (
        lambda fake, d: replace(d, dealt=tuple(replace(x, digests=x.digests[:2]) for x in d.dealt)),
        "TOO_FEW_SHARES",
    ),
}


@pytest.mark.parametrize("name", FORGED_DELIVERIES)
def test_a_member_masks_nothing_after_a_delivery_with(name):
    forge, reason = FORGED_DELIVERIES[name]
    victim = Victim(forge, Delivery)
    assert victim.run().reason == reason
    assert len(victim.fake.stored) == COUNT - 1


def test_one_tampered_ciphertext_costs_one_input_and_the_sum_stays_exact():
    victim = Victim(
        lambda fake, d: replace(d, dealt=(replace(d.dealt[0], ciphertext=b"\0" * 112), *d.dealt[1:])), Delivery
    )
    victim.fake.run()
    victim.fake.assert_exact()
    assert len(victim.fake.result.survivors) == COUNT - 1
    assert victim.member not in victim.fake.result.survivors
    assert victim.fake.result.plan.pair_masks == COUNT - 1


def test_members_shown_different_models_derive_different_masks():
    victim = Victim(lambda fake, d: replace(d, model_digest=b"crafted model".ljust(32)), Delivery)
    until(victim.fake, victim.member, client_phases.Uploaded)
    honest = next(member for member in victim.fake.ids if member != victim.member)
    until(victim.fake, honest, client_phases.Uploaded)
    assert victim.fake.members[victim.member].round.sid != victim.fake.members[honest].round.sid
    victim.fake.run()
    assert victim.member not in victim.fake.result.survivors
    assert [r.error.reason for r in victim.fake.rejected] == ["BAD_SIGNATURE"]
    assert [r.member for r in victim.fake.rejected] == [victim.member]


def test_a_model_version_is_answered_once_over_all_rounds():
    victim = Victim(answered={ModelVersion(4)})
    victim.fake.run()
    assert victim.error().reason == "ALREADY_ANSWERED"
    assert not victim.fake.stored


def test_a_different_certificate_while_the_answer_is_recorded_ends_the_round_unanswered():
    victim = Victim()
    until(victim.fake, victim.member, client_phases.Consistent)
    consistent = victim.fake.members[victim.member]
    certificate = []
    victim.fake.down = lambda member, message: (
        certificate.append(message) or [] if isinstance(message, Certificate) and member == victim.member else [message]
    )
    while victim.fake.queue and not certificate:
        kind, receiver, message = victim.fake.queue.pop(0)
        if kind == "up":
            victim.fake.hear(event_of(message))
        else:
            victim.fake.tell(receiver, member_event_of(message))
    recording, effects = client.step(consistent, told.CertificateReceived(certificate[0]))
    assert effects == (told.RecordAnswer(ModelVersion(4)),)
    failed, effects = client.step(recording, told.CertificateReceived(Certificate(certificate[0].signatures[:2])))
    assert failed.error.reason == "DIFFERENT_REPETITION"
    assert not any(isinstance(effect, told.Send) for effect in effects)
    done, effects = client.step(recording, told.AnswerRecorded())
    assert [type(effect) for effect in effects] == [told.Send, told.Finished]
    # Two unmask requests: the same one gets the same answer, another gets nothing.
    assert client.step(done, told.CertificateReceived(certificate[0]))[1] == effects[:1]
    assert client.step(done, told.CertificateReceived(Certificate(certificate[0].signatures[:2])))[1] == ()


def test_a_member_reveals_one_kind_of_share_a_dealer_and_never_its_own_masking_key():
    victim = make_identities(COUNT)[4].member
    fake = FakeRound(
        COUNT,
        up=lambda member, message: [] if member == victim and type(message).__name__ == "InputTrailer" else [message],
    ).run()
    unmaskings: list[Unmasking] = [e.unmasking for e in fake.journal if isinstance(e, heard.UnmaskingReceived)]
    assert len(unmaskings) == COUNT - 1
    for unmasking in unmaskings:
        kinds = {entry.dealer: entry.kind for entry in unmasking.revealed}
        assert len(kinds) == len(unmasking.revealed) == COUNT
        assert {dealer for dealer, kind in kinds.items() if kind is ShareKind.MASK_KEY} == {victim}


LOWERED_TERMS = {
    "a lower minimum cohort than the policy's": ({"min_cohort": 3}, PolicyRefusal, "MIN_COHORT"),
    "fewer colluders than the policy assumes": ({"corruption": 0.0}, PolicyRefusal, "CORRUPTION"),
    "another membership list": ({"membership_digest": b"x" * 32}, IdentityError, "OTHER_MEMBERSHIP"),
    "no lane group": ({"lane_groups": ()}, InputError, ""),
    "a lane that is no lane": ({"lane_groups": (LaneGroup(9, 13),)}, InputError, ""),
    "a cohort of two": ({"min_cohort": 2}, InputError, ""),
    "more members than a roster lists": ({"max_cohort": 10_001}, InputError, ""),
    "a sparse graph that can be ground": ({"security_bits": 40}, InputError, ""),
    "too many members that drop out": ({"max_cohort": 70, "dropout": 0.6}, InputError, "INFEASIBLE"),
    "a threshold below the safe one": (
        {"max_cohort": 100, "neighbours": 32, "threshold": 21},
        InputError,
        "INFEASIBLE",
    ),
    "a threshold above what its neighbours allow": (
        {"max_cohort": 100, "neighbours": 8, "threshold": 9},
        InputError,
        "",
    ),
}


@pytest.mark.parametrize("name", LOWERED_TERMS)
def test_a_member_draws_no_secret_for_terms_with(name):
    changes, kind, reason = LOWERED_TERMS[name]
    fake = FakeRound(COUNT, terms=make_terms(min_cohort=4))
    setup = replace(fake.setup, terms=replace(fake.terms, **changes))
    randomness = SeededRandomness("unused")
    phase, (aborted,) = client.start(setup, fake.identities[0], fake.admission, randomness)
    assert isinstance(phase, client_phases.Failed)
    assert isinstance(aborted.error, kind)
    assert aborted.error.reason == reason
    assert randomness._drawn == 0


def test_a_member_that_is_not_on_its_own_list_takes_no_part():
    fake = FakeRound(COUNT)
    stranger = IdentityKey.generate(SeededRandomness("stranger"))
    phase, _ = client.start(fake.setup, stranger, fake.admission, SeededRandomness("x"))
    assert phase.error.reason == "NOT_LISTED"


@pytest.mark.parametrize(
    "phase", [client_phases.Advertised, client_phases.Shared, client_phases.Uploaded, client_phases.Consistent]
)
def test_a_stopped_member_says_so_and_keeps_nothing(phase):
    victim = Victim()
    until(victim.fake, victim.member, phase)
    (aborted,) = victim.fake.tell(victim.member, told.Stop("outside the hours of the policy"))
    assert "outside the hours" in aborted.error.message
    assert victim.error().reason == "STOPPED"
    assert victim.fake.tell(victim.member, told.RosterReceived(Roster((), b"", ()))) == ()


def test_the_violations_name_the_coordinator():
    victim = Victim(lambda fake, r: replace(r, server_nonce=b"x" * 32), Roster)
    error = victim.run()
    assert isinstance(error, PeerViolation)
    assert error.where == "coordinator"
