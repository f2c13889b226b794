"""Which role may call which RPC. An RPC that is not in the table cannot be called, and stops the start-up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from lepton_core.errors import ConflictError, IdentityError


class Role(StrEnum):
    """What a certificate's holder is to the coordinator."""

    OPERATOR = "operator"
    RESEARCHER = "researcher"
    OWNER = "owner"
    AUDITOR = "auditor"
    #: The coordinator itself and services beside it.
    SERVICE = "service"
    #: The bootstrap certificate of an invitation: good for `Enrol` alone.
    ENROL = "enrol"


#: Roles that an operator can invite.
INVITABLE = frozenset({Role.OPERATOR, Role.RESEARCHER, Role.OWNER, Role.AUDITOR})

_OWNER = frozenset({Role.OWNER})
_OPERATOR = frozenset({Role.OPERATOR})
_RESEARCHER = frozenset({Role.RESEARCHER})
_PUBLISHERS = frozenset({Role.RESEARCHER, Role.OPERATOR})
_LOOKERS = frozenset({Role.RESEARCHER, Role.OPERATOR, Role.AUDITOR})
_ENROLLED = frozenset({Role.OWNER, Role.RESEARCHER, Role.OPERATOR, Role.AUDITOR})
_ANY = _ENROLLED | {Role.SERVICE}

#: What is not about the role (whose job, whose upload) is checked where the object is known.
ALLOWED: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "/lepton.v1.Control/Session": _OWNER,
        "/lepton.v1.Control/Poll": _OWNER,
        "/lepton.v1.Control/Links": _OWNER,
        "/lepton.v1.Transfer/Upload": _OWNER | _RESEARCHER,
        "/lepton.v1.Transfer/Put": _OWNER | _RESEARCHER,
        "/lepton.v1.Transfer/Status": _OWNER | _RESEARCHER,
        "/lepton.v1.Transfer/Download": _OWNER | _LOOKERS,
        "/lepton.v1.Transfer/UploadTicket": _OWNER | _RESEARCHER,
        "/lepton.v1.Transfer/DownloadTicket": _OWNER | _LOOKERS,
        "/lepton.v1.Enrolment/Enrol": frozenset({Role.ENROL}),
        "/lepton.v1.Enrolment/Renew": _ENROLLED,
        "/lepton.v1.Owners/Invite": _OPERATOR,
        "/lepton.v1.Owners/List": _OPERATOR | {Role.AUDITOR},
        "/lepton.v1.Owners/Revoke": _OPERATOR,
        "/lepton.v1.Federations/Publish": _PUBLISHERS,
        "/lepton.v1.Federations/Get": _ENROLLED,
        "/lepton.v1.Jobs/Submit": _RESEARCHER,
        "/lepton.v1.Jobs/List": _LOOKERS,
        "/lepton.v1.Jobs/Show": _LOOKERS,
        "/lepton.v1.Jobs/Watch": _LOOKERS,
        "/lepton.v1.Jobs/Abort": _PUBLISHERS,
        "/lepton.v1.Jobs/ShowRound": _LOOKERS,
        "/lepton.v1.Jobs/Models": _LOOKERS,
        "/lepton.v1.KnowledgeService/Publish": _PUBLISHERS,
        "/lepton.v1.KnowledgeService/Get": _ENROLLED,
        "/lepton.v1.KnowledgeService/List": _ENROLLED,
        "/lepton.v1.KnowledgeService/Diff": _ENROLLED,
        "/lepton.v1.KnowledgeService/Approve": _PUBLISHERS,
        "/lepton.v1.KnowledgeService/Deprecate": _PUBLISHERS,
        "/lepton.v1.KnowledgeService/Resolve": _ENROLLED,
        "/lepton.v1.KnowledgeService/Closure": _ENROLLED,
        "/lepton.v1.KnowledgeService/ValueSet": _ENROLLED,
        "/lepton.v1.KnowledgeService/ValidateMapping": _ENROLLED,
        "/lepton.v1.Health/Report": _ANY,
        "/grpc.health.v1.Health/Check": _ANY,
        "/grpc.health.v1.Health/Watch": _ANY,
    }
)


def require_role(method: str, role: Role, *, allowed: Mapping[str, frozenset[Role]] = ALLOWED) -> None:
    """Refuse a call that the role is not allowed.

    Raises:
        IdentityError: not allowed; so is everything about a method that is not in the table.
    """
    may = allowed.get(method, frozenset())
    if role not in may:
        raise IdentityError(
            "the role may not do this",
            where=method,
            expected=" or ".join(sorted(may)) or "nobody",
            got=role,
            hint="use the credentials of such a person or daemon",
            reason="ROLE",
        )


def require_complete(methods: Iterable[str], *, allowed: Mapping[str, frozenset[Role]] = ALLOWED) -> None:
    """Refuse to serve an RPC that nobody has decided about.

    Raises:
        ConflictError: names the methods.
    """
    missing = sorted(set(methods) - set(allowed))
    if missing:
        raise ConflictError(
            "RPCs without an entry in the table of roles", where="identity/roles.py", got=", ".join(missing)
        )
