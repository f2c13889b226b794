"""A publication whose process is killed at a given call that could change files or the catalogue.

Run as `python -m tests.unit.server.dying_publication FOLDER`: one process that forks a life for each such call of an
undisturbed publication, and prints as JSON what the next process finds. The calls are not chosen by hand: a profile
hook sees every call into C, whoever makes it, and those of `CHANGING` names are counted.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lepton_core.errors import NotFoundError
from lepton_core.ids import Digest, digest_of
from lepton_core.ports import SystemClock
from lepton_kg.index import OntologyIndex
from lepton_kg.service import Knowledge
from lepton_kg.store import FolderOntologyStore
from lepton_server.api.knowledge_catalogue import StoreCatalogue
from lepton_server.store.migrate import migrate
from lepton_server.store.sql import SqlStore
from tests.lives import forked, tell

#: Names under which libraries and the system change files or a database.
CHANGING = frozenset(
    {
        *("open", "write", "flush", "close", "fsync", "truncate"),
        *("mkdir", "rmdir", "rename", "replace", "unlink", "link"),
        *("bulk_load", "execute", "commit"),
    }
)
#: Of these types methods of the same names change nothing.
_VALUES = (str, bytes, dt.date, dt.time)
SKOS = "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n"
EARLIER = f"{SKOS}<urn:a> a skos:Concept ; skos:prefLabel 'a' .".encode()
NEW = f"{SKOS}<urn:b> a skos:Concept ; skos:prefLabel 'b' .".encode()


class Opened:
    """The knowledge of a folder and its database."""

    def __init__(self, folder: Path) -> None:
        self.files, self.index = FolderOntologyStore(folder), OntologyIndex(folder / "index")
        self.records = SqlStore(database_of(folder))
        self.knowledge = Knowledge(self.files, StoreCatalogue(self.records), SystemClock(), index=self.index)

    def publish(self, document: bytes, label: str) -> Digest:
        return Digest(self.knowledge.publish(document, format="turtle", label=label, publisher="ada").digest)

    def found(self, digest: Digest) -> dict[str, Any]:
        """What anybody can find out about the version."""
        audited = [row.subject for row in self._audit()]
        return {
            "listed": digest in {record.digest for record in self.knowledge.list()},
            "record": _answer(lambda: self.knowledge.record(digest).label),
            "bytes": _answer(lambda: str(digest_of(self.knowledge.get(digest)))),
            "concepts": _answer(lambda: [*self.knowledge.ontology(digest).concepts]),
            "approved": _answer(lambda: [one.approver for one in self.knowledge.approvals(digest)]),
            "published": audited.count(f"ontology {digest}"),
        }

    def _audit(self) -> list[Any]:
        with self.records.transaction() as transaction:
            return [row for row in transaction.audit() if row.action == "ontology.publish"]


def database_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'knowledge.db'}"


def _answer(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except NotFoundError as error:
        return error.code


def first_life(folder: Path, at: int) -> dict[str, Any]:
    """Publishes, and is killed before its `at`-th change, or after the last one; lives if `at` is 0."""
    opened = Opened(folder)
    kinds: list[str] = []

    def seen(_frame: object, event: str, function: Any) -> None:
        if event != "c_call" or function.__name__ not in CHANGING:
            return
        owner = getattr(function, "__self__", None)
        if not isinstance(owner, _VALUES):
            kinds.append(function.__name__)
            if len(kinds) == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(seen)
    digest = opened.publish(NEW, "new")
    sys.setprofile(None)
    if at > len(kinds):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"kinds": kinds, "digest": digest}


def second_life(folder: Path, earlier: Digest, new: Digest) -> dict[str, Any]:
    """What is found before and after the publication is repeated."""
    opened = Opened(folder)
    before = [opened.found(version) for version in (earlier, new)]
    swept = [*opened.knowledge.sweep()]
    left = {path.name.partition(".")[0] for path in (*folder.glob("*.nq"), *(folder / "index").iterdir())}
    kept = [opened.found(version) for version in (earlier, new)]
    again = opened.publish(NEW, "new")
    return {
        "before": before,
        "swept": swept,
        "left": sorted(left),
        "kept": kept,
        "again": again,
        "after": [opened.found(version) for version in (earlier, new)],
        "statements": len(opened.index.open(new)),
        "passing": [path.name for path in folder.rglob(".*")],
    }


def in_process(live: Callable[[], dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """How a life in a process of its own ended, and what it told."""
    ended, lines = forked(lambda pipe: tell(pipe, live()))
    return ended, lines[0] if lines else {}


def main(root: Path) -> None:
    """Every place where a publication can die."""
    start = root / "start"
    start.mkdir()
    migrate(database_of(start))

    def earlier_life() -> dict[str, Any]:
        opened = Opened(start)
        digest = opened.publish(EARLIER, "earlier")
        opened.knowledge.approve(digest, actor="bob")
        opened.records.close()
        return {"digest": digest}

    _, told = in_process(earlier_life)
    earlier = Digest(told["digest"])
    whole = shutil.copytree(start, root / "whole")
    ended, undisturbed = in_process(lambda: first_life(whole, 0))
    deaths = []
    for at in range(1, len(undisturbed["kinds"]) + 2):
        folder = shutil.copytree(start, root / f"death-{at}")
        died, _ = in_process(lambda folder=folder, at=at: first_life(folder, at))
        lived, record = in_process(lambda folder=folder: second_life(folder, earlier, Digest(undisturbed["digest"])))
        deaths.append({"at": at, "ended": [died, lived], **record})
    sys.stdout.write(json.dumps({"ended": ended, "undisturbed": undisturbed, "earlier": earlier, "deaths": deaths}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
