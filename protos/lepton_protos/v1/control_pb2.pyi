from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportBatch(_message.Message):
    __slots__ = ("acknowledged", "reports", "anchor")
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    acknowledged: int
    reports: _containers.RepeatedCompositeFieldContainer[MemberReport]
    anchor: LedgerAnchor
    def __init__(self, acknowledged: _Optional[int] = ..., reports: _Optional[_Iterable[_Union[MemberReport, _Mapping]]] = ..., anchor: _Optional[_Union[LedgerAnchor, _Mapping]] = ...) -> None: ...

class LedgerAnchor(_message.Message):
    __slots__ = ("identity", "sequence", "digest", "signature")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    identity: bytes
    sequence: int
    digest: str
    signature: bytes
    def __init__(self, identity: _Optional[bytes] = ..., sequence: _Optional[int] = ..., digest: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class CommandBatch(_message.Message):
    __slots__ = ("commands",)
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[ServerCommand]
    def __init__(self, commands: _Optional[_Iterable[_Union[ServerCommand, _Mapping]]] = ...) -> None: ...

class LinksRequest(_message.Message):
    __slots__ = ("job", "after_version")
    JOB_FIELD_NUMBER: _ClassVar[int]
    AFTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    job: str
    after_version: int
    def __init__(self, job: _Optional[str] = ..., after_version: _Optional[int] = ...) -> None: ...

class LinksReply(_message.Message):
    __slots__ = ("digests", "snapshot")
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    digests: _containers.RepeatedScalarFieldContainer[str]
    snapshot: str
    def __init__(self, digests: _Optional[_Iterable[str]] = ..., snapshot: _Optional[str] = ...) -> None: ...

class PollRequest(_message.Message):
    __slots__ = ("reports", "anchor")
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[MemberReport]
    anchor: LedgerAnchor
    def __init__(self, reports: _Optional[_Iterable[_Union[MemberReport, _Mapping]]] = ..., anchor: _Optional[_Union[LedgerAnchor, _Mapping]] = ...) -> None: ...

class PollReply(_message.Message):
    __slots__ = ("commands",)
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[ServerCommand]
    def __init__(self, commands: _Optional[_Iterable[_Union[ServerCommand, _Mapping]]] = ...) -> None: ...

class MemberReport(_message.Message):
    __slots__ = ("hello", "heartbeat", "match_answer", "round_report", "round_refusal")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    MATCH_ANSWER_FIELD_NUMBER: _ClassVar[int]
    ROUND_REPORT_FIELD_NUMBER: _ClassVar[int]
    ROUND_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    match_answer: MatchAnswer
    round_report: RoundReport
    round_refusal: RoundRefusal
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., match_answer: _Optional[_Union[MatchAnswer, _Mapping]] = ..., round_report: _Optional[_Union[RoundReport, _Mapping]] = ..., round_refusal: _Optional[_Union[RoundRefusal, _Mapping]] = ...) -> None: ...

class ServerCommand(_message.Message):
    __slots__ = ("sequence", "welcome", "match_request", "round_invite", "round_command", "round_closed", "job_closed")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    MATCH_REQUEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_INVITE_FIELD_NUMBER: _ClassVar[int]
    ROUND_COMMAND_FIELD_NUMBER: _ClassVar[int]
    ROUND_CLOSED_FIELD_NUMBER: _ClassVar[int]
    JOB_CLOSED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    welcome: Welcome
    match_request: MatchRequest
    round_invite: RoundInvite
    round_command: RoundCommand
    round_closed: RoundClosed
    job_closed: JobClosed
    def __init__(self, sequence: _Optional[int] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., match_request: _Optional[_Union[MatchRequest, _Mapping]] = ..., round_invite: _Optional[_Union[RoundInvite, _Mapping]] = ..., round_command: _Optional[_Union[RoundCommand, _Mapping]] = ..., round_closed: _Optional[_Union[RoundClosed, _Mapping]] = ..., job_closed: _Optional[_Union[JobClosed, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "software_version", "member")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    software_version: str
    member: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., software_version: _Optional[str] = ..., member: _Optional[bytes] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "reason", "subject")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    code: str
    reason: str
    subject: str
    def __init__(self, code: _Optional[str] = ..., reason: _Optional[str] = ..., subject: _Optional[str] = ...) -> None: ...

class MatchAnswer(_message.Message):
    __slots__ = ("job", "refusal", "coverage")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    job: str
    refusal: Refusal
    coverage: str
    def __init__(self, job: _Optional[str] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., coverage: _Optional[str] = ...) -> None: ...

class RoundRefusal(_message.Message):
    __slots__ = ("job", "round", "refusal")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    refusal: Refusal
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class RoundReport(_message.Message):
    __slots__ = ("job", "round", "advert", "share_message", "input_trailer", "consistency_signature", "unmasking", "payload")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ADVERT_FIELD_NUMBER: _ClassVar[int]
    SHARE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    INPUT_TRAILER_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    UNMASKING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    advert: Advert
    share_message: ShareMessage
    input_trailer: InputTrailer
    consistency_signature: ConsistencySignature
    unmasking: Unmasking
    payload: bytes
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., advert: _Optional[_Union[Advert, _Mapping]] = ..., share_message: _Optional[_Union[ShareMessage, _Mapping]] = ..., input_trailer: _Optional[_Union[InputTrailer, _Mapping]] = ..., consistency_signature: _Optional[_Union[ConsistencySignature, _Mapping]] = ..., unmasking: _Optional[_Union[Unmasking, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "software_version", "heartbeat_s", "anchors")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    ANCHORS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    software_version: str
    heartbeat_s: float
    anchors: _containers.RepeatedCompositeFieldContainer[LedgerAnchor]
    def __init__(self, protocol_version: _Optional[int] = ..., software_version: _Optional[str] = ..., heartbeat_s: _Optional[float] = ..., anchors: _Optional[_Iterable[_Union[LedgerAnchor, _Mapping]]] = ...) -> None: ...

class MatchRequest(_message.Message):
    __slots__ = ("job", "canonical_job", "membership_list")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CANONICAL_JOB_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_LIST_FIELD_NUMBER: _ClassVar[int]
    job: str
    canonical_job: bytes
    membership_list: bytes
    def __init__(self, job: _Optional[str] = ..., canonical_job: _Optional[bytes] = ..., membership_list: _Optional[bytes] = ...) -> None: ...

class Setup(_message.Message):
    __slots__ = ("job", "round", "terms", "nonce_commitment")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    NONCE_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    terms: bytes
    nonce_commitment: bytes
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., terms: _Optional[bytes] = ..., nonce_commitment: _Optional[bytes] = ...) -> None: ...

class RoundInvite(_message.Message):
    __slots__ = ("setup",)
    SETUP_FIELD_NUMBER: _ClassVar[int]
    setup: Setup
    def __init__(self, setup: _Optional[_Union[Setup, _Mapping]] = ...) -> None: ...

class RoundCommand(_message.Message):
    __slots__ = ("job", "round", "roster", "delivery", "survivor_set", "certificate")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    SURVIVOR_SET_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    roster: Roster
    delivery: Delivery
    survivor_set: SurvivorSet
    certificate: Certificate
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., roster: _Optional[_Union[Roster, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ..., survivor_set: _Optional[_Union[SurvivorSet, _Mapping]] = ..., certificate: _Optional[_Union[Certificate, _Mapping]] = ...) -> None: ...

class RoundClosed(_message.Message):
    __slots__ = ("job", "round", "outcome", "reason", "published")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    outcome: str
    reason: str
    published: Published
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., published: _Optional[_Union[Published, _Mapping]] = ...) -> None: ...

class Published(_message.Message):
    __slots__ = ("digest", "content")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    content: bytes
    def __init__(self, digest: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class JobClosed(_message.Message):
    __slots__ = ("job", "state", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    state: str
    reason: str
    def __init__(self, job: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Advert(_message.Message):
    __slots__ = ("member", "identity", "mask_public", "encryption_public", "seed_commitment", "nonce", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MASK_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    SEED_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: bytes
    identity: bytes
    mask_public: bytes
    encryption_public: bytes
    seed_commitment: bytes
    nonce: bytes
    signature: bytes
    def __init__(self, member: _Optional[bytes] = ..., identity: _Optional[bytes] = ..., mask_public: _Optional[bytes] = ..., encryption_public: _Optional[bytes] = ..., seed_commitment: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Leaf(_message.Message):
    __slots__ = ("member", "advert_digest")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ADVERT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    member: bytes
    advert_digest: bytes
    def __init__(self, member: _Optional[bytes] = ..., advert_digest: _Optional[bytes] = ...) -> None: ...

class Roster(_message.Message):
    __slots__ = ("leaves", "server_nonce", "adverts")
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    SERVER_NONCE_FIELD_NUMBER: _ClassVar[int]
    ADVERTS_FIELD_NUMBER: _ClassVar[int]
    leaves: _containers.RepeatedCompositeFieldContainer[Leaf]
    server_nonce: bytes
    adverts: _containers.RepeatedCompositeFieldContainer[Advert]
    def __init__(self, leaves: _Optional[_Iterable[_Union[Leaf, _Mapping]]] = ..., server_nonce: _Optional[bytes] = ..., adverts: _Optional[_Iterable[_Union[Advert, _Mapping]]] = ...) -> None: ...

class SealedShares(_message.Message):
    __slots__ = ("holder", "ciphertext")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    holder: bytes
    ciphertext: bytes
    def __init__(self, holder: _Optional[bytes] = ..., ciphertext: _Optional[bytes] = ...) -> None: ...

class ShareDigests(_message.Message):
    __slots__ = ("holder", "mask_key", "self_seed")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    MASK_KEY_FIELD_NUMBER: _ClassVar[int]
    SELF_SEED_FIELD_NUMBER: _ClassVar[int]
    holder: bytes
    mask_key: bytes
    self_seed: bytes
    def __init__(self, holder: _Optional[bytes] = ..., mask_key: _Optional[bytes] = ..., self_seed: _Optional[bytes] = ...) -> None: ...

class ShareMessage(_message.Message):
    __slots__ = ("dealer", "sealed", "digests", "signature")
    DEALER_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    dealer: bytes
    sealed: _containers.RepeatedCompositeFieldContainer[SealedShares]
    digests: _containers.RepeatedCompositeFieldContainer[ShareDigests]
    signature: bytes
    def __init__(self, dealer: _Optional[bytes] = ..., sealed: _Optional[_Iterable[_Union[SealedShares, _Mapping]]] = ..., digests: _Optional[_Iterable[_Union[ShareDigests, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class DealtShares(_message.Message):
    __slots__ = ("dealer", "ciphertext", "digests", "signature")
    DEALER_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    dealer: bytes
    ciphertext: bytes
    digests: _containers.RepeatedCompositeFieldContainer[ShareDigests]
    signature: bytes
    def __init__(self, dealer: _Optional[bytes] = ..., ciphertext: _Optional[bytes] = ..., digests: _Optional[_Iterable[_Union[ShareDigests, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("dealt", "model_version", "model_digest")
    DEALT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    dealt: _containers.RepeatedCompositeFieldContainer[DealtShares]
    model_version: int
    model_digest: bytes
    def __init__(self, dealt: _Optional[_Iterable[_Union[DealtShares, _Mapping]]] = ..., model_version: _Optional[int] = ..., model_digest: _Optional[bytes] = ...) -> None: ...

class InputTrailer(_message.Message):
    __slots__ = ("member", "payload_digest", "payload_bytes", "paired", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAIRED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: bytes
    payload_digest: bytes
    payload_bytes: int
    paired: _containers.RepeatedScalarFieldContainer[bytes]
    signature: bytes
    def __init__(self, member: _Optional[bytes] = ..., payload_digest: _Optional[bytes] = ..., payload_bytes: _Optional[int] = ..., paired: _Optional[_Iterable[bytes]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SurvivorSet(_message.Message):
    __slots__ = ("survivors",)
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    survivors: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, survivors: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ConsistencySignature(_message.Message):
    __slots__ = ("member", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: bytes
    signature: bytes
    def __init__(self, member: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("signatures",)
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    signatures: _containers.RepeatedCompositeFieldContainer[ConsistencySignature]
    def __init__(self, signatures: _Optional[_Iterable[_Union[ConsistencySignature, _Mapping]]] = ...) -> None: ...

class RevealedShare(_message.Message):
    __slots__ = ("dealer", "kind", "salt", "share")
    DEALER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    dealer: bytes
    kind: int
    salt: bytes
    share: bytes
    def __init__(self, dealer: _Optional[bytes] = ..., kind: _Optional[int] = ..., salt: _Optional[bytes] = ..., share: _Optional[bytes] = ...) -> None: ...

class Unmasking(_message.Message):
    __slots__ = ("member", "revealed", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    REVEALED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: bytes
    revealed: _containers.RepeatedCompositeFieldContainer[RevealedShare]
    signature: bytes
    def __init__(self, member: _Optional[bytes] = ..., revealed: _Optional[_Iterable[_Union[RevealedShare, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...
