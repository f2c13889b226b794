"""What a coordinator and a member say to each other over a control session.

The coordinator's commands are level-triggered: each says what the member should do next, may come any number of
times, and a member that has done it answers with the same bytes again. So a lost stream costs nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from lepton_core.errors import InputError, LeptonError
from lepton_core.ids import Digest, JobId, MemberId, RoundNumber
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_core.secagg.messages import MemberMessage, ServerMessage
from lepton_core.secagg.terms import Setup

#: Version of the control protocol; a mismatch is answered at once.
PROTOCOL_VERSION = 2

#: Largest masked input, and largest link, that travels within a message; a larger one is a transfer of its own, which
#: can be resumed. A message may have 4 MiB, and a coordinator holds as many inputs as members have sent in a step.
INLINE_BYTES = 64 * 2**10

_CODE = re.compile(r"[a-z][a-z.-]{0,63}")
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
#: A key of the owner's policy or of the job, or an IRI; never a path, a column or a value.
_SUBJECT = re.compile(r"(?:policy|job|terms)(?:\.[a-z0-9_-]{1,63}){1,8}|[a-z]{1,10}://[\x21-\x7e]{1,300}")
_COVERAGE = re.compile(r"(?:10{0,9}\+)?")


def coverage_of(records: int) -> str:
    """The largest power of ten that so many records reach, with a plus: all that may be told of their number."""
    return f"1{'0' * min(9, len(str(records)) - 1)}+" if records else ""


@dataclass(frozen=True)
class Hello:
    """Opens a session: who speaks which version. The owner's name comes from the certificate, never from here."""

    protocol_version: int
    software_version: str
    member: MemberId


@dataclass(frozen=True)
class Heartbeat:
    """The member is alive; the coordinator repeats what is still unanswered."""


@dataclass(frozen=True)
class Refusal:
    """Why an owner says no: stable words only, never data, column names, budgets or free text.

    Both sides hold it to its form: an owner cannot let more out, and a hostile one puts no text on others' screens.

    Raises:
        InputError: a word of another form.
    """

    #: `LeptonError.code`.
    code: str
    #: Upper-case detail such as MISSING_CONCEPT.
    reason: str
    #: The concept's IRI or the policy key concerned; may be empty.
    subject: str

    def __post_init__(self) -> None:
        forms = (("code", _CODE), ("reason", _REASON), ("subject", _SUBJECT))
        for name, form in forms:
            word = getattr(self, name)
            if form.fullmatch(word) is None and (name != "subject" or word):
                raise InputError("a refusal in other than stable words", where=f"Refusal.{name}", expected=form.pattern)


@dataclass(frozen=True)
class MatchAnswer:
    """*can*, or *cannot, because*: whether the owner takes part in a job."""

    job: JobId
    #: None means the owner takes part.
    refusal: Refusal | None
    #: How many records serve, as a power of ten, such as `100+`; empty unless the owner's policy tells it.
    coverage: str = ""

    def __post_init__(self) -> None:
        if _COVERAGE.fullmatch(self.coverage) is None:
            raise InputError("a coverage in other than powers of ten", expected=_COVERAGE.pattern)


@dataclass(frozen=True)
class RoundReport:
    """A member's message of a secure aggregation round."""

    job: JobId
    round: RoundNumber
    message: MemberMessage
    #: The masked words of an input of at most `INLINE_BYTES`, beside its trailer; else empty, and uploaded before.
    payload: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class RoundRefusal:
    """The member leaves the round and has erased its secrets."""

    job: JobId
    round: RoundNumber
    refusal: Refusal


#: What a member sends.
MemberReport = Hello | Heartbeat | MatchAnswer | RoundReport | RoundRefusal


@dataclass(frozen=True)
class Welcome:
    """Answers `Hello`."""

    protocol_version: int
    software_version: str
    #: How often the member sends a `Heartbeat`, in seconds.
    heartbeat_s: float
    #: What the coordinator keeps of this owner's ledgers, one an identity that the owner has had.
    anchors: tuple[LedgerAnchor, ...] = ()


@dataclass(frozen=True)
class MatchRequest:
    """Asks whether the owner takes part in a job."""

    job: JobId
    #: `Job.canonical()`.
    canonical_job: bytes
    #: The signed membership list, as its JSON bytes.
    membership_list: bytes


@dataclass(frozen=True)
class RoundInvite:
    """Step 0: asks for an advert under these terms."""

    setup: Setup


@dataclass(frozen=True)
class RoundCommand:
    """The coordinator's message of a round."""

    job: JobId
    round: RoundNumber
    message: ServerMessage


class RoundOutcome(StrEnum):
    """How a round ended for a member."""

    COMPLETED = "completed"
    ABORTED = "aborted"
    #: The round goes on, or ended, without this member.
    LEFT_OUT = "left-out"


@dataclass(frozen=True)
class Published:
    """What a completed round published: the link from the model it trained on to the next (`lepton_core.chain`)."""

    digest: Digest
    #: The link's bytes, if they are at most `INLINE_BYTES`; empty: it is to be downloaded.
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Lineage:
    """By which artifacts a member comes from a model version that it has to the newest."""

    #: What leads from each version to the next, oldest first: links of a chain, or differences.
    links: tuple[Digest, ...]
    #: The newest version packed on its own; None where members compute it or download it whole.
    snapshot: Digest | None


@dataclass(frozen=True)
class RoundClosed:
    """The round is over for this member; whatever it holds of it is to be erased."""

    job: JobId
    round: RoundNumber
    outcome: RoundOutcome
    reason: str
    published: Published | None = None


@dataclass(frozen=True)
class JobClosed:
    """The job is over."""

    job: JobId
    state: str
    reason: str


#: What the coordinator sends.
ServerCommand = Welcome | MatchRequest | RoundInvite | RoundCommand | RoundClosed | JobClosed


def refusal_of(error: LeptonError) -> Refusal:
    """The part of an error that may leave a site: code, reason, and a policy or job key or a concept's IRI.

    Nothing of `message`, `expected` or `got`; a `where` of any other form (a path, a column) stays behind too.
    """
    reason = error.reason if _REASON.fullmatch(error.reason) else "REFUSED"
    subject = error.where if _SUBJECT.fullmatch(error.where) else ""
    return Refusal(code=error.code, reason=reason, subject=subject)
