"""`Enrolment`, `Owners` and `Federations`: who is in, who is invited, and the signed list of members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_core.errors import ConflictError, InputError, NotFoundError
from lepton_core.ids import Digest, MemberId, require_digest
from lepton_core.membership import SignedList, verify
from lepton_core.ports import Clock
from lepton_core.views import OwnerView
from lepton_protos import convert
from lepton_protos.v1 import identity_pb2 as pb
from lepton_server.api.guard import Call, Guard
from lepton_server.api.sessions import Sessions
from lepton_server.identity.anchors import Anchors
from lepton_server.identity.enrolment import Enrolled, Enrolment, EnrolmentRequest
from lepton_server.identity.invitations import Invitations
from lepton_server.identity.principals import Principals
from lepton_server.identity.roles import Role
from lepton_server.pump import Pump
from lepton_server.store.port import EnrolledParty, Store

_LONGEST_TOKEN = 128
#: A version may be this much higher than the one before, so that no single list can use up the numbers.
_MOST_VERSIONS_AHEAD = 1_000_000


class EnrolmentService:
    """Turns an invitation into a certificate, and a certificate into a newer one."""

    service = pb.DESCRIPTOR.services_by_name["Enrolment"]

    def __init__(self, enrolment: Enrolment, principals: Principals, pump: Pump) -> None:
        self._enrolment = enrolment
        self._principals = principals
        self._pump = pump

    async def enrol(self, request: pb.EnrolRequest, call: Call) -> pb.EnrolReply:
        """The certificate for the name and role of the invitation."""
        wanted = EnrolmentRequest(
            token=request.token[:_LONGEST_TOKEN],
            csr=request.csr,
            identity_public=request.identity_public,
            identity_proof=request.identity_proof,
        )
        return self._answer(await self._pump.call(self._enrolment.enrol, wanted, call.principal))

    async def renew(self, request: pb.RenewRequest, call: Call) -> pb.EnrolReply:
        """A fresh certificate for the same name and role."""
        return self._answer(await self._pump.call(self._enrolment.renew, request.csr, call.principal))

    def _answer(self, enrolled: Enrolled) -> pb.EnrolReply:
        self._principals.note(enrolled.party)
        return pb.EnrolReply(
            certificate=enrolled.certificate.decode(),
            ca_certificate=enrolled.ca_certificate.decode(),
            name=enrolled.party.name,
            role=enrolled.party.role,
        )


@dataclass(frozen=True)
class OwnersService:
    """Invites, lists and revokes."""

    service = pb.DESCRIPTOR.services_by_name["Owners"]

    invitations: Invitations
    enrolment: Enrolment
    principals: Principals
    sessions: Sessions
    guard: Guard
    pump: Pump
    anchors: Anchors
    #: host:port that invitations name.
    address: str

    async def invite(self, request: pb.InviteRequest, call: Call) -> pb.Invitation:
        """An invitation, shown once."""
        invitation = await self.pump.call(
            self.invitations.invite,
            request.name,
            request.role or Role.OWNER,
            valid_s=request.valid_s,
            address=self.address,
            by=call.principal.name,
        )
        message: pb.Invitation = convert.to_proto(invitation)
        return message

    async def list(self, _request: pb.ListOwnersRequest, _call: Call) -> pb.OwnerList:
        """Everybody enrolled and not revoked, by name."""
        parties, alarms = self.principals.parties(), await self.pump.call(self.anchors.alarms)
        return pb.OwnerList(owners=[self._view(party, alarms) for party in parties if not party.revoked])

    async def revoke(self, request: pb.RevokeRequest, call: Call) -> pb.OwnerView:
        """The party, refused from now on; its open streams end."""
        party = await self.pump.call(self.enrolment.revoke, request.name, by=call.principal)
        self.principals.note(party)
        self.guard.cut(party.name)
        return self._view(party, {})

    def _view(self, party: EnrolledParty, alarms: Mapping[MemberId, str]) -> pb.OwnerView:
        view: pb.OwnerView = convert.to_proto(
            OwnerView(
                name=party.name,
                role=party.role,
                member="" if party.member is None else party.member.hex(),
                identity=party.identity.hex(),
                enrolled=party.enrolled,
                connected=party.member is not None and self.sessions.is_connected(party.member),
                certificate_expires=party.certificate_expires,
                alarm=alarms.get(party.member, "") if party.member is not None else "",
            )
        )
        return view


class FederationsService:
    """Carries the federation's signed list. Owners trust its signature, never this coordinator."""

    service = pb.DESCRIPTOR.services_by_name["Federations"]

    def __init__(self, store: Store, clock: Clock, pump: Pump) -> None:
        self._store = store
        self._clock = clock
        self._pump = pump

    async def publish(self, request: pb.PublishMembershipRequest, call: Call) -> pb.PublishMembershipReply:
        """The digest of the list, which new jobs are now run under."""
        digest = await self._pump.call(self._publish, request.signed_list, call)
        return pb.PublishMembershipReply(digest=digest)

    async def get(self, request: pb.GetMembershipRequest, _call: Call) -> pb.MembershipListBytes:
        """A list by its digest, or the newest."""
        return pb.MembershipListBytes(signed_list=await self._pump.call(self._get, request.digest))

    def _publish(self, data: bytes, call: Call) -> Digest:
        signed = SignedList.from_json(data)
        now = self._clock.now()
        members = signed.members
        with self._store.transaction() as transaction:
            newest = transaction.newest_membership()
            version = 0 if newest is None else newest[1]
            if members.version > version + _MOST_VERSIONS_AHEAD:
                raise InputError(
                    "a membership list of an impossible version",
                    where="version",
                    expected=f"at most {_MOST_VERSIONS_AHEAD} above {version}, the newest",
                    got=str(members.version)[:40],
                )
            verify(signed, signed.federation_public, now=now, at_least_version=version)
            digest = Digest(members.digest().hex())
            if newest is not None:
                self._require_successor(SignedList.from_json(newest[2]), signed, call)
            transaction.put_membership(digest, members.version, signed.to_json())
            detail = f"version {members.version} {digest}"
            transaction.append_audit(now, call.principal.name, "federation.publish", members.federation, detail)
        return digest

    @staticmethod
    def _require_successor(before: SignedList, after: SignedList, call: Call) -> None:
        """Refuse a second list of one version, and another federation's key but from the operator."""
        where = f"membership list of {after.members.federation}, version {after.members.version}"
        same = before.members.digest() == after.members.digest()
        if after.members.version == before.members.version and not same:
            raise ConflictError(
                "another list of this version is published", where=where, hint="sign the list with a higher version"
            )
        if after.federation_public != before.federation_public and call.principal.role != Role.OPERATOR:
            raise ConflictError(
                "a list signed by another federation key than the one before",
                where=where,
                expected=before.federation_public.hex(),
                got=after.federation_public.hex(),
                hint="only the operator may move the coordinator to another federation key",
                reason="FEDERATION_KEY",
            )

    def _get(self, digest: str) -> bytes:
        with self._store.transaction() as transaction:
            if digest:
                found = transaction.membership(require_digest(digest, "digest"))
            else:
                newest = transaction.newest_membership()
                found = None if newest is None else newest[2]
        if found is None:
            raise NotFoundError(
                "no such membership list", where=digest or "newest", hint="publish one with `lepton federation publish`"
            )
        return found
