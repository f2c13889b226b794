"""What a member refuses: terms, roster, survivor set and certificate that an honest coordinator would not send.

Pure checks of received messages; nothing here changes the protocol's state. Every refusal ends the round.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lepton_core.errors import AbortedError, IdentityError, PeerViolation, PolicyRefusal
from lepton_core.identity import require_signature
from lepton_core.ids import MemberId, derive_member_id
from lepton_core.secagg.graph import Graph, choose_parameters, draw_graph
from lepton_core.secagg.messages import KEY_BYTES, Advert, Certificate, Roster, SurvivorSet
from lepton_core.secagg.terms import Setup, commit_nonce, survivors_digest

COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Admission:
    """Who and what this owner's policy admits, whatever the coordinator says."""

    #: Identity keys of the accepted, verified membership list, by member id.
    members: Mapping[MemberId, bytes]
    #: Digest of that list; the terms must name the same.
    membership_digest: bytes
    #: Fewest survivors this owner lets its update be summed with.
    min_cohort: int
    #: Smallest assumed share of colluders this owner accepts.
    corruption: float


@dataclass(frozen=True)
class Circle:
    """A checked roster: all members, and the neighbours with whom this member shares masks and secrets."""

    roster: Roster
    root: bytes
    members: tuple[MemberId, ...]
    #: Adverts of the neighbours, verified, by member id.
    adverts: Mapping[MemberId, Advert]
    graph: Graph

    @property
    def threshold(self) -> int:
        """Number of holders that rebuild a secret, t."""
        return self.graph.threshold


def violation(message: str, *, reason: str, expected: str = "", got: str = "") -> PeerViolation:
    """The coordinator broke the protocol."""
    return PeerViolation(message, where=COORDINATOR, expected=expected, got=got, reason=reason)


def require_terms(setup: Setup, admission: Admission, me: MemberId, identity: bytes) -> None:
    """Refuse terms below this owner's policy, before any secret is made.

    Raises:
        InputError: terms that are unsound for anybody.
        PolicyRefusal: names the policy key.
        IdentityError: this member is not on its own accepted list, or the round is among another list's members.
    """
    terms = setup.terms
    terms.require_sound()
    choose_parameters(terms.min_cohort, terms)
    choose_parameters(terms.max_cohort, terms)
    if len(setup.nonce_commitment) != KEY_BYTES:
        raise violation("a nonce commitment of another length", reason="BAD_SETUP", expected="32 bytes")
    if terms.min_cohort < admission.min_cohort:
        raise PolicyRefusal(
            "the round may end with fewer members than the policy allows",
            where="min_cohort",
            expected=f"at least {admission.min_cohort}",
            got=str(terms.min_cohort),
            reason="MIN_COHORT",
        )
    if terms.corruption < admission.corruption:
        raise PolicyRefusal(
            "the round assumes fewer colluders than the policy asks for",
            where="corruption",
            expected=f"at least {admission.corruption}",
            got=str(terms.corruption),
            reason="CORRUPTION",
        )
    if not hmac.compare_digest(terms.membership_digest, admission.membership_digest):
        raise IdentityError(
            "the round is among the members of another list than the accepted one",
            where="membership_digest",
            expected=admission.membership_digest.hex(),
            got=terms.membership_digest.hex(),
            hint="show the new list to the owner and accept it, or refuse the job",
            reason="OTHER_MEMBERSHIP",
        )
    if admission.members.get(me) != identity:
        raise IdentityError(
            "this member's own identity is not on the accepted list", where=f"member {me.hex()}", reason="NOT_LISTED"
        )


def require_roster(roster: Roster, setup: Setup, admission: Admission, own: Advert) -> Circle:
    """The circle of a roster that holds every rule of step 1.

    Raises:
        PeerViolation: the coordinator's.
        IdentityError: a member that the owner's policy does not admit, or a signature that does not hold.
        InputError: a size without a graph.
    """
    setup_id, terms = setup.setup_id(), setup.terms
    members = tuple(leaf.member for leaf in roster.leaves)
    if not hmac.compare_digest(commit_nonce(roster.server_nonce), setup.nonce_commitment):
        raise violation("the coordinator's nonce does not open its commitment", reason="BAD_NONCE")
    require_strictly_sorted(members, "roster", "BAD_ROSTER")
    if not terms.min_cohort <= len(members) <= terms.max_cohort:
        raise violation(
            "a roster of another size than the terms say",
            reason="ROSTER_SIZE",
            expected=f"{terms.min_cohort} to {terms.max_cohort}",
            got=str(len(members)),
        )
    strangers = [member for member in members if member not in admission.members]
    if strangers:
        raise IdentityError(
            f"the roster names {len(strangers)} members that the accepted membership list does not",
            where=f"member {strangers[0].hex()}",
            expected="identities that this owner's policy admits",
            hint="ask the federation for a newer signed list, and accept it if the fingerprints are right",
            reason="NOT_ADMITTED",
        )
    leaves = {leaf.member: leaf.advert_digest for leaf in roster.leaves}
    if leaves.get(own.member) != own.digest(setup_id):
        raise violation("this member's own keys are missing or altered in the roster", reason="OWN_KEY_ALTERED")
    root = roster.root()
    graph = draw_graph(root, roster.server_nonce, members, terms)
    around = graph.neighbours(own.member)
    if tuple(advert.member for advert in roster.adverts) != around:
        raise violation(
            "the adverts are not those of this member's neighbours",
            reason="WRONG_NEIGHBOURS",
            expected=f"{len(around)} adverts in order",
            got=f"{len(roster.adverts)} adverts",
        )
    for advert in roster.adverts:
        require_advert(advert, admission.members[advert.member], setup_id)
        if leaves[advert.member] != advert.digest(setup_id):
            raise violation(
                "an advert that is not the one in the roster", reason="SUBSTITUTED_KEY", got=advert.member.hex()
            )
    keys = [key for advert in (own, *roster.adverts) for key in (advert.mask_public, advert.encryption_public)]
    if len(set(keys)) != len(keys):
        raise violation("a public key stands in the roster twice", reason="REPEATED_KEY")
    return Circle(roster, root, members, {advert.member: advert for advert in roster.adverts}, graph)


def require_advert(advert: Advert, identity: bytes, setup_id: bytes) -> None:
    """Refuse an advert that the admitted identity did not sign for this setup; both sides ask this.

    Raises:
        PeerViolation: fields of another length; names the member.
        IdentityError: another identity than the admitted one, or a signature that does not hold.
    """
    who = f"member {advert.member.hex()}"
    fields = (advert.mask_public, advert.encryption_public, advert.seed_commitment, advert.nonce)
    if any(len(field) != KEY_BYTES for field in fields):
        raise PeerViolation("an advert with a field of another length", where=who, expected="32 bytes each")
    if advert.identity != identity or derive_member_id(advert.identity) != advert.member:
        raise IdentityError("an advert of another identity than the admitted one", where=who, reason="OTHER_IDENTITY")
    require_signature(identity, advert.signature, advert.signed_bytes(setup_id), who=who, what="advert")


def require_survivors(
    survivors: SurvivorSet, circle: Circle, me: MemberId, held: Mapping[MemberId, object], min_cohort: int
) -> None:
    """Refuse a survivor set that breaks a rule of step 3.

    Raises:
        PeerViolation: unsorted, repeated or unknown ids, or a neighbour in it whose shares this member lacks.
        AbortedError: this member is left out, or the set is below the threshold, the minimum cohort, or the size for
            which a sparse graph stays connected.
    """
    require_strictly_sorted(survivors.survivors, "survivor set", "BAD_SURVIVORS")
    alive = set(survivors.survivors)
    if not alive <= set(circle.members):
        raise violation("the survivor set names members that are not on the roster", reason="UNKNOWN_SURVIVOR")
    if me not in alive:
        raise AbortedError("the coordinator says that this member dropped out", where=COORDINATOR, reason="LEFT_OUT")
    least = circle.graph.least_survivors(min_cohort)
    if len(alive) < least:
        raise AbortedError(
            "too few survivors to reveal a sum",
            where=COORDINATOR,
            expected=f"at least {least}",
            got=str(len(alive)),
            reason="TOO_FEW_SURVIVORS",
        )
    unheld = [member for member in circle.adverts if member in alive and member not in held]
    if unheld:
        raise violation(
            "the survivor set names a neighbour whose shares never reached this member",
            reason="UNHELD_SURVIVOR",
            got=unheld[0].hex(),
        )


def require_certificate(
    certificate: Certificate, survivors: SurvivorSet, circle: Circle, me: MemberId, sid: bytes
) -> None:
    """Refuse to go on unless t holders signed the survivor set that this member was shown.

    In the complete graph this member counts itself; in a sparse one t of its neighbours must have signed.

    Raises:
        PeerViolation: unsorted or repeated signers, a signer that is no survivor or no neighbour, or too few.
        IdentityError: a signature over another set.
    """
    signers = tuple(entry.member for entry in certificate.signatures)
    require_strictly_sorted(signers, "certificate", "BAD_CERTIFICATE")
    digest = survivors_digest(sid, survivors.survivors)
    alive = set(survivors.survivors)
    for entry in certificate.signatures:
        if entry.member == me:
            continue
        advert = circle.adverts.get(entry.member)
        if advert is None or entry.member not in alive:
            raise violation("a signer that is no surviving neighbour", reason="BAD_SIGNER", got=entry.member.hex())
        who = f"{COORDINATOR}, for member {entry.member.hex()}"
        require_signature(advert.identity, entry.signature, digest, who=who, what="survivor set")
    counted = len({*signers} - {me})
    if counted < circle.graph.quorum:
        raise violation(
            "too few members signed the survivor set",
            reason="TOO_FEW_SIGNATURES",
            expected=f"at least {circle.graph.quorum} neighbours",
            got=str(counted),
        )


def require_strictly_sorted(members: Sequence[MemberId], what: str, reason: str) -> None:
    """Refuse a list of ids that is not strictly ascending, so that nobody is counted twice.

    Raises:
        PeerViolation: names the coordinator.
    """
    if any(left >= right for left, right in pairwise(members)):
        raise violation(f"the {what} is not strictly sorted", reason=reason, expected="ascending member ids, each once")
