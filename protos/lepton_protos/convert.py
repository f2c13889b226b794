"""The only translator between protobuf messages and Lepton's own values; parsing is validating.

`fields` makes the readers and writers; here is which message carries which value, and the envelopes.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from lepton_core import session, views
from lepton_core.errors import InputError
from lepton_core.secagg import messages as secagg
from lepton_core.secagg import terms
from lepton_protos.fields import one_of_reader, reader_of, write_one_of, writer_of
from lepton_protos.v1 import control_pb2, identity_pb2, job_pb2

T = TypeVar("T")

_read_report = one_of_reader("body", session.MemberReport, "MemberReport")
_read_command = one_of_reader("body", session.ServerCommand, "ServerCommand")

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
    writer_of(type(value))(message, value)
    return message


def from_proto(message: Message, kind: type[T]) -> T:
    """The message as a value of `kind`, checked.

    Raises:
        InputError: names the field, what was expected and what came.
    """
    value: T = reader_of(kind)(message)
    return value


def report_to_proto(report: session.MemberReport, *, acknowledged: int = 0) -> control_pb2.MemberReport:
    """A member's report in its envelope."""
    envelope = control_pb2.MemberReport(acknowledged=acknowledged)
    write_one_of(envelope, report)
    return envelope


def report_from_proto(envelope: control_pb2.MemberReport) -> tuple[int, session.MemberReport]:
    """The number of the last command taken in, and the report.

    Raises:
        InputError: an empty or malformed envelope.
    """
    report: session.MemberReport = _read_report(envelope)
    return envelope.acknowledged, report


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
    return report_from_proto(envelope)[1]


def command_to_proto(command: session.ServerCommand, *, sequence: int = 0) -> control_pb2.ServerCommand:
    """A command in its envelope."""
    envelope = control_pb2.ServerCommand(sequence=sequence)
    write_one_of(envelope, command)
    return envelope


def command_from_proto(envelope: control_pb2.ServerCommand) -> tuple[int, session.ServerCommand]:
    """The command's number, and the command.

    Raises:
        InputError: an empty or malformed envelope.
    """
    command: session.ServerCommand = _read_command(envelope)
    return envelope.sequence, command
