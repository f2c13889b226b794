"""The coordinator process of the rounds benchmark: production, with commits, messages and signatures counted in a file.

`python -m benchmarks.rounds_coordinator HOME COUNTS`: appends a line `time what number` for every commit that wrote
something, for every message of a session in either direction, and for the members' signatures in it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from lepton_core.session import MemberReport, RoundReport
from lepton_protos import convert
from lepton_server.app import serve

Tell = Callable[[str, int], None]


def teller(place: Path) -> Tell:
    """Writes a line for what is counted."""
    file = place.open("a", buffering=1)

    def tell(what: str, number: int) -> None:
        file.write(f"{time.time()} {what} {number}\n")

    return tell


def count_commits(tell: Tell) -> None:
    """Count every commit of a transaction that changed a row."""
    wrote: set[int] = set()

    @event.listens_for(Engine, "before_cursor_execute", named=True)
    def _on_execute(**told: Any) -> None:
        if told["statement"].lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE"):
            wrote.add(id(told["conn"]))

    @event.listens_for(Engine, "commit")
    def _on_commit(connection: object) -> None:
        if id(connection) in wrote:
            wrote.discard(id(connection))
            tell("commits", 1)


def count_messages(tell: Tell) -> None:
    """Count session messages in both directions, and the signed reports in those of members."""
    reports_from_proto, commands_to_proto = convert.reports_from_proto, convert.commands_to_proto

    def received(batch: Any) -> tuple[MemberReport, ...]:
        reports = reports_from_proto(batch)
        tell("messages", 1)
        tell("signatures", sum(isinstance(report, RoundReport) for report in reports))
        return reports

    def sent(commands: Any, *, first: int = 0) -> Any:
        tell("messages", 1)
        return commands_to_proto(commands, first=first)

    convert.reports_from_proto, convert.commands_to_proto = received, sent


if __name__ == "__main__":
    telling = teller(Path(sys.argv[2]))
    count_commits(telling)
    count_messages(telling)
    asyncio.run(serve(Path(sys.argv[1])))
