"""Members that lie to the coordinator: the right liar is named, and the others' sum stays exact or is not told."""

from dataclasses import replace

import pytest

from lepton_core.errors import IdentityError, InputError, PeerViolation
from lepton_core.identity import IdentityKey
from lepton_core.ids import ModelVersion
from lepton_core.secagg import server, server_phases
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.agreement import draw_round_secrets
from lepton_core.secagg.messages import (
    Advert,
    ConsistencySignature,
    InputTrailer,
    SealedShares,
    ShareKind,
    ShareMessage,
    Unmasking,
)
from lepton_core.secagg.server_answers import certificate_for
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.shamir import PRIME
from lepton_core.secagg.sharing import CIPHERTEXT_BYTES, deal
from lepton_core.secagg.simulate import event_of, member_event_of
from lepton_core.secagg.steps import Step
from lepton_core.secagg.survivors import symmetric_core, unrecoverable
from tests.protocol.fake_link import MODEL_DIGEST, NONCE, FakeRound
from tests.protocol.seeded import SeededRandomness, make_identities, make_terms

COUNT = 5  # t = 4
LIAR = make_identities(COUNT)[1]


def lying(kind, forge):
    """A link on which the liar's message of one kind is replaced."""
    return lambda member, message: (
        [forge(message)] if member == LIAR.member and isinstance(message, kind) else [message]
    )


def sid_of(fake):
    return fake.phase.cohort.sid


def resigned(fake, unmasking):
    return replace(unmasking, signature=LIAR.sign(unmasking.signed_bytes(sid_of(fake))))


def run_until_unmasking(fake):
    while not isinstance(fake.phase, server_phases.AwaitingUnmaskings):
        kind, member, message = fake.queue.pop(0)
        if kind == "up":
            fake.hear(event_of(message))
        else:
            fake.tell(member, member_event_of(message))


FORGED_SHARES = {
    "another share": lambda entry: replace(entry, share=bytes(31) + b"\x07"),
    "a share of p or more": lambda entry: replace(entry, share=PRIME.to_bytes(32, "big")),
    "a share that is too long": lambda entry: replace(entry, share=entry.share + b"\0"),
    "no share": lambda entry: replace(entry, share=b""),
    "another salt": lambda entry: replace(entry, salt=b"s" * 32),
    "the other kind": lambda entry: replace(entry, kind=ShareKind.MASK_KEY),
}


@pytest.mark.parametrize("name", FORGED_SHARES)
def test_a_holder_is_named_that_reveals(name):
    fake = FakeRound(COUNT)
    fake.up = lying(
        Unmasking,
        lambda message: resigned(
            fake, replace(message, revealed=(FORGED_SHARES[name](message.revealed[0]), *message.revealed[1:]))
        ),
    )
    fake.run()
    (rejected,) = fake.rejected
    assert rejected.member == LIAR.member
    assert isinstance(rejected.error, PeerViolation)
    assert rejected.error.where == f"member {LIAR.member.hex()}"
    # Four right answers are enough, so the sum is exact, the liar's honest input included.
    fake.assert_exact()
    assert LIAR.member in fake.result.survivors


def test_a_true_share_of_the_kind_that_was_not_asked_for_is_refused():
    fake = FakeRound(COUNT)
    held = {}

    def up(member, message):
        if member == LIAR.member and isinstance(message, ConsistencySignature):
            held.update(fake.members[member].round.held)
        if member == LIAR.member and isinstance(message, Unmasking):
            first = message.revealed[0]
            true_share = held[first.dealer].reveal(first.dealer, ShareKind.MASK_KEY)
            return [resigned(fake, replace(message, revealed=(true_share, *message.revealed[1:])))]
        return [message]

    fake.up = up
    fake.run()
    assert [(r.member, r.error.reason) for r in fake.rejected] == [(LIAR.member, "WRONG_KIND")]
    fake.assert_exact()


@pytest.mark.parametrize("field", ["mask_key", "self_seed"])
def test_a_dealer_whose_sealed_share_is_not_the_one_it_signed_is_treated_as_absent(field):
    """The ciphertext opens; one digest of the victim's pair is of another share."""
    victim = make_identities(8)[6].member

    def up(member, message):
        if member != make_identities(8)[1].member or not isinstance(message, ShareMessage):
            return [message]
        digests = tuple(
            replace(entry, **{field: b"x" * 32}) if entry.holder == victim else entry for entry in message.digests
        )
        forged = replace(message, digests=digests)
        signed = forged.signed_bytes(fake.setup.setup_id(), fake.phase.cohort.root)
        return [replace(forged, signature=make_identities(8)[1].sign(signed))]

    fake = FakeRound(8, up=up)
    fake.run()
    fake.assert_exact()
    assert [(drop.member, drop.step) for drop in fake.dropped] == [(victim, Step.INPUT)]


@pytest.mark.parametrize(
    "forge",
    [
        lambda revealed: revealed[1:],
        lambda revealed: (revealed[0], *revealed),
        lambda revealed: revealed[::-1],
        lambda revealed: (),
    ],
)
def test_an_unmasking_that_is_not_one_share_a_dealer_is_refused(forge):
    fake = FakeRound(COUNT)
    fake.up = lying(Unmasking, lambda message: resigned(fake, replace(message, revealed=forge(message.revealed))))
    fake.run()
    assert [rejected.error.reason for rejected in fake.rejected] == ["BAD_UNMASKING"]
    fake.assert_exact()


def test_one_good_share_less_than_the_threshold_tells_nothing():
    gone = make_identities(COUNT)[3].member
    fake = FakeRound(COUNT)

    def up(member, message):
        if isinstance(message, Unmasking) and member == gone:
            return []
        if isinstance(message, Unmasking) and member == LIAR.member:
            wrong = replace(message.revealed[0], share=bytes(31) + b"\x07")
            return [resigned(fake, replace(message, revealed=(wrong, *message.revealed[1:])))]
        return [message]

    fake.up = up
    fake.run()
    assert fake.result is None
    assert fake.error.reason == "TOO_FEW_MEMBERS"
    assert fake.error.got.startswith("3;")


def test_a_liar_that_answers_rightly_before_the_deadline_counts():
    fake = FakeRound(COUNT)

    def up(member, message):
        if member != LIAR.member or not isinstance(message, Unmasking):
            return [message]
        return [resigned(fake, replace(message, revealed=message.revealed[1:])), message]

    fake.up = up
    fake.run()
    assert fake.deadlines == 0
    fake.assert_exact()


@pytest.mark.parametrize("lost", [False, True])
def test_a_dealer_is_named_whose_right_shares_rebuild_another_secret(lost):
    """The liar deals shares of secrets that it did not advertise; every digest is right."""
    fake = FakeRound(COUNT)

    def up(member, message):
        if member != LIAR.member:
            return [message]
        if isinstance(message, ShareMessage):
            shared = fake.members[member]
            other = draw_round_secrets(SeededRandomness("other secrets"))
            forged, own_shares = deal(
                LIAR,
                other,
                shared.sealing,
                threshold=shared.circle.threshold,
                setup_id=fake.setup.setup_id(),
                roster_root=shared.circle.root,
                randomness=SeededRandomness("deal"),
            )
            fake.members[member] = replace(shared, own_shares=own_shares)
            return [forged]
        return [] if lost and isinstance(message, InputTrailer) else [message]

    fake.up = up
    fake.run()
    assert fake.result is None
    assert fake.blamed == LIAR.member
    assert fake.error.reason == "BAD_DEALER"
    assert LIAR.member.hex() in fake.error.where
    assert not fake.rejected


def reseal(message, ciphertext):
    return replace(message, sealed=tuple(SealedShares(entry.holder, ciphertext) for entry in message.sealed))


def test_a_dealer_that_seals_rubbish_for_everybody_is_left_out_or_ends_the_round():
    fake = FakeRound(
        8,
        up=lambda member, message: [
            reseal(message, b"\0" * CIPHERTEXT_BYTES)
            if member == make_identities(8)[1].member and isinstance(message, ShareMessage)
            else message
        ],
    ).run()
    fake.assert_exact()
    assert [drop.step for drop in fake.dropped] == [Step.INPUT]
    assert fake.dropped[0].member == make_identities(8)[1].member
    # Nobody has a pair mask with it that would need its shares.
    assert fake.result.plan.pair_masks == 0


def test_a_dealer_that_seals_rubbish_for_one_holder_does_not_stop_the_round():
    liar, victim = make_identities(8)[1].member, make_identities(8)[6].member

    def up(member, message):
        if member != liar or not isinstance(message, ShareMessage):
            return [message]
        sealed = tuple(
            SealedShares(entry.holder, b"\0" * CIPHERTEXT_BYTES) if entry.holder == victim else entry
            for entry in message.sealed
        )
        return [replace(message, sealed=sealed)]

    fake = FakeRound(8, up=up).run()
    fake.assert_exact()
    assert [(drop.member, drop.step) for drop in fake.dropped] == [(victim, Step.INPUT)]
    assert fake.result.plan.mask_keys_reconstructed == 1


def test_the_round_ends_before_anything_is_revealed_when_a_lost_dealer_s_masks_cannot_be_taken_away():
    spared = {make_identities(COUNT)[0].member, make_identities(COUNT)[2].member}

    def up(member, message):
        if member != LIAR.member or not isinstance(message, ShareMessage):
            return [message]
        sealed = tuple(
            entry if entry.holder in spared else SealedShares(entry.holder, b"\0" * CIPHERTEXT_BYTES)
            for entry in message.sealed
        )
        return [replace(message, sealed=sealed)]

    fake = FakeRound(COUNT, up=up).run()
    assert fake.result is None
    assert fake.error.reason == "UNRECOVERABLE"
    assert fake.error.where == f"member {LIAR.member.hex()}"
    assert not any(isinstance(event, heard.SignatureReceived | heard.UnmaskingReceived) for event in fake.journal)


FORGED_SHARE_MESSAGES = {
    "a ciphertext too long": lambda m: reseal(m, b"\0" * (CIPHERTEXT_BYTES + 1)),
    "a holder left out": lambda m: replace(m, sealed=m.sealed[1:]),
    "a digest left out": lambda m: replace(m, digests=m.digests[1:]),
    "digests that it did not sign": lambda m: replace(
        m, digests=(replace(m.digests[0], mask_key=b"x" * 32), *m.digests[1:])
    ),
}


@pytest.mark.parametrize("name", FORGED_SHARE_MESSAGES)
def test_a_share_message_is_refused_with(name):
    fake = FakeRound(COUNT, up=lying(ShareMessage, FORGED_SHARE_MESSAGES[name])).run()
    assert [rejected.member for rejected in fake.rejected] == [LIAR.member]
    fake.assert_exact()
    assert LIAR.member not in fake.result.survivors


FORGED_TRAILERS = {
    "another length": (lambda t: replace(t, payload_bytes=t.payload_bytes + 8), "WRONG_LENGTH"),
    "a pair twice": (lambda t: replace(t, paired=(t.paired[0], *t.paired)), "BAD_PAIRS"),
    "itself as a pair": (lambda t: replace(t, paired=tuple(sorted((*t.paired, t.member)))), "BAD_PAIRS"),
    "too few pairs": (lambda t: replace(t, paired=t.paired[:2]), "BAD_PAIRS"),
    "a stranger as a pair": (lambda t: replace(t, paired=(*t.paired, b"\xff" * 16)), "BAD_PAIRS"),
}


@pytest.mark.parametrize("name", FORGED_TRAILERS)
def test_an_input_is_refused_with(name):
    forge, reason = FORGED_TRAILERS[name]
    fake = FakeRound(COUNT)

    def sign(trailer):
        forged = forge(trailer)
        return replace(forged, signature=LIAR.sign(forged.signed_bytes(sid_of(fake))))

    fake.up = lying(InputTrailer, sign)
    fake.run()
    assert [(rejected.member, rejected.error.reason) for rejected in fake.rejected] == [(LIAR.member, reason)]
    fake.assert_exact()
    assert LIAR.member not in fake.result.survivors


@pytest.mark.parametrize("kind", [Advert, ShareMessage, InputTrailer, ConsistencySignature, Unmasking])
def test_a_message_with_a_wrong_signature_changes_nothing(kind):
    fake = FakeRound(COUNT, up=lying(kind, lambda message: replace(message, signature=b"s" * 64))).run()
    assert [(r.member, r.error.reason) for r in fake.rejected] == [(LIAR.member, "BAD_SIGNATURE")]
    assert isinstance(fake.rejected[0].error, IdentityError)
    fake.assert_exact()


def advertise(fake, **changes):
    advert = replace(fake.members[LIAR.member].advert, **changes)
    advert = replace(advert, signature=LIAR.sign(advert.signed_bytes(fake.setup.setup_id())))
    return fake.hear(heard.AdvertReceived(advert))


def test_an_advert_with_which_the_others_would_abort_is_refused():
    fake = FakeRound(COUNT)
    other = fake.members[fake.ids[0]].advert
    fake.hear(heard.AdvertReceived(other))
    for changes, reason in (
        ({"mask_public": bytes(32)}, "BAD_KEY"),
        ({"encryption_public": b"\x01" + bytes(31)}, "BAD_KEY"),
        ({"mask_public": other.mask_public}, "REPEATED_KEY"),
        ({"encryption_public": fake.members[LIAR.member].advert.mask_public}, "REPEATED_KEY"),
        ({"mask_public": b"short"}, ""),
        ({"identity": fake.identities[0].public}, "OTHER_IDENTITY"),
    ):
        (rejected,) = advertise(fake, **changes)
        assert rejected.member == LIAR.member
        assert rejected.error.reason == reason
    fake.run()
    fake.assert_exact()


def test_an_uninvited_member_is_refused():
    fake = FakeRound(COUNT)
    stranger = IdentityKey.generate(SeededRandomness("stranger"))
    advert = replace(fake.members[fake.ids[0]].advert, member=stranger.member, identity=stranger.public)
    (rejected,) = fake.hear(heard.AdvertReceived(advert))
    assert rejected.error.reason == "NOT_EXPECTED"


def test_a_second_and_different_message_is_refused_and_the_first_counts():
    fake = FakeRound(COUNT)
    run_until_unmasking(fake)
    other = replace(fake.phase.trailers[LIAR.member], payload_digest=b"x" * 32)
    phase = fake.phase
    (rejected,) = fake.hear(heard.InputReceived(other))
    assert rejected.error.reason == "DIFFERENT_REPETITION"
    assert fake.phase is phase
    # The same again is answered with what the member should have been told.
    (again,) = fake.hear(heard.InputReceived(phase.trailers[LIAR.member]))
    assert again == heard.Send(LIAR.member, certificate_for(phase.cohort, phase.signatures, LIAR.member))
    fake.run()
    fake.assert_exact()


def test_messages_before_their_step_are_refused():
    fake = FakeRound(COUNT)
    for event in (
        heard.SharesReceived(ShareMessage(LIAR.member, (), (), b"")),
        heard.InputReceived(InputTrailer(LIAR.member, b"", 0, (), b"")),
        heard.SignatureReceived(ConsistencySignature(LIAR.member, b"")),
        heard.UnmaskingReceived(Unmasking(LIAR.member, (), b"")),
    ):
        (rejected,) = fake.hear(event)
        assert rejected.error.reason == "OUT_OF_ORDER"


def test_the_deadline_of_a_step_that_is_over_changes_nothing():
    fake = FakeRound(COUNT)
    run_until_unmasking(fake)
    for step in (Step.ADVERT, Step.SHARE, Step.INPUT, Step.CONSISTENCY):
        assert fake.hear(heard.DeadlinePassed(step)) == ()
    fake.run()
    fake.assert_exact()


def test_the_end_of_a_round_is_the_end():
    fake = FakeRound(COUNT).run()
    for event in tuple(fake.journal):
        assert fake.hear(event) == ()


def test_no_round_is_opened_that_no_member_would_accept():
    fake = FakeRound(COUNT)
    listed = {key.member: key.public for key in fake.identities}
    model = BoundModel(ModelVersion(0), MODEL_DIGEST)
    many = dict.fromkeys(map(str, range(10_001)), b"")
    with pytest.raises(InputError) as refused:
        server.start(fake.setup, NONCE, many, model)
    assert refused.value.reason == "COHORT_SIZE"
    few_stay = replace(fake.setup, terms=make_terms(max_cohort=70, dropout=0.6))
    with pytest.raises(InputError) as refused:
        server.start(few_stay, NONCE, {key.member: key.public for key in make_identities(65)}, model)
    assert refused.value.reason == "INFEASIBLE"
    with pytest.raises(InputError, match="nonce"):
        server.start(fake.setup, b"x" * 32, listed, model)
    with pytest.raises(InputError, match="invited"):
        server.start(replace(fake.setup, terms=make_terms(min_cohort=6)), NONCE, listed, model)
    with pytest.raises(InputError, match="identity key"):
        server.start(fake.setup, NONCE, {**listed, fake.ids[0]: fake.identities[1].public}, model)


def test_the_one_that_lacks_shares_leaves_a_sum_before_the_one_that_dealt_them():
    a, b, c, d = "abcd"
    everybody = {a: {b, c, d}, b: {a, c, d}, c: {a, b, d}, d: {a, b, c}}
    around = {member: tuple(sorted(others)) for member, others in everybody.items()}

    def frozen(pairs):
        return {member: frozenset(others) for member, others in pairs.items()}

    assert symmetric_core(frozen(everybody), around) == (a, b, c, d)
    assert symmetric_core(frozen(everybody | {c: {b, d}}), around) == (a, b, d)
    assert symmetric_core(frozen(everybody | {c: {b, d}, d: {b, c}}), around) == (b, c, d)
    assert symmetric_core(frozen(everybody | {c: set()}), around) == (a, b, d)
    assert symmetric_core({}, {}) == ()


def test_a_lost_member_whose_shares_too_few_survivors_hold_is_found_before_anything_is_revealed():
    paired = {"a": {"b", "x"}, "b": {"a", "x"}, "c": {"x", "y"}}
    everybody = ("a", "b", "c")
    assert unrecoverable(everybody, everybody, paired, 2) == ("c", "y")
    assert unrecoverable(everybody, everybody, paired, 1) == ()
    # A survivor holds a share of its own seed, and those that will not answer hold nothing that counts.
    assert unrecoverable(("a", "b"), everybody, paired, 2) == ("c", "y")
    assert unrecoverable(("a",), everybody, paired, 1) == ("c", "y")
