"""A short private job at an owner with real files, whose process is killed at a given change of its disk.

Run as `python -m tests.unit.client.dying FOLDER`: one process that forks two lives for each place where the first may
die, and prints as JSON what left each life, as the other end of a pipe saw it. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_client.disk import SystemDisk
from lepton_client.effects import SendReport, Train, Upload
from lepton_client.ledger import FileLedger
from lepton_client.records import FileRecords
from lepton_core.ids import Digest, digest_of
from lepton_core.session import JobClosed, Published, RoundClosed, RoundOutcome, RoundReport
from tests.lives import forked, tell
from tests.unit.client.owners import JOB_ID, PLAN, Federation, Round, make_job, make_updates

#: Of three planned rounds the first life runs two, so that there is something to give back.
ROUNDS = 2
JOB = make_job(training={"rounds": 3, "local_steps": 1})


@dataclass
class DyingDisk:
    """Kills its process before, within or after its `at`-th change; counts only if `at` is 0.

    With `power`, what was written is there after a sync only: a kill is then a power loss at its worst. Nothing is
    really synced, as neither kind of death needs it.
    """

    at: int = 0
    when: str = "before"
    power: bool = False
    count: int = 0
    #: The kind of each change, in order.
    kinds: list[str] = field(default_factory=list)
    _system: SystemDisk = field(default_factory=SystemDisk)
    _unsynced: dict[int, bytes] = field(default_factory=dict)
    _renamed: list[tuple[Path, Path]] = field(default_factory=list)

    def _change(self, kind: str, when: str) -> None:
        if when == "before":
            self.count += 1
            self.kinds.append(kind)
        if self.count == self.at and when == self.when:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, file: int, data: bytes) -> int:
        self._change("write", "before")
        if self.count == self.at and self.when == "within":
            self._system.write(file, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        if self.power:
            self._unsynced[file] = self._unsynced.get(file, b"") + data
        else:
            self._system.write(file, data)
        self._change("write", "after")
        return len(data)

    def truncate(self, file: int, length: int) -> None:
        self._change("truncate", "before")
        self._system.truncate(file, length)
        self._change("truncate", "after")

    def sync(self, file: int) -> None:
        self._change("sync", "before")
        self._system.write(file, self._unsynced.pop(file, b""))
        self._change("sync", "after")

    def replace(self, source: Path, target: Path) -> None:
        self._change("replace", "before")
        self._renamed.append((source, target))
        if not self.power:
            self._system.replace(*self._renamed.pop())
        self._change("replace", "after")

    def sync_folder(self, _: Path) -> None:
        self._change("sync_folder", "before")
        while self._renamed:
            self._system.replace(*self._renamed.pop(0))
        self._change("sync_folder", "after")


class Watched(Round):
    """A round whose coordinator writes down what comes from one owner, at once."""

    pipe = -1

    def perform(self, member, effect) -> None:
        if member == self.federation.first().identity.member:
            match effect:
                case Train():
                    self.saw("noise", str(effect.model_version))
                case SendReport(RoundReport(_, _, message, payload)):
                    self.saw(type(message).__name__, str(digest_of(payload)) if payload else "")
                case Upload():
                    raise AssertionError("this job's inputs travel within messages")
        super().perform(member, effect)

    def saw(self, kind: str, what: str) -> None:
        tell(self.pipe, [kind, int(self.number), what])


def live(folder: Path, disk: DyingDisk, pipe: int, *, life: int, first: int) -> None:
    """One process's life: match, the rounds from number `first` on, the end of the job, a stop in good order."""
    federation = Federation(3, job=JOB)
    owner = federation.first()
    owner.ledger = FileLedger(folder / "ledger.jsonl", owner.identity, federation.clock, disk)
    owner.records = FileRecords(folder / "jobs.jsonl", folder / "answers.jsonl", disk)
    owner.starts = 10 * life
    owner.restart()
    for effect in owner.participant.resume():
        owner.participant.matched(effect.job_id, PLAN)
    for other in federation.owners.values():
        other.match(federation.request)
    versions = range(ROUNDS) if life == 1 else sorted(set(range(ROUNDS)) - set(owner.records.answered(JOB_ID)))
    number = first
    for version in versions:
        # A coordinator that lost an owner asks it for the same round again, and then opens a newer one.
        for _ in range(life):
            watched = Watched(federation, number, version, make_updates(federation))
            watched.pipe = pipe
            done = watched.run()
            outcome = RoundOutcome.ABORTED if done.result is None else RoundOutcome.COMPLETED
            for other in federation.owners.values():
                closed = RoundClosed(JOB_ID, watched.number, outcome, "", Published(Digest("c" * 64)))
                other.participant.handle(closed)
            number += 1
            if done.result is not None:
                break
    owner.participant.handle(JobClosed(JOB_ID, "finished", ""))
    owner.ledger.settle()
    owner.ledger.close()
    owner.records.close()


def died(folder: Path, disk: DyingDisk, **options: int) -> tuple[int, list[Any], list[str]]:
    """How a life in a process of its own ended, what its coordinator saw, and the changes of its disk if it lived."""

    def life(pipe: int) -> None:
        live(folder, disk, pipe, **options)
        tell(pipe, disk.kinds)

    ended, lines = forked(life)
    kinds = lines.pop() if ended == 0 else []
    return ended, lines, kinds


def die_and_restart(folder: Path, disk: DyingDisk) -> dict[str, Any]:
    """Both lives over one folder, and the ledger's bytes between and after them."""
    folder.mkdir()
    ended, seen, _ = died(folder, disk, life=1, first=1)
    between = _content(folder)
    newest = max((number for _, number, _ in seen), default=0)
    again, more, _ = died(folder, DyingDisk(), life=2, first=max(1, newest))
    return {
        "place": f"{disk.when} change {disk.at}" + (", power" if disk.power else ""),
        "ended": [ended, again],
        "seen": [seen, more],
        "ledgers": [between, _content(folder)],
    }


def _content(folder: Path) -> str:
    path = folder / "ledger.jsonl"
    return path.read_text() if path.exists() else ""


def warm_up(folder: Path) -> None:
    """Load and work out here what each fork would have to otherwise: the accountant above all."""
    folder.mkdir()
    with Path(os.devnull).open("wb") as nowhere:
        for life in (1, 2):
            live(folder, DyingDisk(), nowhere.fileno(), life=life, first=life)


def places_of(kinds: list[str]) -> list[DyingDisk]:
    """Every place where a life with these changes of the disk can die, and both ways in which the disk can be left."""
    return [
        DyingDisk(at, when, power)
        for power in (False, True)
        for at, kind in enumerate(kinds, 1)
        for when in ("before", "within", "after")
        if (when != "within" or kind == "write") and not (power and when == "within")
    ]


def by_day(place: DyingDisk) -> bool:
    """Whether the place is among those of the day: each stands for one of the two ways, which take turns."""
    return place.when == "within" or (place.at // 2 + (place.when == "after")) % 2 == place.power


def main(folder: Path, *, both_ways: bool) -> None:
    """Every place where the first life can die, by day in one way each."""
    warm_up(folder / "warm")
    whole = folder / "undisturbed"
    whole.mkdir()
    ended, seen, kinds = died(whole, DyingDisk(), life=1, first=1)
    places = [place for place in places_of(kinds) if both_ways or by_day(place)]
    deaths = [die_and_restart(folder / f"death-{index}", disk) for index, disk in enumerate(places)]
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    record = {
        "undisturbed": {"ended": ended, "seen": seen, "kinds": kinds},
        "deaths": deaths,
        "processor_s": used,
        "torch": "torch" in sys.modules,
    }
    sys.stdout.write(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), both_ways="night" in sys.argv[2:])
