from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("token", "csr", "identity_public", "identity_proof")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_PROOF_FIELD_NUMBER: _ClassVar[int]
    token: str
    csr: bytes
    identity_public: bytes
    identity_proof: bytes
    def __init__(self, token: _Optional[str] = ..., csr: _Optional[bytes] = ..., identity_public: _Optional[bytes] = ..., identity_proof: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("certificate", "ca_certificate", "name", "role")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    certificate: str
    ca_certificate: str
    name: str
    role: str
    def __init__(self, certificate: _Optional[str] = ..., ca_certificate: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class InviteRequest(_message.Message):
    __slots__ = ("name", "role", "valid_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VALID_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    valid_s: float
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., valid_s: _Optional[float] = ...) -> None: ...

class Invitation(_message.Message):
    __slots__ = ("name", "role", "address", "token", "ca_certificate", "ca_fingerprint", "bootstrap_certificate", "bootstrap_key", "expires")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    BOOTSTRAP_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    BOOTSTRAP_KEY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    address: str
    token: str
    ca_certificate: str
    ca_fingerprint: str
    bootstrap_certificate: str
    bootstrap_key: str
    expires: float
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., address: _Optional[str] = ..., token: _Optional[str] = ..., ca_certificate: _Optional[str] = ..., ca_fingerprint: _Optional[str] = ..., bootstrap_certificate: _Optional[str] = ..., bootstrap_key: _Optional[str] = ..., expires: _Optional[float] = ...) -> None: ...

class ListOwnersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OwnerView(_message.Message):
    __slots__ = ("name", "role", "member", "identity", "enrolled", "connected", "certificate_expires", "alarm")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    member: str
    identity: str
    enrolled: float
    connected: bool
    certificate_expires: float
    alarm: str
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., member: _Optional[str] = ..., identity: _Optional[str] = ..., enrolled: _Optional[float] = ..., connected: bool = ..., certificate_expires: _Optional[float] = ..., alarm: _Optional[str] = ...) -> None: ...

class OwnerList(_message.Message):
    __slots__ = ("owners",)
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    owners: _containers.RepeatedCompositeFieldContainer[OwnerView]
    def __init__(self, owners: _Optional[_Iterable[_Union[OwnerView, _Mapping]]] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PublishMembershipRequest(_message.Message):
    __slots__ = ("signed_list",)
    SIGNED_LIST_FIELD_NUMBER: _ClassVar[int]
    signed_list: bytes
    def __init__(self, signed_list: _Optional[bytes] = ...) -> None: ...

class PublishMembershipReply(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class GetMembershipRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class MembershipListBytes(_message.Message):
    __slots__ = ("signed_list",)
    SIGNED_LIST_FIELD_NUMBER: _ClassVar[int]
    signed_list: bytes
    def __init__(self, signed_list: _Optional[bytes] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthView(_message.Message):
    __slots__ = ("ready", "software_version", "protocol_version", "database", "connected_members", "running_jobs", "started", "problems")
    READY_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_JOBS_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    software_version: str
    protocol_version: int
    database: str
    connected_members: int
    running_jobs: int
    started: float
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ready: bool = ..., software_version: _Optional[str] = ..., protocol_version: _Optional[int] = ..., database: _Optional[str] = ..., connected_members: _Optional[int] = ..., running_jobs: _Optional[int] = ..., started: _Optional[float] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...
