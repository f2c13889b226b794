"""Messages bent by somebody who can change every bit of them and sign nothing."""

import random
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import lru_cache

from lepton_core.secagg.messages import ShareMessage
from lepton_core.secagg.simulate import event_of
from tests.protocol.fake_link import FakeRound

#: The field that names a message's sender.
SENDER = {"Advert": "member", "ShareMessage": "dealer"}


def bend(value, rng: random.Random):
    """The same kind of value with one bit, number, choice or list entry of it changed; never equal to it."""
    if isinstance(value, bytes):
        if not value:
            return b"\0"
        place, bit = rng.randrange(len(value)), 1 << rng.randrange(8)
        return value[:place] + bytes([value[place] ^ bit]) + value[place + 1 :]
    if isinstance(value, Enum):
        return rng.choice([other for other in type(value) if other is not value])
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 8)) if value else 1
    if isinstance(value, tuple):
        return _bend_list(value, rng)
    assert is_dataclass(value), value
    name = rng.choice([field.name for field in fields(value)])
    return replace(value, **{name: bend(getattr(value, name), rng)})


def _bend_list(entries, rng):
    if not entries:
        return (b"\xff" * 16,) if rng.random() < 0.5 else ((),)
    place, how = rng.randrange(len(entries)), rng.random()
    if how < 0.15:
        return entries[:place] + entries[place + 1 :]
    if how < 0.3:
        return (*entries[: place + 1], *entries[place:])
    if how < 0.4 and len(set(entries)) > 1:
        return entries[::-1]
    return (*entries[:place], bend(entries[place], rng), *entries[place + 1 :])


def renamed(message, member):
    """A member's message under another member's name."""
    return replace(message, **{SENDER.get(type(message).__name__, "member"): member})


def sender_of(message):
    """Whose name a member's message bears."""
    return getattr(message, SENDER.get(type(message).__name__, "member"))


def is_unsigned_change(message, bent):
    """True if only ciphertexts differ: a dealer signs the digests of what it seals, and each holder checks those."""
    return (
        isinstance(message, ShareMessage)
        and replace(bent, sealed=message.sealed) == message
        and tuple(entry.holder for entry in bent.sealed) == tuple(entry.holder for entry in message.sealed)
        and [len(entry.ciphertext) for entry in bent.sealed] == [len(entry.ciphertext) for entry in message.sealed]
    )


@lru_cache(maxsize=32)
def another_round(count):
    """What the same members said, and were told, in another round: ("up" or "down", member, message)."""
    said = []

    def note(kind):
        return lambda member, message: said.append((kind, member, message)) or [message]

    FakeRound(count, seed="another round", number=2, up=note("up"), down=note("down")).run()
    return tuple(said)


def hear(fake, message):
    """The coordinator hears the message; returns the refusals of it."""
    already = len(fake.rejected)
    fake.hear(event_of(message))
    return fake.rejected[already:]
