"""The phases of the coordinator's machine; each adds what its step brought. No phase holds a member's input."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lepton_core.errors import InputError, LeptonError
from lepton_core.ids import MemberId, ModelVersion
from lepton_core.secagg.answers import Answers
from lepton_core.secagg.graph import Graph
from lepton_core.secagg.messages import (
    KEY_BYTES,
    Advert,
    ConsistencySignature,
    InputTrailer,
    Roster,
    ShareMessage,
    SurvivorSet,
    Unmasking,
)
from lepton_core.secagg.terms import Setup
from lepton_core.secagg.transcript import DroppedMember, RoundResult


@dataclass(frozen=True)
class BoundModel:
    """What a round trains on; known from step 2 on at the latest."""

    version: ModelVersion
    #: SHA-256, 32 bytes.
    digest: bytes

    def __post_init__(self) -> None:
        """Refuse a digest that is none.

        Raises:
            InputError: not 32 bytes.
        """
        if len(self.digest) != KEY_BYTES:
            raise InputError("a model's digest is 32 bytes", where="model", got=f"{len(self.digest)} bytes")


@dataclass(frozen=True)
class Opening:
    """What does not change during a round."""

    setup: Setup
    setup_id: bytes
    nonce: bytes
    #: Identity keys of the members asked to take part.
    invited: Mapping[MemberId, bytes]


@dataclass(frozen=True)
class Cohort:
    """The frozen roster and what follows from it."""

    opening: Opening
    #: Sorted.
    members: tuple[MemberId, ...]
    adverts: Mapping[MemberId, Advert]
    #: The roster without adverts; each member gets its neighbours' adverts with it.
    roster: Roster
    root: bytes
    graph: Graph
    #: Fewest survivors of any step up to the input, by graph and terms.
    least: int

    @property
    def threshold(self) -> int:
        """Number of holders that rebuild a secret, t."""
        return self.graph.threshold

    def neighbours(self, member: MemberId) -> tuple[MemberId, ...]:
        """With whom the member shares masks and secrets; sorted."""
        return self.graph.neighbours(member)

    def holders(self, dealer: MemberId) -> tuple[MemberId, ...]:
        """Who holds the dealer's shares, in the order of their points."""
        return self.graph.holders(dealer)

    def dealers(self, shares: Collection[MemberId], member: MemberId) -> tuple[MemberId, ...]:
        """The member's neighbours among those that dealt shares; sorted."""
        return tuple(other for other in self.neighbours(member) if other in shares)


@dataclass(frozen=True)
class Agreed(Cohort):
    """A cohort that shares its secrets, and the model that it trains on."""

    model: BoundModel
    sid: bytes


@dataclass(frozen=True)
class Absent:
    """Who is not waited for, and who takes no further part."""

    #: Lost members and why; a message that comes all the same takes a member off.
    lost: Mapping[MemberId, str]
    dropped: tuple[DroppedMember, ...]


@dataclass(frozen=True)
class AwaitingAdverts:
    """Step 0."""

    opening: Opening
    absent: Absent
    adverts: Answers[MemberId, Advert]
    #: Whose each public key is, so that none is taken twice.
    keys: Answers[bytes, MemberId]
    model: BoundModel | None = None


@dataclass(frozen=True)
class AwaitingShares:
    """Step 1."""

    cohort: Cohort
    absent: Absent
    shares: Answers[MemberId, ShareMessage]
    model: BoundModel | None = None


@dataclass(frozen=True)
class AwaitingModel:
    """Steps 0 and 1 are done, and the round before is not; `shares` is complete: its members are the dealers."""

    cohort: Cohort
    absent: Absent
    shares: Answers[MemberId, ShareMessage]


@dataclass(frozen=True)
class AwaitingInputs:
    """Step 2."""

    cohort: Agreed
    absent: Absent
    shares: Answers[MemberId, ShareMessage]
    trailers: Answers[MemberId, InputTrailer]


@dataclass(frozen=True)
class AwaitingSignatures:
    """Step 3; the survivors are frozen."""

    cohort: Agreed
    absent: Absent
    shares: Answers[MemberId, ShareMessage]
    trailers: Answers[MemberId, InputTrailer]
    survivors: SurvivorSet
    alive: frozenset[MemberId] = field(repr=False)
    #: What the survivors sign.
    digest: bytes
    signatures: Answers[MemberId, ConsistencySignature]


@dataclass(frozen=True)
class AwaitingUnmaskings:
    """Step 4; those in `signatures` have been shown that enough of their neighbours signed."""

    cohort: Agreed
    absent: Absent
    shares: Answers[MemberId, ShareMessage]
    trailers: Answers[MemberId, InputTrailer]
    survivors: SurvivorSet
    alive: frozenset[MemberId] = field(repr=False)
    signatures: Answers[MemberId, ConsistencySignature]
    unmaskings: Answers[MemberId, Unmasking]


@dataclass(frozen=True)
class Closed:
    """Over, with a sum."""

    result: RoundResult


@dataclass(frozen=True)
class Failed:
    """Over, without one."""

    error: LeptonError


Running = AwaitingAdverts | AwaitingShares | AwaitingModel | AwaitingInputs | AwaitingSignatures | AwaitingUnmaskings
Phase = Running | Closed | Failed
