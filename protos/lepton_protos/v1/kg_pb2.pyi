from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishOntologyRequest(_message.Message):
    __slots__ = ("document", "format", "label", "actor")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    format: str
    label: str
    actor: str
    def __init__(self, document: _Optional[bytes] = ..., format: _Optional[str] = ..., label: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class OntologyVersion(_message.Message):
    __slots__ = ("digest", "label", "concepts", "published", "publisher", "canonical_bytes", "format", "importer", "document", "deprecated", "deprecated_by", "deprecation_reason", "replaced_by", "approvals")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    PUBLISHER_FIELD_NUMBER: _ClassVar[int]
    CANONICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    IMPORTER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    DEPRECATED_FIELD_NUMBER: _ClassVar[int]
    DEPRECATED_BY_FIELD_NUMBER: _ClassVar[int]
    DEPRECATION_REASON_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BY_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    label: str
    concepts: int
    published: float
    publisher: str
    canonical_bytes: int
    format: str
    importer: str
    document: str
    deprecated: float
    deprecated_by: str
    deprecation_reason: str
    replaced_by: str
    approvals: _containers.RepeatedCompositeFieldContainer[OntologyApproval]
    def __init__(self, digest: _Optional[str] = ..., label: _Optional[str] = ..., concepts: _Optional[int] = ..., published: _Optional[float] = ..., publisher: _Optional[str] = ..., canonical_bytes: _Optional[int] = ..., format: _Optional[str] = ..., importer: _Optional[str] = ..., document: _Optional[str] = ..., deprecated: _Optional[float] = ..., deprecated_by: _Optional[str] = ..., deprecation_reason: _Optional[str] = ..., replaced_by: _Optional[str] = ..., approvals: _Optional[_Iterable[_Union[OntologyApproval, _Mapping]]] = ...) -> None: ...

class OntologyApproval(_message.Message):
    __slots__ = ("approver", "time", "note")
    APPROVER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    approver: str
    time: float
    note: str
    def __init__(self, approver: _Optional[str] = ..., time: _Optional[float] = ..., note: _Optional[str] = ...) -> None: ...

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

class DiffOntologiesRequest(_message.Message):
    __slots__ = ("old_digest", "new_digest")
    OLD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NEW_DIGEST_FIELD_NUMBER: _ClassVar[int]
    old_digest: str
    new_digest: str
    def __init__(self, old_digest: _Optional[str] = ..., new_digest: _Optional[str] = ...) -> None: ...

class OntologyDiff(_message.Message):
    __slots__ = ("added", "removed", "changed", "statements_added", "statements_removed")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_ADDED_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_REMOVED_FIELD_NUMBER: _ClassVar[int]
    added: _containers.RepeatedScalarFieldContainer[str]
    removed: _containers.RepeatedScalarFieldContainer[str]
    changed: _containers.RepeatedCompositeFieldContainer[ConceptChange]
    statements_added: int
    statements_removed: int
    def __init__(self, added: _Optional[_Iterable[str]] = ..., removed: _Optional[_Iterable[str]] = ..., changed: _Optional[_Iterable[_Union[ConceptChange, _Mapping]]] = ..., statements_added: _Optional[int] = ..., statements_removed: _Optional[int] = ...) -> None: ...

class ConceptChange(_message.Message):
    __slots__ = ("iri", "fields")
    IRI_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    iri: str
    fields: _containers.RepeatedCompositeFieldContainer[FieldChange]
    def __init__(self, iri: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[FieldChange, _Mapping]]] = ...) -> None: ...

class FieldChange(_message.Message):
    __slots__ = ("field", "old_text", "new_text")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    OLD_TEXT_FIELD_NUMBER: _ClassVar[int]
    NEW_TEXT_FIELD_NUMBER: _ClassVar[int]
    field: str
    old_text: str
    new_text: str
    def __init__(self, field: _Optional[str] = ..., old_text: _Optional[str] = ..., new_text: _Optional[str] = ...) -> None: ...

class ApproveOntologyRequest(_message.Message):
    __slots__ = ("digest", "note", "actor")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    digest: str
    note: str
    actor: str
    def __init__(self, digest: _Optional[str] = ..., note: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class DeprecateOntologyRequest(_message.Message):
    __slots__ = ("digest", "reason", "replaced_by", "actor")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BY_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    digest: str
    reason: str
    replaced_by: str
    actor: str
    def __init__(self, digest: _Optional[str] = ..., reason: _Optional[str] = ..., replaced_by: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("digest", "texts")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digest: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class ConceptList(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: _containers.RepeatedCompositeFieldContainer[FoundConcept]
    def __init__(self, found: _Optional[_Iterable[_Union[FoundConcept, _Mapping]]] = ...) -> None: ...

class FoundConcept(_message.Message):
    __slots__ = ("text", "iri", "labels", "synonyms", "notations", "datatype", "unit", "quantity_kind", "plausible_minimum", "plausible_maximum", "molar_mass_g_per_mol", "missing_meaning", "missing_codes", "broader")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IRI_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SYNONYMS_FIELD_NUMBER: _ClassVar[int]
    NOTATIONS_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_KIND_FIELD_NUMBER: _ClassVar[int]
    PLAUSIBLE_MINIMUM_FIELD_NUMBER: _ClassVar[int]
    PLAUSIBLE_MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    MOLAR_MASS_G_PER_MOL_FIELD_NUMBER: _ClassVar[int]
    MISSING_MEANING_FIELD_NUMBER: _ClassVar[int]
    MISSING_CODES_FIELD_NUMBER: _ClassVar[int]
    BROADER_FIELD_NUMBER: _ClassVar[int]
    text: str
    iri: str
    labels: _containers.ScalarMap[str, str]
    synonyms: _containers.RepeatedScalarFieldContainer[str]
    notations: _containers.RepeatedScalarFieldContainer[str]
    datatype: str
    unit: str
    quantity_kind: str
    plausible_minimum: float
    plausible_maximum: float
    molar_mass_g_per_mol: float
    missing_meaning: str
    missing_codes: _containers.RepeatedScalarFieldContainer[str]
    broader: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[str] = ..., iri: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., synonyms: _Optional[_Iterable[str]] = ..., notations: _Optional[_Iterable[str]] = ..., datatype: _Optional[str] = ..., unit: _Optional[str] = ..., quantity_kind: _Optional[str] = ..., plausible_minimum: _Optional[float] = ..., plausible_maximum: _Optional[float] = ..., molar_mass_g_per_mol: _Optional[float] = ..., missing_meaning: _Optional[str] = ..., missing_codes: _Optional[_Iterable[str]] = ..., broader: _Optional[_Iterable[str]] = ...) -> None: ...

class ClosureRequest(_message.Message):
    __slots__ = ("digest", "iri", "upward")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IRI_FIELD_NUMBER: _ClassVar[int]
    UPWARD_FIELD_NUMBER: _ClassVar[int]
    digest: str
    iri: str
    upward: bool
    def __init__(self, digest: _Optional[str] = ..., iri: _Optional[str] = ..., upward: bool = ...) -> None: ...

class ClosureList(_message.Message):
    __slots__ = ("concepts",)
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    concepts: _containers.RepeatedCompositeFieldContainer[RelatedConcept]
    def __init__(self, concepts: _Optional[_Iterable[_Union[RelatedConcept, _Mapping]]] = ...) -> None: ...

class RelatedConcept(_message.Message):
    __slots__ = ("iri", "steps")
    IRI_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    iri: str
    steps: int
    def __init__(self, iri: _Optional[str] = ..., steps: _Optional[int] = ...) -> None: ...

class ValueSetRequest(_message.Message):
    __slots__ = ("digest", "iri")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IRI_FIELD_NUMBER: _ClassVar[int]
    digest: str
    iri: str
    def __init__(self, digest: _Optional[str] = ..., iri: _Optional[str] = ...) -> None: ...

class ValueList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[PermittedValue]
    def __init__(self, values: _Optional[_Iterable[_Union[PermittedValue, _Mapping]]] = ...) -> None: ...

class PermittedValue(_message.Message):
    __slots__ = ("iri", "notation", "labels", "synonyms")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    IRI_FIELD_NUMBER: _ClassVar[int]
    NOTATION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SYNONYMS_FIELD_NUMBER: _ClassVar[int]
    iri: str
    notation: str
    labels: _containers.ScalarMap[str, str]
    synonyms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, iri: _Optional[str] = ..., notation: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., synonyms: _Optional[_Iterable[str]] = ...) -> None: ...

class ValidateMappingRequest(_message.Message):
    __slots__ = ("digest", "mapping")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MAPPING_FIELD_NUMBER: _ClassVar[int]
    digest: str
    mapping: str
    def __init__(self, digest: _Optional[str] = ..., mapping: _Optional[str] = ...) -> None: ...

class MappingReport(_message.Message):
    __slots__ = ("problems",)
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedCompositeFieldContainer[MappingProblem]
    def __init__(self, problems: _Optional[_Iterable[_Union[MappingProblem, _Mapping]]] = ...) -> None: ...

class MappingProblem(_message.Message):
    __slots__ = ("column", "reason", "message", "expected", "got", "hint")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    GOT_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    column: str
    reason: str
    message: str
    expected: str
    got: str
    hint: str
    def __init__(self, column: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., expected: _Optional[str] = ..., got: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...
