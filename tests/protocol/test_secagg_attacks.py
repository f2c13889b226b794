"""Attacks by a coordinator that runs several members against each other, and by liars that work together."""

from dataclasses import replace

import numpy as np
import pytest

from lepton_core.ids import MemberId, ModelVersion
from lepton_core.lane_widths import LANE_BITS
from lepton_core.membership import ListedMember, MembershipList
from lepton_core.secagg import client, client_phases, server
from lepton_core.secagg import client_events as told
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.agreement import seal
from lepton_core.secagg.lanes import pack_input, unpack_sum
from lepton_core.secagg.messages import (
    Certificate,
    ConsistencySignature,
    DealtShares,
    Delivery,
    InputTrailer,
    Leaf,
    Roster,
    SealedShares,
    ShareKind,
    ShareMessage,
    SurvivorSet,
    Unmasking,
)
from lepton_core.secagg.shamir import PRIME
from lepton_core.secagg.sharing import share_digest
from lepton_core.secagg.simulate import event_of, run_round
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import LaneGroup
from tests.protocol.fake_link import FakeRound
from tests.protocol.secret_search import secrets_of
from tests.protocol.seeded import SeededRandomness, make_identities, make_terms

EIGHT = 8  # t = 6


def message_in(effects, kind):
    """The one message of this kind that a member sends."""
    (message,) = (effect.message for effect in effects if isinstance(effect, told.Send))
    assert isinstance(message, kind)
    return message


def uploaded_members(count):
    """A round whose members have all uploaded and were told nothing since."""
    return FakeRound(count, down=lambda member, m: [] if isinstance(m, SurvivorSet) else [m], seed="two sets")


def stop_at_survivors(fake):
    while fake.queue:
        kind, member, message = fake.queue.pop(0)
        if kind == "up":
            fake.hear(event_of(message))
        else:
            fake.tell(member, fake.event_for(message))
    assert all(isinstance(phase, client_phases.Uploaded) for phase in fake.members.values())
    return fake


# Equivocation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(EIGHT + 1))
def test_a_member_cannot_be_alive_for_some_and_dead_for_others(first):
    """One member is shown to `first` others as alive and to the rest as dead, with every true signature there is.

    There is one list, so that the living and the dead can overlap over two views only; of no dealer both kinds leave.
    """
    fake = stop_at_survivors(uploaded_members(EIGHT))
    disputed = fake.ids[7]
    everybody, without = SurvivorSet(tuple(fake.ids)), SurvivorSet(tuple(fake.ids[:7]))
    shown = {member: everybody if place < first else without for place, member in enumerate(fake.ids)}
    phases, signatures = {}, {everybody: [], without: []}
    for member, survivors in shown.items():
        phases[member], effects = client.step(fake.members[member], told.SurvivorsReceived(survivors))
        if isinstance(phases[member], client_phases.Consistent):
            signatures[survivors].append(message_in(effects, ConsistencySignature))
    revealed = {}
    for member, phase in phases.items():
        if isinstance(phase, client_phases.Failed):
            assert phase.error.reason == "LEFT_OUT"
            continue
        certificate = Certificate(tuple(signatures[shown[member]]))
        answering, _ = client.step(phase, told.CertificateReceived(certificate))
        if isinstance(answering, client_phases.Failed):
            assert answering.error.reason == "TOO_FEW_SIGNATURES"
            continue
        _, (send, _) = client.step(answering, told.AnswerRecorded())
        revealed[member] = {entry.dealer: entry.kind for entry in send.message.revealed}
    assert len({kinds[disputed] for kinds in revealed.values()}) <= 1
    # Six must have signed: the rest, who were shown the other set, hold too few shares for either secret.
    assert len(revealed) in {0, 6, 7, 8}


def test_signatures_over_one_survivor_set_do_not_serve_for_another():
    fake = stop_at_survivors(uploaded_members(EIGHT))
    victim, others = fake.ids[0], fake.ids[1:7]
    everybody, without = SurvivorSet(tuple(fake.ids)), SurvivorSet(tuple(fake.ids[:7]))
    signed = [
        message_in(client.step(fake.members[member], told.SurvivorsReceived(everybody))[1], ConsistencySignature)
        for member in others
    ]
    phase, _ = client.step(fake.members[victim], told.SurvivorsReceived(without))
    failed, effects = client.step(phase, told.CertificateReceived(Certificate(tuple(signed))))
    assert failed.error.reason == "BAD_SIGNATURE"
    assert effects == (told.Aborted(failed.error),)


@pytest.mark.parametrize("first", range(1, 7))
def test_members_that_were_shown_different_rosters_share_no_mask(first):
    """One roster lacks the last member. Each group pairs with its own only, and one that is too small masks nothing."""
    fake = FakeRound(EIGHT, up=lambda member, m: [])
    for member in fake.ids:
        fake.hear(heard.AdvertReceived(fake.members[member].advert))
    groups = {member: place < first for place, member in enumerate(fake.ids[:7])}
    shared, dealt = {}, {}
    for member, in_first in groups.items():
        whole = server.outstanding(fake.phase, member)
        roster = whole if in_first else without(whole, fake.ids[7])
        shared[member], effects = client.step(fake.members[member], told.RosterReceived(roster))
        dealt[member] = message_in(effects, ShareMessage)
    assert len({phase.circle.root for phase in shared.values()}) == 2
    for member, in_first in groups.items():
        delivery = Delivery(dealt_to(member, dealt), ModelVersion(4), b"d" * 32)
        phase, _ = client.step(shared[member], told.DeliveryReceived(delivery))
        own = tuple(other for other in groups if groups[other] is in_first and other != member)
        if len(own) >= shared[member].circle.graph.quorum:
            assert phase.round.paired == own
            continue
        assert phase.error.reason == "TOO_FEW_SHARES"
        assert secrets_of(phase) == set()


def without(roster, member):
    """The roster as it would be if the member had not advertised."""
    leaves = tuple(leaf for leaf in roster.leaves if leaf.member != member)
    return replace(roster, leaves=leaves, adverts=tuple(a for a in roster.adverts if a.member != member))


def dealt_to(member, messages):
    """What every other dealer sealed for the member."""
    return tuple(
        DealtShares(
            dealer,
            next(entry.ciphertext for entry in message.sealed if entry.holder == member),
            message.digests,
            message.signature,
        )
        for dealer, message in sorted(messages.items())
        if dealer != member
    )


# Every message twice, and before its time -----------------------------------------------------------------------------

KINDS = ("setup", "roster", "delivery", "survivors", "certificate")
#: How many of the kinds a member has answered in each phase.
ANSWERED = {
    client_phases.Advertised: 1,
    client_phases.Shared: 2,
    client_phases.Training: 3,
    client_phases.Uploading: 3,
    client_phases.Uploaded: 3,
    client_phases.Consistent: 4,
    client_phases.Recording: 5,
}


@pytest.fixture(scope="module")
def phases():
    """Each phase of one member of an honest round, and what it was told."""
    fake = FakeRound(5)
    member, kept, events = fake.ids[2], {}, {"setup": told.SetupReceived(fake.setup)}
    kept[client_phases.Advertised] = fake.members[member]
    tell = fake.tell
    names = {
        told.RosterReceived: "roster",
        told.DeliveryReceived: "delivery",
        told.SurvivorsReceived: "survivors",
        told.CertificateReceived: "certificate",
    }

    def watched(who, event):
        if who == member:
            kept.setdefault(type(fake.members[who]), fake.members[who])
            if type(event) in names:
                events[names[type(event)]] = event
        return tell(who, event)

    fake.tell = watched
    fake.run()
    kept[client_phases.Done] = fake.members[member]
    return kept, events


def another(kind, events):
    """A different message of the kind, as a lying coordinator may make one."""
    match kind:
        case "setup":
            return told.SetupReceived(replace(events[kind].setup, nonce_commitment=b"x" * 32))
        case "roster":
            return told.RosterReceived(replace(events[kind].roster, server_nonce=b"x" * 32))
        case "delivery":
            return told.DeliveryReceived(replace(events[kind].delivery, model_digest=b"x" * 32))
        case "survivors":
            return told.SurvivorsReceived(SurvivorSet(events[kind].survivors.survivors[:4]))
        case _:
            return told.CertificateReceived(Certificate(events[kind].certificate.signatures[:2]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", ANSWERED)
def test_a_second_different_message_or_one_before_its_step_ends_the_round_in(phase, kind, phases):
    kept, events = phases
    place, answered = KINDS.index(kind), ANSWERED[phase]
    due = place == answered and phase not in {client_phases.Training, client_phases.Recording}
    if due:
        return  # the next message: what is refused in it is told elsewhere
    failed, effects = client.step(kept[phase], another(kind, events))
    assert failed.error.reason == ("DIFFERENT_REPETITION" if place < answered else "OUT_OF_ORDER")
    assert effects == (told.Aborted(failed.error),)
    assert secrets_of(failed) == set()
    # The same again changes nothing, and no answer but the last is given again.
    if place < answered:
        same, effects = client.step(kept[phase], events[kind])
        assert same is kept[phase]
        assert all(isinstance(effect, told.Send | told.Upload) for effect in effects)
        assert len(effects) <= (place == answered - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_is_done_answers_its_certificate_again_and_nothing_else(kind, phases):
    kept, events = phases
    done = kept[client_phases.Done]
    phase, effects = client.step(done, events[kind])
    assert phase is done
    assert effects == ((told.Send(done.answer),) if kind == "certificate" else ())
    assert client.step(done, another(kind, events)) == (done, ())


@pytest.mark.parametrize("kind", ["roster", "delivery", "survivors", "certificate"])
def test_what_was_told_before_a_restart_ends_the_round_of_the_restarted_member(kind, phases):
    """Its secrets died with the process: it cannot be made to answer for keys that it does not have."""
    _, events = phases
    fake = FakeRound(5)
    restarted, _ = client.start(fake.setup, fake.identities[2], fake.admission, SeededRandomness("after the restart"))
    failed, effects = client.step(restarted, events[kind])
    assert failed.error.reason == ("OWN_KEY_ALTERED" if kind == "roster" else "OUT_OF_ORDER")
    assert effects == (told.Aborted(failed.error),)


def recording(seed):
    """A member that is about to answer on model version 4, in a round of its own."""
    fake = FakeRound(5, seed=seed)
    member, kept = fake.ids[2], []
    tell = fake.tell

    def watched(who, event):
        if who == member and isinstance(event, told.AnswerRecorded):
            kept.append(fake.members[who])
        return tell(who, event)

    fake.tell = watched
    fake.run()
    return kept[0]


def test_of_two_attempts_at_one_model_version_a_member_answers_one():
    """Both run up to the unmasking; the record that must be durable first is the same for both."""
    first, second = recording("first attempt"), recording("second attempt")
    assert first.round.sid != second.round.sid
    record, sent = set(), []
    for phase in (first, second):
        version = phase.round.delivery.model_version
        event = told.Stop("answered already") if version in record else told.AnswerRecorded()
        record.add(version)
        ended, effects = client.step(phase, event)
        sent += [effect.message for effect in effects if isinstance(effect, told.Send)]
    assert len(sent) == 1
    assert isinstance(sent[0], Unmasking)
    assert ended.error.reason == "STOPPED"
    assert secrets_of(ended) == set()


# Peers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("where", ["beside itself", "at the end"])
def test_a_leaf_that_stands_twice_is_refused_wherever_it_stands(place, where):
    def forge(member, message):
        if member != fake.ids[1] or not isinstance(message, Roster):
            return [message]
        leaves = list(message.leaves)
        leaves.insert(place + 1 if where == "beside itself" else len(leaves), leaves[place])
        return [replace(message, leaves=tuple(leaves))]

    fake = FakeRound(5)
    fake.down = forge
    fake.run()
    assert fake.error_of(fake.ids[1]).reason == "BAD_ROSTER"


def test_an_identity_that_the_list_revokes_is_no_peer():
    fake = FakeRound(5)
    listed = MembershipList(
        federation="test",
        version=2,
        issued=0,
        expires=10,
        members=tuple(
            ListedMember(owner=f"owner-{place}", identity=key.public.hex()) for place, key in enumerate(fake.identities)
        ),
        revoked=(fake.identities[3].public.hex(),),
    )
    admission = replace(fake.admission, members=listed.admitted())
    phase, (send,) = client.start(fake.setup, fake.identities[2], admission, SeededRandomness("revoked"))
    for key in fake.identities:
        advert = send.message if key.member == fake.ids[2] else fake.members[key.member].advert
        fake.hear(heard.AdvertReceived(advert))
    failed, _ = client.step(phase, told.RosterReceived(server.outstanding(fake.phase, fake.ids[2])))
    assert failed.error.reason == "NOT_ADMITTED"
    assert failed.error.where == f"member {fake.ids[3].hex()}"
    # The revoked member itself takes no part either.
    own, _ = client.start(fake.setup, fake.identities[3], admission, SeededRandomness("own"))
    assert own.error.reason == "NOT_LISTED"


@pytest.mark.parametrize("copied", ["mask_public", "encryption_public"])
def test_a_colluder_that_takes_the_victims_own_key_is_refused(copied):
    fake = FakeRound(5)
    victim, colluder = fake.ids[2], fake.identities[0]

    def forge(member, message):
        if member != victim or not isinstance(message, Roster):
            return [message]
        own = fake.members[victim].advert
        advert = replace(message.adverts[0], **{copied: own.mask_public})
        advert = replace(advert, signature=colluder.sign(advert.signed_bytes(fake.setup.setup_id())))
        leaf = Leaf(advert.member, advert.digest(fake.setup.setup_id()))
        return [replace(message, leaves=(leaf, *message.leaves[1:]), adverts=(advert, *message.adverts[1:]))]

    fake.down = forge
    fake.run()
    assert fake.error_of(victim).reason == "REPEATED_KEY"


def test_in_a_sparse_graph_shares_of_a_member_that_is_no_neighbour_are_refused():
    terms = make_terms(dropout=0.03, max_cohort=66, corruption=0.0)

    def forge(member, message):
        if member != victim or not isinstance(message, Delivery):
            return [message]
        around = {entry.dealer for entry in message.dealt}
        far = next(other for other in fake.ids if other not in around and other != victim)
        dealt = sorted((replace(message.dealt[0], dealer=far), *message.dealt[1:]), key=lambda entry: entry.dealer)
        return [replace(message, dealt=tuple(dealt))]

    fake = FakeRound(66, terms=terms, down=forge)
    victim = fake.ids[11]
    fake.run()
    assert fake.error_of(victim).reason == "UNKNOWN_DEALER"
    assert not any(event.trailer.member == victim for event in fake.journal if isinstance(event, heard.InputReceived))


# Liars that work together ---------------------------------------------------------------------------------------------


def dealt_anew(fake, dealer, message, holder, share):
    """The dealer's message with this masking share for one holder, signed and sealed as if it were right."""
    shared = fake.members[dealer.member]
    salt = b"s" * 32
    seed = bytes(31) + b"\x05"
    digests = tuple(
        replace(entry, mask_key=share_digest(salt, share), self_seed=share_digest(salt, seed))
        if entry.holder == holder
        else entry
        for entry in message.digests
    )
    setup_id = fake.setup.setup_id()
    sealed = tuple(
        SealedShares(holder, seal(shared.sealing[holder], setup_id, dealer.member, holder, salt + share + seed))
        if entry.holder == holder
        else entry
        for entry in message.sealed
    )
    forged = replace(message, digests=digests, sealed=sealed)
    return replace(forged, signature=dealer.sign(forged.signed_bytes(setup_id, shared.circle.root)))


TOO_LARGE = [PRIME.to_bytes(32, "big"), b"\xff" * 32]


@pytest.mark.parametrize("share", TOO_LARGE, ids=["p", "2^256 - 1"])
def test_a_dealer_whose_sealed_share_is_p_or_more_is_treated_as_absent(share):
    dealer, holder = make_identities(EIGHT)[1], make_identities(EIGHT)[6].member

    def up(member, message):
        if member == dealer.member and isinstance(message, ShareMessage):
            return [dealt_anew(fake, dealer, message, holder, share)]
        return [message]

    fake = FakeRound(EIGHT)
    fake.up = up
    fake.run()
    fake.assert_exact()
    assert [(drop.member, drop.step) for drop in fake.dropped] == [(holder, Step.INPUT)]


@pytest.mark.parametrize("share", TOO_LARGE, ids=["p", "2^256 - 1"])
def test_a_holder_that_reveals_a_share_of_p_or_more_is_named_although_its_dealer_signed_it(share):
    """Dealer and holder work together; the dealer is then lost, so that its masking secret is needed."""
    dealer, holder = make_identities(EIGHT)[1], make_identities(EIGHT)[6]

    def up(member, message):
        if member == dealer.member and isinstance(message, ShareMessage):
            honest.append(message)
            return [dealt_anew(fake, dealer, message, holder.member, share)]
        if member == dealer.member and isinstance(message, InputTrailer):
            return []
        if member == holder.member and isinstance(message, InputTrailer):
            # It says that it holds the dealer's shares, as it does.
            paired = tuple(sorted({*message.paired, dealer.member}))
            forged = replace(message, paired=paired)
            return [replace(forged, signature=holder.sign(forged.signed_bytes(fake.phase.cohort.sid)))]
        if member == holder.member and isinstance(message, Unmasking):
            kept = [entry for entry in message.revealed if entry.dealer != dealer.member]
            bad = replace(kept[0], dealer=dealer.member, kind=ShareKind.MASK_KEY, salt=b"s" * 32, share=share)
            forged = replace(message, revealed=tuple(sorted((*kept, bad), key=lambda entry: entry.dealer)))
            return [replace(forged, signature=holder.sign(forged.signed_bytes(fake.phase.cohort.sid)))]
        return [message]

    honest = []
    fake = FakeRound(EIGHT)
    fake.up = up
    fake.run()
    assert honest
    assert [(r.member, r.error.reason) for r in fake.rejected] == [(holder.member, "BAD_SHARE")]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_dealer_that_lies_to_fewer_holders_than_the_threshold_needs_cannot_stop_or_bend_the_sum(missing):
    """Shares of another secret for two holders, signed like the right ones, which are revealed as they were dealt.

    Exactly t shares are taken, and what they rebuild is checked: the round is exact or names the dealer.
    """
    dealer = make_identities(EIGHT)[1]
    holders = [make_identities(EIGHT)[place].member for place in (0, 6)[missing:]]

    def up(member, message):
        if member == dealer.member and isinstance(message, ShareMessage):
            for holder in holders:
                message = dealt_anew(fake, dealer, message, holder, bytes(31) + b"\x09")
            return [message]
        return [message]

    fake = FakeRound(EIGHT)
    fake.up = up
    fake.run()
    if missing == 0:  # one of the two is among the six whose shares are taken
        assert fake.result is None
        assert fake.blamed == dealer.member
        assert fake.error.reason == "BAD_DEALER"
    else:
        fake.assert_exact()
    assert not fake.rejected


# Lanes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", LANE_BITS)
@pytest.mark.parametrize("which", ["every lane full", "every other lane full", "one lane full", "every lane empty"])
def test_the_extreme_of_every_lane_comes_back_and_runs_into_no_other(bits, which):
    """Three or seven members, whichever divides 2^bits - 1: their largest values fill a lane to its last bit."""
    count = 3 if (2**bits - 1) % 3 == 0 else 7
    largest = (2**bits - 1) // count
    assert count * largest == 2**bits - 1
    length = 2 * (64 // bits) + 1
    value = np.zeros(length, dtype=np.int64)
    match which:
        case "every lane full":
            value[:] = largest
        case "every other lane full":
            value[::2] = largest
        case "one lane full":
            value[1] = largest
    terms = make_terms((LaneGroup(length, bits), LaneGroup(1, bits)), max_cohort=count)
    identities = make_identities(count)
    words = pack_input([value, value[:1]], terms)
    ended = run_round(identities, {key.member: words for key in identities}, terms, SeededRandomness("extreme"))
    first, second = unpack_sum(ended.groups, terms)
    np.testing.assert_array_equal(first, count * value)
    np.testing.assert_array_equal(second, count * value[:1])


def test_an_id_that_nobody_has_is_in_no_list_of_an_honest_round(phases):
    """What the forged lists above are compared with: the same lists, unforged, are accepted."""
    _, events = phases
    assert MemberId(b"\xff" * 16) not in events["survivors"].survivors.survivors
    assert len(events["certificate"].certificate.signatures) == 3
