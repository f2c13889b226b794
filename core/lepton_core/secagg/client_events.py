"""What goes into the member's machine and what comes out of it: events and effects, as data."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from lepton_core.errors import LeptonError
from lepton_core.ids import MemberId, ModelVersion
from lepton_core.ring import Words
from lepton_core.secagg.messages import Certificate, Delivery, InputTrailer, MemberMessage, Roster, SurvivorSet
from lepton_core.secagg.terms import Setup

# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SetupReceived:
    """The invitation came again: the coordinator has not seen the advert."""

    setup: Setup


@dataclass(frozen=True)
class RosterReceived:
    """Step 1 from the coordinator."""

    roster: Roster


@dataclass(frozen=True)
class DeliveryReceived:
    """Step 2a from the coordinator, and the model versions of this job that were answered so far."""

    delivery: Delivery
    answered: AbstractSet[ModelVersion] = frozenset()


@dataclass(frozen=True)
class InputReady:
    """Training and encoding are done. words: shape (terms.words,), uint64, packed lanes without masks; not shown."""

    words: Words = field(repr=False)


@dataclass(frozen=True)
class UploadDone:
    """The coordinator has the words, and the trailer was sent behind them."""


@dataclass(frozen=True)
class SurvivorsReceived:
    """Step 3 from the coordinator."""

    survivors: SurvivorSet


@dataclass(frozen=True)
class CertificateReceived:
    """The end of step 3 from the coordinator."""

    certificate: Certificate


@dataclass(frozen=True)
class AnswerRecorded:
    """It is durable that this model version was answered, and it had not been before."""


@dataclass(frozen=True)
class Stop:
    """The owner, the policy or a deadline ends this member's part."""

    reason: str


Event = (
    SetupReceived
    | RosterReceived
    | DeliveryReceived
    | InputReady
    | UploadDone
    | SurvivorsReceived
    | CertificateReceived
    | AnswerRecorded
    | Stop
)

# Effects --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Send:
    """Send the message to the coordinator."""

    message: MemberMessage


@dataclass(frozen=True)
class Train:
    """Check policy, budget and model, train on the model, encode with the codec seed, and feed `InputReady`."""

    model_version: ModelVersion
    model_digest: bytes
    sid: bytes
    codec_seed: bytes
    #: Members on the roster, this one counted; the lanes have room for all of them.
    roster_size: int
    #: Neighbours with whom pair masks exist.
    paired: tuple[MemberId, ...]


@dataclass(frozen=True, eq=False)
class Upload:
    """Upload the masked words (`payload.encode_payload`), then send the trailer, then feed `UploadDone`.

    May come again after `UploadDone` if the coordinator has lost the trailer; the bytes are the same.
    """

    words: Words
    trailer: InputTrailer


@dataclass(frozen=True)
class RecordAnswer:
    """Make durable that this model version of the job is answered, then feed `AnswerRecorded`.

    If it stands there already, feed `Stop`: two sums over nearly the same updates give one update by subtraction.
    """

    model_version: ModelVersion


@dataclass(frozen=True)
class Finished:
    """This member's part is done; nothing secret is left."""


@dataclass(frozen=True)
class Aborted:
    """This member's part is over without an answer; nothing secret is left. Tell the owner and the coordinator."""

    error: LeptonError


Effect = Send | Train | Upload | RecordAnswer | Finished | Aborted
