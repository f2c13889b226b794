"""The phases of the member's machine: each holds only what is valid, and still needed, in that phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_core.errors import LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.ids import MemberId
from lepton_core.ports import Randomness
from lepton_core.secagg.agreement import RoundSecrets, Secret
from lepton_core.secagg.client_checks import Admission, Circle
from lepton_core.secagg.client_events import Upload
from lepton_core.secagg.masks import MaskStream
from lepton_core.secagg.messages import (
    Advert,
    Certificate,
    ConsistencySignature,
    Delivery,
    ShareMessage,
    SurvivorSet,
    Unmasking,
)
from lepton_core.secagg.sharing import HeldShares
from lepton_core.secagg.terms import Setup


@dataclass(frozen=True)
class Own:
    """What does not change during a round."""

    setup: Setup
    setup_id: bytes
    identity: IdentityKey
    admission: Admission


@dataclass(frozen=True)
class Round:
    """Everything agreed by step 2a, and the shares of others that this member holds."""

    own: Own
    circle: Circle
    delivery: Delivery
    sid: bytes
    #: By dealer, this member's own included.
    held: Mapping[MemberId, HeldShares]
    #: U1: neighbours whose shares are held; sorted.
    paired: tuple[MemberId, ...]


@dataclass(frozen=True)
class Advertised:
    """Awaits the roster."""

    own: Own
    secrets: RoundSecrets
    advert: Advert
    randomness: Randomness


@dataclass(frozen=True)
class Shared:
    """Awaits the shares of the others; the private keys are gone, what was agreed with them is not."""

    own: Own
    #: Key of the self mask.
    seed: Secret
    #: By neighbour: the shared secret behind the keys that seal shares.
    sealing: Mapping[MemberId, Secret]
    #: By neighbour: the shared secret behind the pair mask.
    masking: Mapping[MemberId, Secret]
    circle: Circle
    own_shares: HeldShares
    answer: ShareMessage


@dataclass(frozen=True)
class Training:
    """Awaits the packed update; the masks are derived, the secrets they come from are gone."""

    round: Round
    streams: tuple[MaskStream, ...]


@dataclass(frozen=True)
class Uploading:
    """The pump uploads; the masks are gone."""

    round: Round
    upload: Upload


@dataclass(frozen=True)
class Uploaded:
    """Awaits the survivor set."""

    round: Round
    upload: Upload


@dataclass(frozen=True)
class Consistent:
    """Awaits the certificate."""

    round: Round
    survivors: SurvivorSet
    answer: ConsistencySignature


@dataclass(frozen=True)
class Recording:
    """The unmasking is ready, and waits until the answer is durable."""

    round: Round
    survivors: SurvivorSet
    certificate: Certificate
    answer: Unmasking


@dataclass(frozen=True)
class Done:
    """Answered; the stored answer is repeated when asked for with the same certificate."""

    survivors: SurvivorSet
    certificate: Certificate
    answer: Unmasking


@dataclass(frozen=True)
class Failed:
    """Over without an answer."""

    error: LeptonError


Phase = Advertised | Shared | Training | Uploading | Uploaded | Consistent | Recording | Done | Failed
