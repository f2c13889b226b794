"""What the participant remembers of work under way; it dies with the process."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import assert_never

from lepton_client.effects import SendReport
from lepton_client.protocols import Counted, Phase
from lepton_core.errors import ConflictError
from lepton_core.ids import Digest, ModelVersion, digest_of
from lepton_core.job import Job
from lepton_core.membership import SignedList
from lepton_core.privacy.ledger import Charge
from lepton_core.secagg import client_events as secagg
from lepton_core.secagg.messages import Certificate, Delivery, Roster, ServerMessage, SurvivorSet
from lepton_core.secagg.terms import Setup, labelled_hash
from lepton_core.session import MatchRequest, Refusal


@dataclass(frozen=True)
class Matching:
    """A job whose data are being checked, and who waits for it: a match request, or a round after a restart."""

    job: Job
    membership: SignedList
    request: MatchRequest | None
    invite: Setup | None
    #: True if the job ended while its data were checked: what comes of it is dropped.
    closed: bool = False


@dataclass
class CurrentRound:
    """The newest round of a job; `phase` holds its secrets while it lasts."""

    setup: Setup
    phase: Phase
    #: When something last happened in it, seconds since the epoch.
    touched: float
    train: secagg.Train | None = None
    #: What its noise was charged as; None in a job without privacy.
    charge: Charge | None = None
    spent: bool = False
    #: Why this owner left it; repeated to a coordinator that asks again.
    refusal: Refusal | None = None
    #: True once nothing more will happen in it.
    over: bool = False
    #: What waits to be sent with this owner's next report of the round before.
    riding: tuple[SendReport, ...] = ()

    @property
    def model(self) -> Digest:
        """The model that was trained on.

        Raises:
            ConflictError: nothing was trained.
        """
        if self.train is None:
            raise ConflictError("a round without training", where=f"round {self.setup.round}", reason="NOT_TRAINED")
        return Digest(self.train.model_digest.hex())

    @property
    def is_counted(self) -> bool:
        """True if bytes left under a charge, and this owner saw the round to its end: its part is in the sum."""
        return self.spent and self.charge is not None and isinstance(self.phase, Counted)


def digest_of_request(request: MatchRequest) -> Digest:
    """What tells one match request from another."""
    return digest_of(labelled_hash(b"lepton/match/v1", request.canonical_job, request.membership_list))


def event_of(message: ServerMessage, answered: AbstractSet[ModelVersion]) -> secagg.Event:
    """The event that the coordinator's message is to the machine of a round, in a job so far answered."""
    match message:
        case Roster():
            return secagg.RosterReceived(message)
        case Delivery():
            return secagg.DeliveryReceived(message, answered)
        case SurvivorSet():
            return secagg.SurvivorsReceived(message)
        case Certificate():
            return secagg.CertificateReceived(message)
        case _:
            assert_never(message)
