"""Machine events and checkpoints as bytes: what a restarted coordinator rebuilds its jobs from."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, fields
from typing import Any

from lepton_core import errors
from lepton_core.errors import FaultError, LeptonError
from lepton_core.ids import Digest, JobId, MemberId, OwnerName, RoundNumber
from lepton_core.job import parse_job
from lepton_core.secagg.terms import decode_terms
from lepton_core.session import Refusal, RoundReport
from lepton_core.views import ModelView
from lepton_protos import convert
from lepton_server.jobs import events as ev
from lepton_server.jobs.phases import Facts, Peer, Roll, Waiting

#: Events with plain fields, by the name they are journaled under.
_PLAIN: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        ev.MatchAnswered,
        ev.RoundOpened,
        ev.RoundBegun,
        ev.TotalKept,
        ev.MemberLeft,
        ev.DeadlinePassed,
        ev.AbortRequested,
        ev.InitialModelReady,
        ev.InitialModelFailed,
        ev.AggregateDone,
        ev.AggregateFailed,
        ev.EvaluateDone,
        ev.EvaluateFailed,
    )
}


def encode_event(job: JobId, stamped: ev.Stamped) -> bytes:
    """One journal entry."""
    event = stamped.event
    document: dict[str, Any] = {"time": stamped.time, "kind": type(event).__name__}
    if isinstance(event, ev.RoundMessage):
        report = event.report or convert.report_to_bytes(RoundReport(job, event.round, event.message))
        document |= {"member": event.member.hex(), "size": event.size, "report": base64.b64encode(report).decode()}
    else:
        document["fields"] = {field.name: _plain(getattr(event, field.name)) for field in fields(event)}
    return json.dumps(document, separators=(",", ":")).encode()


def decode_event(entry: bytes) -> ev.Stamped:
    """The entry's event.

    Raises:
        FaultError: an entry that this version did not write.
    """
    try:
        document = json.loads(entry)
        return ev.Stamped(document["time"], _decode(document))
    except (ValueError, KeyError, TypeError) as error:
        raise FaultError("a journal entry cannot be read", got=f"{type(error).__name__}: {error}"[:160]) from error


def _decode(document: dict[str, Any]) -> ev.MachineEvent:
    kind = document["kind"]
    if kind == ev.RoundMessage.__name__:
        report = convert.report_from_bytes(base64.b64decode(document["report"]))
        if not isinstance(report, RoundReport):
            raise TypeError(type(report).__name__)
        member = MemberId(bytes.fromhex(document["member"]))
        return ev.RoundMessage(member, report.round, report.message, document["size"])
    made = {name: _restore(name, value) for name, value in document["fields"].items()}
    event: ev.MachineEvent = _PLAIN[kind](**made)
    return event


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Refusal):
        return asdict(value)
    if isinstance(value, LeptonError):
        return value.as_dict()
    return value


def _restore(name: str, value: Any) -> Any:
    match name:
        case "member":
            return MemberId(bytes.fromhex(value))
        case "cohort":
            return tuple(MemberId(bytes.fromhex(item)) for item in value)
        case "refusal":
            return Refusal(**value) if value is not None else None
        case "error":
            return errors.from_dict(value)
        case _:
            return value


def encode_checkpoint(facts: Facts, phase: Waiting | None) -> bytes:
    """A job between rounds, or (None) just submitted."""
    document: dict[str, Any] = {
        "facts": {
            "job_id": facts.job_id,
            "job": facts.job.canonical().decode(),
            "terms": facts.terms.encode().decode(),
            "membership": facts.membership.decode(),
            "peers": [[member.hex(), peer.owner, peer.identity.hex()] for member, peer in sorted(facts.peers.items())],
            "secret": facts.secret.hex(),
            "researcher": facts.researcher,
            "submitted": facts.submitted,
            "bytes_per_parameter": facts.bytes_per_parameter,
        },
        "phase": _encode_waiting(phase) if phase is not None else None,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def decode_checkpoint(data: bytes) -> tuple[Facts, Waiting | None]:
    """The job's facts and, if it was between rounds, its phase.

    Raises:
        FaultError: a checkpoint that this version did not write.
    """
    try:
        document = json.loads(data)
        told, phase = document["facts"], document["phase"]
        facts = Facts(
            job_id=JobId(told["job_id"]),
            job=parse_job(told["job"].encode()),
            terms=decode_terms(told["terms"].encode()),
            membership=told["membership"].encode(),
            peers={
                MemberId(bytes.fromhex(member)): Peer(OwnerName(owner), bytes.fromhex(identity))
                for member, owner, identity in told["peers"]
            },
            secret=bytes.fromhex(told["secret"]),
            researcher=OwnerName(told["researcher"]),
            submitted=told["submitted"],
            bytes_per_parameter=told["bytes_per_parameter"],
        )
        return facts, _decode_waiting(phase) if phase is not None else None
    except (ValueError, KeyError, TypeError) as error:
        raise FaultError("a checkpoint cannot be read", got=f"{type(error).__name__}: {error}"[:160]) from error


def _encode_waiting(phase: Waiting) -> dict[str, Any]:
    roll = phase.roll
    return {
        "since": phase.since,
        "answers": [[member.hex(), _plain(refusal)] for member, refusal in sorted(roll.answers.items())],
        "coverage": {member.hex(): told for member, told in sorted(roll.coverage.items())},
        "model": asdict(roll.model) if roll.model is not None else None,
        "optimizer": roll.optimizer,
        "snapshot": roll.snapshot,
        # A round that is opened and not begun is rebuilt from the journal, its opening included.
        "next_round": roll.ahead.record.number if roll.ahead is not None else roll.next_round,
        "aborted_in_row": roll.aborted_in_row,
        "answered": [member.hex() for member in sorted(roll.answered)],
        "events": roll.events,
        "unevaluated": [asdict(view) for view in roll.unevaluated],
    }


def _decode_waiting(document: dict[str, Any]) -> Waiting:
    optimizer, snapshot = document["optimizer"], document.get("snapshot")
    roll = Roll(
        answers={
            MemberId(bytes.fromhex(member)): Refusal(**refusal) if refusal is not None else None
            for member, refusal in document["answers"]
        },
        coverage={MemberId(bytes.fromhex(member)): told for member, told in document.get("coverage", {}).items()},
        model=ModelView(**document["model"]) if document["model"] is not None else None,
        optimizer=Digest(optimizer) if optimizer is not None else None,
        snapshot=Digest(snapshot) if snapshot is not None else None,
        next_round=RoundNumber(document["next_round"]),
        aborted_in_row=document["aborted_in_row"],
        answered=frozenset(MemberId(bytes.fromhex(member)) for member in document["answered"]),
        events=document["events"],
        unevaluated=tuple(ModelView(**view) for view in document["unevaluated"]),
    )
    return Waiting(roll, document["since"])
