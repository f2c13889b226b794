"""The membership list that this owner has looked at and accepted."""

from __future__ import annotations

from pathlib import Path

from lepton_client.home import Home, load_home_policy, load_settings
from lepton_client.journal import write_private
from lepton_client.watched import Watched
from lepton_core.errors import IdentityError, InputError, PolicyRefusal
from lepton_core.membership import MembershipList, SignedList, verify
from lepton_core.ports import Clock, SystemClock


def accept(home: Home, signed_list: Path, *, clock: Clock | None = None) -> MembershipList:
    """Accept a list that the policy's federation key signed; show its fingerprints to a person before.

    A newer list replaces the accepted one; an older one, or another one of the same version, never does.

    Raises:
        InputError: no such file, not a list, or a policy that pins members instead.
        IdentityError: another key signed it, it has expired, it is older, or this version says something else.
    """
    policy = load_home_policy(home, load_settings(home))
    if policy.peers.federation_key is None:
        raise PolicyRefusal(
            "the policy pins members one by one, so there is no list to accept",
            where="policy.peers.federation_key",
            expected="the federation's public key",
            reason="NO_FEDERATION_KEY",
        )
    try:
        signed = SignedList.from_json(signed_list.read_bytes(), source=str(signed_list))
    except OSError as error:
        raise InputError(
            "a membership list that cannot be read", where=str(signed_list), got=error.strerror or ""
        ) from None
    before = load_accepted(home)
    version = before.members.version if before is not None else 1
    now = (clock or SystemClock()).now()
    members = verify(signed, bytes.fromhex(policy.peers.federation_key), now=now, at_least_version=version)
    if before is not None and members.version == version and members.digest() != before.members.digest():
        raise IdentityError(
            "two different membership lists of one version",
            where=str(signed_list),
            expected=f"the accepted list of version {version}, or a later version",
            hint="ask the federation which one holds, and for a list of a higher version",
            reason="FORKED",
        )
    write_private(home.membership, signed.to_json())
    return members


def load_accepted(home: Home) -> SignedList | None:
    """The list accepted last; None before the first.

    Raises:
        InputError: the file is not a list.
    """
    try:
        content = home.membership.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            "the accepted list cannot be read", where=str(home.membership), got=error.strerror or ""
        ) from None
    return SignedList.from_json(content, source=str(home.membership))


def watch_accepted(home: Home, clock: Clock | None = None) -> Watched[SignedList | None]:
    """The list accepted last as its file says at each call of `current`, which raises as `load_accepted` does."""
    return Watched(home.membership, lambda: load_accepted(home), clock)
