"""The only translator between protobuf messages and Lepton's own values; parsing is validating.

A dataclass and the message of the same name have the same field names, so one walk over the type hints serves them
all. What comes out of `from_proto` has ids in their form, digests and keys of their length, finite numbers, known
enum values, and no more elements than `MOST_ELEMENTS`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from google.protobuf.message import DecodeError, Message

from lepton_core import ids, session, views
from lepton_core.errors import InputError
from lepton_core.secagg import messages as secagg
from lepton_core.secagg import terms
from lepton_protos.v1 import control_pb2, identity_pb2, job_pb2

T = TypeVar("T")

#: Most elements of a repeated field; a roster of 10,000 members with room to spare.
MOST_ELEMENTS = 65_536
#: Longest text; a longer one is an attack or a mistake.
LONGEST_TEXT = 65_536

#: Most reports, or commands, in one message.
MOST_IN_A_BATCH = 64

_DIGEST_BYTES = 32
#: Exact sizes of byte fields; a field not named here may have any size.
_SIZES: dict[tuple[type, str], int] = {
    (secagg.Advert, "identity"): secagg.KEY_BYTES,
    (secagg.Advert, "mask_public"): secagg.KEY_BYTES,
    (secagg.Advert, "encryption_public"): secagg.KEY_BYTES,
    (secagg.Advert, "seed_commitment"): _DIGEST_BYTES,
    (secagg.Advert, "nonce"): _DIGEST_BYTES,
    (secagg.Advert, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.Leaf, "advert_digest"): _DIGEST_BYTES,
    (secagg.Roster, "server_nonce"): _DIGEST_BYTES,
    (secagg.ShareDigests, "mask_key"): _DIGEST_BYTES,
    (secagg.ShareDigests, "self_seed"): _DIGEST_BYTES,
    (secagg.ShareMessage, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.DealtShares, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.Delivery, "model_digest"): _DIGEST_BYTES,
    (secagg.InputTrailer, "payload_digest"): _DIGEST_BYTES,
    (secagg.InputTrailer, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.ConsistencySignature, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.RevealedShare, "salt"): secagg.SALT_BYTES,
    (secagg.RevealedShare, "share"): secagg.SHARE_BYTES,
    (secagg.Unmasking, "signature"): secagg.SIGNATURE_BYTES,
    (terms.Setup, "nonce_commitment"): _DIGEST_BYTES,
}

#: Checks by the annotation of a field. Keys are `NewType`s.
_CHECKS: dict[Any, Callable[[Any, str], Any]] = {
    ids.MemberId: lambda value, where: _sized(value, ids.MEMBER_ID_BYTES, where),
    ids.JobId: lambda value, _: ids.require_name(value, "job id"),
    ids.OwnerName: lambda value, _: ids.require_name(value, "owner name"),
    ids.Digest: ids.require_digest,
    ids.RoundNumber: lambda value, where: _at_least(value, 1, where),
    ids.ModelVersion: lambda value, where: _at_least(value, 0, where),
}

_MESSAGES: dict[type, type[Message]] = {
    kind: getattr(module, kind.__name__)
    for module, kinds in (
        (
            control_pb2,
            (
                session.Hello,
                session.Heartbeat,
                session.Refusal,
                session.MatchAnswer,
                session.RoundReport,
                session.RoundRefusal,
                session.Welcome,
                session.MatchRequest,
                session.RoundInvite,
                session.RoundCommand,
                session.RoundClosed,
                session.Published,
                session.JobClosed,
                terms.Setup,
                secagg.Advert,
                secagg.Leaf,
                secagg.Roster,
                secagg.SealedShares,
                secagg.ShareDigests,
                secagg.ShareMessage,
                secagg.DealtShares,
                secagg.Delivery,
                secagg.InputTrailer,
                secagg.SurvivorSet,
                secagg.ConsistencySignature,
                secagg.Certificate,
                secagg.RevealedShare,
                secagg.Unmasking,
            ),
        ),
        (identity_pb2, (views.Invitation, views.OwnerView, views.HealthView)),
        (
            job_pb2,
            (
                views.OwnerMatch,
                views.DroppedMember,
                views.RoundView,
                views.ModelView,
                views.JobView,
                views.JobEvent,
            ),
        ),
    )
    for kind in kinds
}


def to_proto(value: Any) -> Any:
    """The message of the same name as the value's class, with the same fields."""
    message = _MESSAGES[type(value)]()
    _fill(message, value)
    return message


def from_proto(message: Message, kind: type[T]) -> T:
    """The message as a value of `kind`, checked.

    Raises:
        InputError: names the field, what was expected and what came.
    """
    return kind(**{place.name: _read(message, place) for place in _places(kind)})


def report_to_proto(report: session.MemberReport) -> control_pb2.MemberReport:
    """A member's report in its envelope."""
    envelope = control_pb2.MemberReport()
    _fill_one_of(envelope, report)
    return envelope


def report_from_proto(envelope: control_pb2.MemberReport) -> session.MemberReport:
    """The report in an envelope.

    Raises:
        InputError: an empty or malformed envelope.
    """
    report: session.MemberReport = _read_one_of(envelope, "body", session.MemberReport, "MemberReport")
    return report


def report_to_bytes(report: session.MemberReport) -> bytes:
    """A member's report as the bytes of its envelope, for a journal."""
    return report_to_proto(report).SerializeToString(deterministic=True)


def report_from_bytes(data: bytes) -> session.MemberReport:
    """The report that `report_to_bytes` wrote.

    Raises:
        InputError: not such bytes.
    """
    try:
        envelope = control_pb2.MemberReport.FromString(data)
    except DecodeError as error:
        raise InputError("bytes that are no report", where="MemberReport", got=str(error)[:120]) from None
    return report_from_proto(envelope)


def command_to_proto(command: session.ServerCommand, *, sequence: int = 0) -> control_pb2.ServerCommand:
    """A command in its envelope."""
    envelope = control_pb2.ServerCommand(sequence=sequence)
    _fill_one_of(envelope, command)
    return envelope


def command_from_proto(envelope: control_pb2.ServerCommand) -> tuple[int, session.ServerCommand]:
    """The command's number, and the command.

    Raises:
        InputError: an empty or malformed envelope.
    """
    command: session.ServerCommand = _read_one_of(envelope, "body", session.ServerCommand, "ServerCommand")
    return envelope.sequence, command


def reports_to_proto(reports: Sequence[session.MemberReport], *, acknowledged: int = 0) -> control_pb2.ReportBatch:
    """Reports that travel together."""
    return control_pb2.ReportBatch(acknowledged=acknowledged, reports=map(report_to_proto, reports))


def reports_from_proto(batch: control_pb2.ReportBatch) -> tuple[session.MemberReport, ...]:
    """The reports of a batch, in order.

    Raises:
        InputError: too many, or one that is empty or malformed.
    """
    _require_few(len(batch.reports), "ReportBatch.reports")
    return tuple(report_from_proto(envelope) for envelope in batch.reports)


def commands_to_proto(commands: Sequence[session.ServerCommand], *, first: int = 0) -> control_pb2.CommandBatch:
    """Commands that travel together, numbered from `first`."""
    numbered = (command_to_proto(command, sequence=first + place) for place, command in enumerate(commands))
    return control_pb2.CommandBatch(commands=numbered)


def commands_from_proto(batch: control_pb2.CommandBatch) -> Iterator[tuple[int, session.ServerCommand | InputError]]:
    """Each command of a batch with its number, in order; in place of one that cannot be read, why.

    Raises:
        InputError: too many.
    """
    _require_few(len(batch.commands), "CommandBatch.commands")
    for envelope in batch.commands:
        try:
            yield command_from_proto(envelope)
        except InputError as error:
            yield envelope.sequence, error


def _require_few(count: int, where: str) -> None:
    if count > MOST_IN_A_BATCH:
        raise InputError("too many messages in a batch", where=where, expected=str(MOST_IN_A_BATCH), got=str(count))


@dataclasses.dataclass(frozen=True)
class _Place:
    """How one field travels; worked out once a class."""

    name: str
    hint: Any
    where: str
    size: int | None
    #: one-of, optional, repeated, message or value.
    form: str


def _places(kind: Any) -> tuple[_Place, ...]:
    places: tuple[_Place, ...] = _resolved(kind)
    return places


@functools.cache
def _resolved(kind: Any) -> tuple[_Place, ...]:
    hints = get_type_hints(kind)
    return tuple(
        _Place(
            field.name,
            hints[field.name],
            f"{kind.__name__}.{field.name}",
            _SIZES.get((kind, field.name)),
            _form(hints[field.name]),
        )
        for field in dataclasses.fields(kind)
    )


def _form(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return "optional" if NoneType in get_args(hint) else "one-of"
    if get_origin(hint) is tuple:
        return "repeated"
    return "message" if dataclasses.is_dataclass(hint) and hint is not terms.Terms else "value"


@functools.cache
def _one_of_name(kind: Any) -> str:
    """`ShareMessage` stands in the field `share_message`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def _fill(message: Message, value: Any) -> None:
    for place in _places(type(value)):
        item = getattr(value, place.name)
        if place.form == "one-of":
            _fill_one_of(message, item)
        elif place.form == "repeated":
            repeated = getattr(message, place.name)
            if item and dataclasses.is_dataclass(item[0]):
                for element in item:
                    _fill(repeated.add(), element)
            else:
                repeated.extend(item)
        elif item is None:
            continue
        elif place.form in ("message", "optional"):
            target = getattr(message, place.name)
            target.SetInParent()
            _fill(target, item)
        elif isinstance(item, terms.Terms):
            setattr(message, place.name, item.encode())
        else:
            setattr(message, place.name, item.value if isinstance(item, Enum) else item)


def _fill_one_of(message: Message, value: Any) -> None:
    kind: Any = type(value)
    target = getattr(message, _one_of_name(kind))
    target.SetInParent()
    _fill(target, value)


def _read(message: Any, place: _Place) -> Any:
    match place.form:
        case "one-of":
            return _read_one_of(message, place.name, place.hint, place.where)
        case "optional":  # an absent message means None
            (kind,) = (part for part in get_args(place.hint) if part is not NoneType)
            return from_proto(getattr(message, place.name), kind) if message.HasField(place.name) else None
        case "repeated":
            return _read_repeated(getattr(message, place.name), place)
        case "message" if not message.HasField(place.name):
            name = getattr(place.hint, "__name__", "a message")
            raise InputError("a message lacks a part", where=place.where, expected=name)
        case _:
            return _value(getattr(message, place.name), place.hint, place.where, place.size)


def _read_repeated(repeated: Any, place: _Place) -> tuple[Any, ...]:
    if len(repeated) > MOST_ELEMENTS:
        raise InputError(
            "too many elements", where=place.where, expected=f"at most {MOST_ELEMENTS}", got=str(len(repeated))
        )
    element = get_args(place.hint)[0]
    return tuple(_value(item, element, place.where, place.size) for item in repeated)


def _read_one_of(message: Any, name: str, hint: Any, where: str) -> Any:
    chosen = message.WhichOneof(name)
    kind: Any
    for kind in get_args(hint):
        if chosen is not None and _one_of_name(kind) == chosen:
            return from_proto(getattr(message, chosen), kind)
    raise InputError("a message without content", where=where, expected="one of the known kinds", got=str(chosen))


def _value(item: Any, hint: Any, where: str, size: int | None) -> Any:
    check = _CHECKS.get(hint)
    if check is not None:
        return check(item, where)
    if hint is terms.Terms:
        return terms.decode_terms(item)
    if dataclasses.is_dataclass(hint):
        return from_proto(item, hint)  # type: ignore[arg-type]  # a dataclass, by the line above
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member_of(hint, item, where)
    if hint is float and not math.isfinite(item):
        raise InputError("a number that is not finite", where=where, expected="a finite number", got=repr(item))
    if hint is str and len(item) > LONGEST_TEXT:
        raise InputError(
            "a text too long", where=where, expected=f"at most {LONGEST_TEXT}", got=f"{len(item)} characters"
        )
    if hint is str and not (item.isprintable() or item.replace("\n", "").isprintable()):
        raise InputError("a text with control characters", where=where, expected="printable text")
    if size is not None:
        return _sized(item, size, where)
    return item


def _member_of(kind: type[Enum], item: Any, where: str) -> Enum:
    try:
        return kind(item)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise InputError("an unknown value", where=where, expected=f"one of {known}", got=repr(item)[:80]) from None


def _sized(value: bytes, size: int, where: str) -> bytes:
    if len(value) != size:
        raise InputError("bytes of another length", where=where, expected=f"{size} bytes", got=f"{len(value)} bytes")
    return value


def _at_least(value: int, least: int, where: str) -> int:
    if value < least:
        raise InputError("a number too small", where=where, expected=f"at least {least}", got=str(value))
    return value
