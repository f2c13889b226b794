from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishOntologyRequest(_message.Message):
    __slots__ = ("document", "format", "label")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    format: str
    label: str
    def __init__(self, document: _Optional[bytes] = ..., format: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class OntologyVersion(_message.Message):
    __slots__ = ("digest", "label", "concepts", "published")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    digest: str
    label: str
    concepts: int
    published: float
    def __init__(self, digest: _Optional[str] = ..., label: _Optional[str] = ..., concepts: _Optional[int] = ..., published: _Optional[float] = ...) -> None: ...

class GetOntologyRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class OntologyBytes(_message.Message):
    __slots__ = ("canonical",)
    CANONICAL_FIELD_NUMBER: _ClassVar[int]
    canonical: bytes
    def __init__(self, canonical: _Optional[bytes] = ...) -> None: ...

class ListOntologiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OntologyList(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[OntologyVersion]
    def __init__(self, versions: _Optional[_Iterable[_Union[OntologyVersion, _Mapping]]] = ...) -> None: ...
