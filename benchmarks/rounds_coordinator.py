"""The coordinator process of the rounds benchmark: production, with its durable commits counted into a file.

`python -m benchmarks.rounds_coordinator HOME COUNTS`: appends the time of every commit that wrote something.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from lepton_server.app import serve


def count_commits(place: Path) -> None:
    """Write a line for every commit of a transaction that changed a row."""
    file = place.open("a", buffering=1)
    wrote: set[int] = set()

    @event.listens_for(Engine, "before_cursor_execute", named=True)
    def _on_execute(**told: Any) -> None:
        if told["statement"].lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE"):
            wrote.add(id(told["conn"]))

    @event.listens_for(Engine, "commit")
    def _on_commit(connection: object) -> None:
        if id(connection) in wrote:
            wrote.discard(id(connection))
            file.write(f"{time.time()}\n")


if __name__ == "__main__":
    count_commits(Path(sys.argv[2]))
    asyncio.run(serve(Path(sys.argv[1])))
