"""What a member may lie about, by the name of the job. It has its own identity key and code, and nobody else's.

A lie works on the frozen values of `lepton_core`: what the honest daemon would report goes in, what is sent comes out.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from lepton_core.errors import LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, RoundNumber, digest_of
from lepton_core.ports import SystemRandomness
from lepton_core.secagg import client as machine
from lepton_core.secagg.agreement import RoundSecrets, draw_round_secrets
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.messages import Advert, Delivery, InputTrailer, Roster, Unmasking
from lepton_core.secagg.terms import Setup, derive_sid
from lepton_core.session import (
    MemberReport,
    Refusal,
    RoundClosed,
    RoundCommand,
    RoundInvite,
    RoundRefusal,
    RoundReport,
    ServerCommand,
)

Upload = Callable[[bytes, Digest], Awaitable[None]]


class Lie:
    """How an owner lies in one job; this one not at all."""

    def __init__(self, identity: IdentityKey) -> None:
        self.identity = identity
        #: Sends a report, whatever the daemon would do; set before the first report.
        self.say: Callable[[MemberReport], None]
        self.setups: dict[RoundNumber, Setup] = {}
        self._roots: dict[RoundNumber, bytes] = {}
        self._models: dict[RoundNumber, bytes] = {}

    def told(self, command: ServerCommand) -> None:
        """The coordinator says something about this job; called before the daemon hears of it, in its thread."""
        match command:
            case RoundInvite(setup):
                self.setups[setup.round] = setup
            case RoundCommand(round=number, message=Roster() as roster):
                self._roots[number] = roster.root()
            case RoundCommand(round=number, message=Delivery() as delivery):
                self._models[number] = delivery.model_digest

    def report(self, report: RoundReport) -> Sequence[MemberReport]:
        """What is sent instead of this report."""
        return [report]

    async def upload(self, upload: Upload, payload: bytes, digest: Digest) -> None:
        """What is uploaded instead of this payload."""
        await upload(payload, digest)

    def secrets(self, secrets: RoundSecrets) -> RoundSecrets:
        """Whose shares are dealt instead of those of the round's secrets."""
        return secrets

    def knows(self, setup_id: bytes) -> bool:
        """True if the setup is of this job."""
        return any(setup.setup_id() == setup_id for setup in self.setups.values())

    def leave(self, report: RoundReport) -> RoundRefusal:
        """Leaves the round, so that nobody waits for this member."""
        return RoundRefusal(report.job, report.round, Refusal("aborted", "LEFT", ""))

    def sign(self, number: RoundNumber, message: InputTrailer | Unmasking) -> InputTrailer | Unmasking:
        """The message with a good signature."""
        sid = derive_sid(self.setups[number].setup_id(), self._roots[number], self._models[number])
        return replace(message, signature=self.identity.sign(message.signed_bytes(sid)))


class SecondAdvert(Lie):
    """Stands in a round twice: a second advert with other keys, as well signed as the first."""

    def report(self, report):
        return [report, self.other(report)] if isinstance(report.message, Advert) else [report]

    def other(self, report: RoundReport) -> RoundReport:
        """An advert of the same identity with new keys."""
        setup = self.setups[report.round]
        admission = Admission({self.identity.member: self.identity.public}, setup.terms.membership_digest, 3, 0.0)
        _, (send,) = machine.start(setup, self.identity, admission, SystemRandomness())
        return replace(report, message=send.message)


class Flood(SecondAdvert):
    """Forty adverts more, and leaves."""

    def report(self, report):
        if not isinstance(report.message, Advert):
            return [report]
        return [report, *(self.other(report) for _ in range(40)), self.leave(report)]


class BadDealer(Lie):
    """Deals shares of other secrets than those it advertised; every digest is right."""

    def secrets(self, secrets):
        return draw_round_secrets(SystemRandomness())


class TamperedShare(Lie):
    """Reveals one share with a bit turned over, in a well signed unmasking, and leaves."""

    def report(self, report):
        if not isinstance(report.message, Unmasking):
            return [report]
        first, *rest = report.message.revealed
        wrong = replace(first, share=first.share[:-1] + bytes([first.share[-1] ^ 1]))
        signed = self.sign(report.round, replace(report.message, revealed=(wrong, *rest)))
        return [replace(report, message=signed), self.leave(report)]


class WrongLength(Lie):
    """Sends eight bytes more than the terms say, by an upload or within a message; leaves behind the latter."""

    def report(self, report):
        if not report.payload:
            return [report]
        return [replace(report, payload=report.payload + bytes(8)), self.leave(report)]

    async def upload(self, upload, payload, digest):
        longer = payload + bytes(8)
        await upload(longer, digest_of(longer))


class WrongLengthTold(Lie):
    """Uploads what it should, signs that it was eight bytes more, and leaves."""

    def report(self, report):
        trailer = report.message
        if not isinstance(trailer, InputTrailer):
            return [report]
        signed = self.sign(report.round, replace(trailer, payload_bytes=trailer.payload_bytes + 8))
        return [replace(report, message=signed), self.leave(report)]


class DoubledUpload(Lie):
    """Sends other masked words as well, by an upload or within a message, and signs for them behind the first."""

    def __init__(self, identity: IdentityKey) -> None:
        super().__init__(identity)
        self._uploaded = b""

    async def upload(self, upload, payload, digest):
        await upload(payload, digest)
        self._uploaded = bytes(len(payload))
        try:
            await upload(self._uploaded, digest_of(self._uploaded))
        except LeptonError as error:
            sys.stderr.write(f"second upload: {error.reason}\n")

    def report(self, report):
        if not isinstance(report.message, InputTrailer):
            return [report]
        within = bytes(len(report.payload))
        digest = bytes.fromhex(digest_of(within or self._uploaded))
        signed = self.sign(report.round, replace(report.message, payload_digest=digest))
        return [report, replace(report, message=signed, payload=within)]


class UploadAfterFreeze(Lie):
    """Says that it leaves, and uploads once it is told that the round goes on without it."""

    def __init__(self, identity: IdentityKey) -> None:
        super().__init__(identity)
        self._late: tuple[Upload, bytes, Digest] | None = None
        self._trailer: RoundReport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sending: asyncio.Task[None] | None = None

    async def upload(self, upload, payload, digest):
        self._late = upload, payload, digest

    def report(self, report):
        if not isinstance(report.message, InputTrailer):
            return [report]
        self._loop, self._trailer = asyncio.get_running_loop(), report
        return [self.leave(report)]

    def told(self, command):
        super().told(command)
        if isinstance(command, RoundClosed) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._send)

    def _send(self) -> None:
        self._sending = asyncio.ensure_future(self._send_late())

    async def _send_late(self) -> None:
        if self._late is not None:
            upload, payload, digest = self._late
            await upload(payload, digest)
        self.say(self._trailer)


#: By the name of the job that is lied in.
LIES: dict[str, type[Lie]] = {
    "second-advert": SecondAdvert,
    "flood": Flood,
    "bad-dealer": BadDealer,
    "tampered-share": TamperedShare,
    "wrong-length": WrongLength,
    "wrong-length-told": WrongLengthTold,
    "doubled-upload": DoubledUpload,
    "upload-after-freeze": UploadAfterFreeze,
}
