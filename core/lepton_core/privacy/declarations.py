"""What an owner declares in its privacy ledger, beside charges: another identity signs on, a population is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lepton_core.errors import InputError
from lepton_core.privacy.links import FORMAT, LedgerHead, Link, Sign, finite, signed

#: `state` of a `Succession` and of an `Opening`, beside those of charges.
SUCCEEDED, OPENED = "SUCCEEDED", "OPENED"
_KEY_BYTES = 32
#: An owner's reason is kept up to so many characters.
_LONGEST_REASON = 500


@dataclass(frozen=True)
class Succession(Link):
    """From here on another key signs: the machine with the old one is lost, the budget is not.

    `previous` names the old head; the signature is by the successor, as are those of all later entries.

    Raises:
        InputError: not two Ed25519 keys, or one twice.
    """

    #: Ed25519 public key that signed the entries before; 32 bytes.
    predecessor: bytes
    #: Ed25519 public key that signs this one and those after; 32 bytes.
    successor: bytes

    def __post_init__(self) -> None:
        keys = (self.predecessor, self.successor)
        if len(set(keys)) != 2 or any(len(key) != _KEY_BYTES for key in keys):
            raise InputError(
                "a succession of other than two identities",
                where=f"ledger entry {self.sequence}",
                expected=f"two Ed25519 public keys of {_KEY_BYTES} bytes",
            )

    def document(self) -> dict[str, Any]:
        """See `Link.document`."""
        return {
            "format": FORMAT,
            "previous": self.previous,
            "sequence": self.sequence,
            "state": SUCCEEDED,
            "predecessor": self.predecessor.hex(),
            "successor": self.successor.hex(),
            "time": float(self.time),
        }


@dataclass(frozen=True)
class Opening(Link):
    """The owner declares that a population holds none of the people of those that the ledger knows by now.

    Raises:
        InputError: an empty name, no reason or a long one, or a population that is to be disjoint from itself.
    """

    population: str
    #: Names of the populations that were charged or opened before, sorted.
    disjoint_from: tuple[str, ...]
    #: Why, in the owner's words; for whoever audits the ledger.
    reason: str

    def __post_init__(self) -> None:
        reason = self.reason.strip()
        if not self.population or self.population in self.disjoint_from:
            raise InputError(
                "not a new population",
                where=f"ledger entry {self.sequence}",
                expected="a name that the ledger does not know",
                got=repr(self.population),
            )
        if not reason or len(reason) > _LONGEST_REASON:
            raise InputError(
                "a population is opened for a reason",
                where=f"ledger entry {self.sequence}",
                expected=f"1 to {_LONGEST_REASON} characters",
                got=f"{len(reason)}",
            )

    def document(self) -> dict[str, Any]:
        """See `Link.document`."""
        return {
            "format": FORMAT,
            "previous": self.previous,
            "sequence": self.sequence,
            "state": OPENED,
            "population": self.population,
            "disjoint_from": list(self.disjoint_from),
            "reason": self.reason,
            "time": float(self.time),
        }


def succeed(head: LedgerHead, predecessor: bytes, successor: bytes, *, time: float, sign: Sign) -> Succession:
    """The entry by which `successor`, whose signature `sign` makes, goes on with a chain that ended at `head`.

    Raises:
        InputError: a time that is not finite, a signature that is not 64 bytes, or as `Succession`.
    """
    entry = Succession(
        previous=head.digest,
        sequence=head.sequence + 1,
        time=finite(time),
        signature=b"",
        predecessor=predecessor,
        successor=successor,
    )
    return signed(entry, sign)


def open_population(
    head: LedgerHead, population: str, known: Sequence[str], *, reason: str, time: float, sign: Sign
) -> Opening:
    """The entry by which the owner opens a population, declared disjoint from the `known` ones.

    Raises:
        InputError: a time that is not finite, a signature that is not 64 bytes, or as `Opening`.
    """
    entry = Opening(
        previous=head.digest,
        sequence=head.sequence + 1,
        time=finite(time),
        signature=b"",
        population=population,
        disjoint_from=tuple(sorted(known)),
        reason=reason,
    )
    return signed(entry, sign)
