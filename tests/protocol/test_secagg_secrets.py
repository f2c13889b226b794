"""Where a member's secrets are in each phase and where they are not, by inspection of everything it holds."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from lepton_core.errors import InputError
from lepton_core.ids import MemberId, ModelVersion
from lepton_core.secagg import client, client_phases
from lepton_core.secagg import client_events as told
from lepton_core.secagg.agreement import Secret
from lepton_core.secagg.answers import Answers
from lepton_core.secagg.client_phases import (
    Advertised,
    Consistent,
    Done,
    Failed,
    Recording,
    Shared,
    Training,
    Uploaded,
    Uploading,
)
from lepton_core.secagg.messages import Certificate, Delivery, Roster, SurvivorSet, Unmasking
from tests.protocol.fake_link import FakeRound
from tests.protocol.secret_search import reachable, secrets_of, shows_any
from tests.protocol.seeded import SeededRandomness, make_identities

COUNT = 5
VICTIM = make_identities(COUNT)[2].member
LOST = make_identities(COUNT)[4].member


class Watched:
    """A round in which one member is lost before its input, and each phase of the victim is kept, with what it did."""

    def __init__(self):
        self.phases = {}
        self.shown = []
        self.unmasking = None
        fake = FakeRound(COUNT, up=self._up)
        self._keep(fake.members[VICTIM])
        tell = fake.tell

        def watched(member, event):
            if member == VICTIM:
                self._keep(fake.members[member])
            before = fake.members[member]
            effects = tell(member, event)
            if member == VICTIM:
                self.shown.append(repr(before) + str(effects) + repr(fake.members[member]) + repr(event))
                self._keep(fake.members[member])
            return effects

        fake.tell = watched
        fake.run()
        fake.assert_exact()

    def _keep(self, phase):
        self.phases.setdefault(type(phase), phase)

    def _up(self, member, message):
        if member == VICTIM and isinstance(message, Unmasking):
            self.unmasking = message
        return [] if member == LOST and type(message).__name__ == "InputTrailer" else [message]


@pytest.fixture(scope="module")
def watched():
    return Watched()


@pytest.fixture(scope="module")
def drawn(watched):
    """By name, the secrets of the victim's round."""
    own, shared = watched.phases[Advertised].secrets, watched.phases[Shared]
    held = watched.phases[Training].round.held
    return {
        "what it drew": {own.mask_secret.value, own.encryption_private.value, own.seed.value},
        "its self-mask seed": {own.seed.value},
        "what it agreed on": {s.value for s in (*shared.sealing.values(), *shared.masking.values())},
        "masks": {stream.key.value for stream in watched.phases[Training].streams},
        "masking shares of members that were not lost": {
            shares.mask_key.value for dealer, shares in held.items() if dealer != LOST
        },
        "the seed share of the lost member": {held[LOST].self_seed.value},
    }


GONE = {
    Shared: [],
    Training: ["what it drew", "what it agreed on"],
    Uploading: ["what it drew", "what it agreed on", "masks"],
    Uploaded: ["what it drew", "what it agreed on", "masks"],
    Consistent: ["what it drew", "what it agreed on", "masks"],
    Recording: ["what it drew", "what it agreed on", "masks"],
}


def test_every_phase_was_watched(watched):
    assert set(watched.phases) == {Advertised, Done, *GONE}


@pytest.mark.parametrize("phase", GONE)
def test_a_secret_that_is_needed_no_more_is_gone_from(phase, watched, drawn):
    secrets = secrets_of(watched.phases[phase])
    assert secrets
    for name in GONE[phase]:
        assert not shows_any(watched.phases[phase], drawn[name]), name


def test_private_keys_are_gone_once_they_were_used(watched):
    own = watched.phases[Advertised].secrets
    assert not shows_any(watched.phases[Shared], {own.mask_secret.value, own.encryption_private.value})


def test_a_member_that_is_done_holds_no_secret_but_what_it_told(watched, drawn):
    done = watched.phases[Done]
    assert secrets_of(done) == set()
    assert done.answer == watched.unmasking
    for name, secrets in drawn.items():
        assert not shows_any(done, secrets), name
    everything = set().union(*(secrets_of(phase) for phase in watched.phases.values()))
    told_shares = {entry.share for entry in done.answer.revealed} | {entry.salt for entry in done.answer.revealed}
    assert not shows_any(done, everything - told_shares)
    assert len(everything - told_shares) > 20


def test_no_secret_is_in_what_a_log_a_debugger_or_a_traceback_would_show(watched):
    everything = set().union(*(secrets_of(phase) for phase in watched.phases.values()))
    shown = "".join(watched.shown)
    assert "redacted" in shown
    for secret in everything:
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
        assert str(int.from_bytes(secret, "big")) not in shown


FAULTS = {
    Advertised: told.RosterReceived(Roster((), b"x" * 32, ())),
    Shared: told.DeliveryReceived(Delivery((), ModelVersion(4), b"x" * 32)),
    Training: told.SurvivorsReceived(SurvivorSet(())),
    Uploading: told.SurvivorsReceived(SurvivorSet(())),
    Uploaded: told.SurvivorsReceived(SurvivorSet((MemberId(b"\xff" * 16),))),
    Consistent: told.CertificateReceived(Certificate(())),
    Recording: told.CertificateReceived(Certificate(())),
}


@pytest.mark.parametrize("event", ["a fault", "a stop"])
@pytest.mark.parametrize("phase", FAULTS)
def test_a_member_that_fails_holds_no_secret(phase, event, watched):
    everything = set().union(*(secrets_of(kept) for kept in watched.phases.values()))
    came = FAULTS[phase] if event == "a fault" else told.Stop("test")
    failed, effects = client.step(watched.phases[phase], came)
    assert isinstance(failed, Failed)
    assert failed.error.reason
    assert effects == (told.Aborted(failed.error),)
    assert secrets_of((failed, effects)) == set()
    assert not shows_any((failed, effects), everything)


def test_every_phase_that_can_fail_is_failed_by_a_test():
    running = set(client_phases.Phase.__args__) - {Done, Failed}
    assert running == set(FAULTS)


# The search itself ----------------------------------------------------------------------------------------------------


class Slotted:
    """Neither a dataclass nor a container."""

    __slots__ = ("inside",)

    def __init__(self, inside):
        self.inside = inside


class Plain:
    """As above, with a dictionary."""

    def __init__(self, inside):
        self.inside = inside


@dataclass(frozen=True)
class Unshown:
    """A field that neither shows nor compares is searched like any other."""

    inside: object = field(repr=False, compare=False)


def error_with(secret):
    """An error whose frame still holds the secret."""

    def fails(hidden):
        raise InputError("test")

    try:
        fails(secret)
    except InputError as error:
        return error


HIDING_PLACES = {
    "a field that is not shown": Unshown,
    "a mapping": lambda secret: {"a": {"b": secret}},
    "a mapping of ours": lambda secret: Answers().with_entry("a", secret),
    "a mapping's keys": lambda secret: {(1, secret.value): 1},
    "an object with slots": Slotted,
    "an object with a dictionary": Plain,
    "a tuple in a list": lambda secret: [(1, (secret,))],
    "a set": lambda secret: {(secret.value,)},
    "an error's frames": error_with,
    "an array": lambda secret: np.frombuffer(secret.value, dtype=np.uint64),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_the_search_finds_a_secret_in(place):
    secret = Secret(b"hide and seek".ljust(32))
    hidden = Unshown(HIDING_PLACES[place](secret))
    assert shows_any(hidden, {secret.value})
    assert not shows_any(hidden, {b"another".ljust(32)})


def test_the_search_refuses_a_type_that_it_cannot_look_into():
    with pytest.raises(AssertionError, match="does not know"):
        list(reachable((1, iter([Secret(b"x" * 32)]))))


def test_the_search_looks_into_a_member_s_randomness():
    """The seeded generator of tests could make every secret again, so `Shared` and later must not hold it."""
    advertised = FakeRound(COUNT).members[VICTIM]
    assert any(isinstance(found, SeededRandomness) for found in reachable(advertised))


@pytest.mark.parametrize("phase", [*GONE, Done])
def test_the_randomness_is_gone_after_the_shares_were_dealt(phase, watched):
    assert not any(isinstance(found, SeededRandomness) for found in reachable(watched.phases[phase]))
