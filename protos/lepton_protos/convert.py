"""The only translator between protobuf messages and Lepton's own values; parsing is validating.

`fields` makes the readers and writers; here is which message carries which value, and the envelopes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from lepton_core import session, views
from lepton_core.errors import InputError
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_core.secagg import messages as secagg
from lepton_core.secagg import terms
from lepton_protos.fields import one_of_reader, reader_of, write_one_of, writer_of
from lepton_protos.v1 import control_pb2, identity_pb2, job_pb2

T = TypeVar("T")

#: Most reports, or commands, in one message.
MOST_IN_A_BATCH = 64

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
                session.Published,
                session.JobClosed,
                LedgerAnchor,
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
                views.EncodingView,
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


def report_to_proto(report: session.MemberReport) -> control_pb2.MemberReport:
    """A member's report in its envelope."""
    envelope = control_pb2.MemberReport()
    write_one_of(envelope, report)
    return envelope


def report_from_proto(envelope: control_pb2.MemberReport) -> session.MemberReport:
    """The report in an envelope.

    Raises:
        InputError: an empty or malformed envelope.
    """
    report: session.MemberReport = _read_report(envelope)
    return report


def report_to_bytes(report: session.MemberReport) -> bytes:
    """A member's report as the bytes of its envelope, for a journal."""
    return report_to_proto(report).SerializeToString(deterministic=True)


def take_bytes_of(envelope: control_pb2.MemberReport) -> bytes:
    """`report_to_bytes` of a report that came in this envelope, without its payload, which is taken out of it.

    A fifth of the time that it takes to fill an envelope anew; what this version does not know is left out as well.
    """
    if envelope.HasField("round_report"):
        envelope.round_report.ClearField("payload")
    envelope.DiscardUnknownFields()
    return envelope.SerializeToString(deterministic=True)


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
    write_one_of(envelope, command)
    return envelope


def command_from_proto(envelope: control_pb2.ServerCommand) -> tuple[int, session.ServerCommand]:
    """The command's number, and the command.

    Raises:
        InputError: an empty or malformed envelope.
    """
    command: session.ServerCommand = _read_command(envelope)
    return envelope.sequence, command


def reports_to_proto(
    reports: Sequence[session.MemberReport], *, acknowledged: int = 0, anchor: LedgerAnchor | None = None
) -> control_pb2.ReportBatch:
    """Reports that travel together, and where the owner's ledger stands."""
    batch = control_pb2.ReportBatch(acknowledged=acknowledged, reports=map(report_to_proto, reports))
    if anchor is not None:
        batch.anchor.CopyFrom(to_proto(anchor))
    return batch


def anchor_from_proto(batch: control_pb2.ReportBatch | control_pb2.PollRequest) -> LedgerAnchor | None:
    """Where the owner's ledger stands, if the batch tells.

    Raises:
        InputError: not an anchor.
    """
    return from_proto(batch.anchor, LedgerAnchor) if batch.HasField("anchor") else None


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
