from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitRequest(_message.Message):
    __slots__ = ("canonical_job",)
    CANONICAL_JOB_FIELD_NUMBER: _ClassVar[int]
    canonical_job: bytes
    def __init__(self, canonical_job: _Optional[bytes] = ...) -> None: ...

class SubmitReply(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JobList(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobView]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobView, _Mapping]]] = ...) -> None: ...

class ShowJobRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("job", "after")
    JOB_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    job: str
    after: int
    def __init__(self, job: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class AbortRequest(_message.Message):
    __slots__ = ("job", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    reason: str
    def __init__(self, job: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ShowRoundRequest(_message.Message):
    __slots__ = ("job", "round")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class ModelList(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelView]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelView, _Mapping]]] = ...) -> None: ...

class OwnerMatch(_message.Message):
    __slots__ = ("owner", "state", "code", "reason", "subject", "coverage")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    owner: str
    state: str
    code: str
    reason: str
    subject: str
    coverage: str
    def __init__(self, owner: _Optional[str] = ..., state: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., subject: _Optional[str] = ..., coverage: _Optional[str] = ...) -> None: ...

class DroppedMember(_message.Message):
    __slots__ = ("owner", "step", "reason")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    owner: str
    step: str
    reason: str
    def __init__(self, owner: _Optional[str] = ..., step: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class EncodingView(_message.Message):
    __slots__ = ("codec", "bits_per_parameter", "bytes_down", "expected_error", "expected_saturation", "clipped_members", "saturated_share", "squared_error", "decode_residual")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    BITS_PER_PARAMETER_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ERROR_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SATURATION_FIELD_NUMBER: _ClassVar[int]
    CLIPPED_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    SATURATED_SHARE_FIELD_NUMBER: _ClassVar[int]
    SQUARED_ERROR_FIELD_NUMBER: _ClassVar[int]
    DECODE_RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    codec: str
    bits_per_parameter: float
    bytes_down: int
    expected_error: float
    expected_saturation: float
    clipped_members: int
    saturated_share: float
    squared_error: float
    decode_residual: float
    def __init__(self, codec: _Optional[str] = ..., bits_per_parameter: _Optional[float] = ..., bytes_down: _Optional[int] = ..., expected_error: _Optional[float] = ..., expected_saturation: _Optional[float] = ..., clipped_members: _Optional[int] = ..., saturated_share: _Optional[float] = ..., squared_error: _Optional[float] = ..., decode_residual: _Optional[float] = ...) -> None: ...

class RoundView(_message.Message):
    __slots__ = ("job", "round", "model_version", "state", "step", "cohort", "waiting_for", "survivors", "dropped", "reason", "started", "ended", "payload_bytes", "message_bytes", "pair_masks_reconstructed", "encoding")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAIR_MASKS_RECONSTRUCTED_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    model_version: int
    state: str
    step: str
    cohort: _containers.RepeatedScalarFieldContainer[str]
    waiting_for: _containers.RepeatedScalarFieldContainer[str]
    survivors: _containers.RepeatedScalarFieldContainer[str]
    dropped: _containers.RepeatedCompositeFieldContainer[DroppedMember]
    reason: str
    started: float
    ended: float
    payload_bytes: int
    message_bytes: int
    pair_masks_reconstructed: int
    encoding: EncodingView
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ..., model_version: _Optional[int] = ..., state: _Optional[str] = ..., step: _Optional[str] = ..., cohort: _Optional[_Iterable[str]] = ..., waiting_for: _Optional[_Iterable[str]] = ..., survivors: _Optional[_Iterable[str]] = ..., dropped: _Optional[_Iterable[_Union[DroppedMember, _Mapping]]] = ..., reason: _Optional[str] = ..., started: _Optional[float] = ..., ended: _Optional[float] = ..., payload_bytes: _Optional[int] = ..., message_bytes: _Optional[int] = ..., pair_masks_reconstructed: _Optional[int] = ..., encoding: _Optional[_Union[EncodingView, _Mapping]] = ...) -> None: ...

class ModelView(_message.Message):
    __slots__ = ("job", "version", "digest", "parent", "round", "created", "accuracy", "auc", "epsilon", "contributors", "link")
    JOB_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    AUC_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    job: str
    version: int
    digest: str
    parent: str
    round: int
    created: float
    accuracy: float
    auc: float
    epsilon: float
    contributors: int
    link: str
    def __init__(self, job: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., parent: _Optional[str] = ..., round: _Optional[int] = ..., created: _Optional[float] = ..., accuracy: _Optional[float] = ..., auc: _Optional[float] = ..., epsilon: _Optional[float] = ..., contributors: _Optional[int] = ..., link: _Optional[str] = ...) -> None: ...

class JobView(_message.Message):
    __slots__ = ("job", "name", "state", "reason", "researcher", "submitted", "ended", "rounds_planned", "model_version", "owners", "privacy", "epsilon", "delta", "model_parameters", "bytes_per_parameter", "job_digest", "rounds", "models")
    JOB_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESEARCHER_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_PLANNED_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    MODEL_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_PARAMETER_FIELD_NUMBER: _ClassVar[int]
    JOB_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    job: str
    name: str
    state: str
    reason: str
    researcher: str
    submitted: float
    ended: float
    rounds_planned: int
    model_version: int
    owners: _containers.RepeatedCompositeFieldContainer[OwnerMatch]
    privacy: str
    epsilon: float
    delta: float
    model_parameters: int
    bytes_per_parameter: float
    job_digest: str
    rounds: _containers.RepeatedCompositeFieldContainer[RoundView]
    models: _containers.RepeatedCompositeFieldContainer[ModelView]
    def __init__(self, job: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., researcher: _Optional[str] = ..., submitted: _Optional[float] = ..., ended: _Optional[float] = ..., rounds_planned: _Optional[int] = ..., model_version: _Optional[int] = ..., owners: _Optional[_Iterable[_Union[OwnerMatch, _Mapping]]] = ..., privacy: _Optional[str] = ..., epsilon: _Optional[float] = ..., delta: _Optional[float] = ..., model_parameters: _Optional[int] = ..., bytes_per_parameter: _Optional[float] = ..., job_digest: _Optional[str] = ..., rounds: _Optional[_Iterable[_Union[RoundView, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelView, _Mapping]]] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("sequence", "time", "job", "kind", "round", "model_version", "message", "owner", "step", "cohort", "accuracy", "auc", "epsilon", "bytes_up")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    AUC_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: float
    job: str
    kind: str
    round: int
    model_version: int
    message: str
    owner: str
    step: str
    cohort: int
    accuracy: float
    auc: float
    epsilon: float
    bytes_up: int
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[float] = ..., job: _Optional[str] = ..., kind: _Optional[str] = ..., round: _Optional[int] = ..., model_version: _Optional[int] = ..., message: _Optional[str] = ..., owner: _Optional[str] = ..., step: _Optional[str] = ..., cohort: _Optional[int] = ..., accuracy: _Optional[float] = ..., auc: _Optional[float] = ..., epsilon: _Optional[float] = ..., bytes_up: _Optional[int] = ...) -> None: ...
