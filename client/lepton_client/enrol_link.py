"""The one call of an enrolment, over the invitation's own credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from lepton_core.errors import IdentityError
from lepton_core.identity import IdentityKey
from lepton_core.views import Invitation
from lepton_protos.channel import Endpoint, open_channel
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import identity_pb2, identity_pb2_grpc

#: What the protocol identity signs: this label, the token and the certificate request.
PROOF_LABEL = b"lepton/enrol/v1"
DEADLINE_S = 20.0


@dataclass(frozen=True)
class Certified:
    """What the coordinator answers: a certificate in PEM, and for whom."""

    name: str
    role: str
    certificate: bytes


def request_certificate(invitation: Invitation, csr: bytes, identity: IdentityKey | None) -> Certified:
    """The certificate for a PKCS #10 request in DER; a data owner proves that it holds its identity.

    Raises:
        IdentityError: the token or the credentials do not hold, or the coordinator's certificate is of another CA.
        FaultError: the coordinator cannot be reached within `DEADLINE_S`.
    """
    bootstrap = Endpoint(
        invitation.address,
        invitation.ca_certificate.encode(),
        invitation.bootstrap_certificate.encode(),
        invitation.bootstrap_key.encode(),
    )
    request = identity_pb2.EnrolRequest(token=invitation.token, csr=csr)
    if identity is not None:
        request.identity_public = identity.public
        request.identity_proof = identity.sign(PROOF_LABEL + invitation.token.encode() + csr)
    try:
        with open_channel(bootstrap) as channel:
            make: Any = identity_pb2_grpc.EnrolmentStub  # generated without annotations
            reply = make(channel).Enrol(request, timeout=DEADLINE_S)
    except grpc.RpcError as failure:
        raise error_from_rpc(failure) from None
    except ValueError:
        raise IdentityError(
            "the invitation's credentials cannot be used",
            where=f"invitation of {invitation.name}",
            hint="ask the coordinator's operator for a new one",
        ) from None
    return Certified(reply.name, reply.role, reply.certificate.encode())
