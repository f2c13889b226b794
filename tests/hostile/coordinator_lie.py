"""How a coordinator lies in one job: the lie that tells the truth, which every other one changes in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lepton_core.ids import MemberId, RoundNumber
from lepton_core.secagg.messages import SurvivorSet
from lepton_core.secagg.terms import Setup
from lepton_core.session import MatchRequest, Published, RoundClosed, RoundCommand, RoundInvite, ServerCommand
from lepton_server.jobs.events import Reported

Say = Callable[[MemberId, ServerCommand], None]


class Lie:
    """How one job is lied to; this one not at all."""

    #: True: members that have answered on a model version are asked on it again.
    asks_again = False

    def __init__(self, say: Say) -> None:
        #: Tells a connected member something, whatever an honest coordinator would do.
        self.say = say
        self.setups: dict[RoundNumber, Setup] = {}

    def tell(self, member: MemberId, command: ServerCommand) -> Sequence[ServerCommand]:
        """What is told instead of this command."""
        match command:
            case RoundInvite(setup):
                self.setups[setup.round] = setup
                return [replace(command, setup=setup) for setup in self.invite(member, setup)]
            case RoundCommand(round=number, message=message):
                return [replace(command, message=forged) for forged in self.message(member, number, message)]
            case MatchRequest():
                return [self.match(command)]
            case RoundClosed(published=Published()):
                return [replace(command, published=self.publish(member, command.round, command.published))]
            case _:
                return [command]

    def match(self, request: MatchRequest) -> MatchRequest:
        """What is asked instead of a match request."""
        return request

    def invite(self, member: MemberId, setup: Setup) -> Sequence[Setup]:
        """What is proposed instead of these terms."""
        return [setup]

    def message(self, member: MemberId, number: RoundNumber, message: object) -> Sequence[object]:
        """What is told instead of this message of a round."""
        return [message]

    def publish(self, member: MemberId, number: RoundNumber, published: Published) -> Published:
        """What is published of a completed round instead."""
        return published

    def hear(self, said: Reported) -> Sequence[Reported]:
        """What the coordinator's own machines are let know of a report."""
        return [said]

    def welcomed(self, member: MemberId) -> None:
        """The member has opened a session."""


def message_of(said: object) -> object:
    """The message of a round in a command or report; None if there is none."""
    return getattr(said, "message", None)


def without(survivors: SurvivorSet, member: MemberId) -> SurvivorSet:
    """The set as if another one than `member` had dropped out."""
    gone = next(other for other in survivors.survivors if other != member)
    return SurvivorSet(tuple(other for other in survivors.survivors if other != gone))
