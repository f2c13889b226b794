"""Every error Lepton raises on purpose, in one tree split by who is to blame.

LeptonError
├── InputError              the caller gave something wrong (a file, a setting, an argument)
│   ├── SettingsError       a settings document: every problem of it at once
│   ├── OntologyError       RDF that does not parse, an unknown concept
│   ├── UnitError           a unit that is unknown, or cannot convert
│   ├── MappingError        an owner's mapping document
│   ├── DataError           an owner's source: missing file, column, code
│   ├── JobError            a job that cannot be run as written
│   └── CodecError          a vector that cannot be encoded or decoded
├── RefusedError            a rule of somebody who has the last word says no
│   ├── PolicyRefusal       the owner's policy; names the policy key
│   ├── BudgetRefusal       the owner's privacy ledger
│   └── MatchRefusal        the owner's mapping or data cannot serve the job
├── NotFoundError           no such job, round, model, owner, ontology
├── ConflictError           the object exists, or is not in a state for this
├── IdentityError           token, certificate, role, signature
├── PeerViolation           a member or a coordinator broke the protocol; names it
├── AbortedError            a round or a job ended without a result; says why
└── FaultError              the environment: disk, port, network; `retryable` says if again helps

`code` is stable: it is the wire code, the row in docs/errors.md and, with `exit_code`, what the command line ends with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar


class LeptonError(Exception):
    """What happened, where, what was expected, what came, and what to do next.

    No field ever holds a secret or a value from records.
    """

    #: Stable name of the kind of error, on the wire and in the docs.
    code: ClassVar[str] = "error"
    #: Exit code of the command line for this class.
    exit_code: ClassVar[int] = 1
    #: True if the same call can succeed later without anybody changing anything.
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        expected: str = "",
        got: str = "",
        hint: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.expected = expected
        self.got = got
        self.hint = hint
        #: Machine-readable detail below `code`, such as MISSING_CONCEPT; upper case.
        self.reason = reason

    def __str__(self) -> str:
        parts = [self.message]
        if self.where:
            parts.append(f"where: {self.where}")
        if self.expected:
            parts.append(f"expected: {self.expected}")
        if self.got:
            parts.append(f"got: {self.got}")
        if self.hint:
            parts.append(f"try: {self.hint}")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, str]:
        """The error as plain strings, for the wire, logs and `--output json`."""
        fields = {
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "where": self.where,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
        }
        return {key: value for key, value in fields.items() if value}

    def to_json(self) -> str:
        """One line of JSON that `from_dict` reads back."""
        return json.dumps(self.as_dict(), ensure_ascii=True, sort_keys=True)


class InputError(LeptonError):
    """The caller gave something wrong; nothing was done."""

    code = "input"
    exit_code = 3


class SettingsError(InputError):
    """A settings document is wrong; `problems` tells every one, with its key path."""

    code = "settings"

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), where: str = "", hint: str = "") -> None:
        super().__init__(message, where=where, got="; ".join(problems), hint=hint)
        self.problems = problems


class OntologyError(InputError):
    """RDF that does not parse, an ontology without what it needs, or an unknown concept."""

    code = "ontology"


class UnitError(InputError):
    """A unit is unknown, or two units measure different kinds of quantity."""

    code = "unit"


class MappingError(InputError):
    """An owner's mapping is malformed, unapproved, or made for another ontology version or source."""

    code = "mapping"


class DataError(InputError):
    """An owner's source cannot be read as the mapping says."""

    code = "data"


class JobError(InputError):
    """A job that cannot be run as written."""

    code = "job"


class CodecError(InputError):
    """A vector or an encoded form that a codec must not touch."""

    code = "codec"


class RefusedError(LeptonError):
    """Somebody who has the last word says no."""

    code = "refused"
    exit_code = 4


class PolicyRefusal(RefusedError):
    """The owner's policy refuses; `where` names the policy key."""

    code = "refused.policy"


class BudgetRefusal(RefusedError):
    """The owner's privacy budget would be overspent."""

    code = "refused.budget"


class MatchRefusal(RefusedError):
    """The owner's mapping or data cannot serve the job; `reason` is machine-readable."""

    code = "refused.match"


class NotFoundError(LeptonError):
    """No object of that name or number."""

    code = "not-found"
    exit_code = 5


class ConflictError(LeptonError):
    """The object exists already, or is not in a state in which this can be done."""

    code = "conflict"
    exit_code = 5


class IdentityError(LeptonError):
    """A token, certificate, signature or role that does not hold."""

    code = "identity"
    exit_code = 6


class PeerViolation(LeptonError):
    """A member or a coordinator broke the protocol; `where` names it."""

    code = "violation"
    exit_code = 7


class AbortedError(LeptonError):
    """A round or a job ended without a result, and says why."""

    code = "aborted"
    exit_code = 9


class FaultError(LeptonError):
    """The environment failed: disk, port, network, a lost peer."""

    code = "fault"
    exit_code = 8
    retryable = True


_BY_CODE: dict[str, type[LeptonError]] = {
    kind.code: kind
    for kind in (
        InputError,
        OntologyError,
        UnitError,
        MappingError,
        DataError,
        JobError,
        CodecError,
        RefusedError,
        PolicyRefusal,
        BudgetRefusal,
        MatchRefusal,
        NotFoundError,
        ConflictError,
        IdentityError,
        PeerViolation,
        AbortedError,
        FaultError,
    )
}


def from_dict(fields: Mapping[str, str]) -> LeptonError:
    """The error that `as_dict` described; an unknown code gives the base class."""
    kind = _BY_CODE.get(fields.get("code", ""))
    if kind is None:
        kind = InputError if fields.get("code") == SettingsError.code else LeptonError
    return kind(
        fields.get("message", "unknown error"),
        where=fields.get("where", ""),
        expected=fields.get("expected", ""),
        got=fields.get("got", ""),
        hint=fields.get("hint", ""),
        reason=fields.get("reason", ""),
    )
