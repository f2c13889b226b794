"""What the pages show of the code is drawn from it, is fresh, and is what the machines do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from lepton_core.secagg import client_events, client_phases, server_phases
from tests.architecture.sources import ROOT
from tests.protocol.fake_link import FakeRound

CLIENT, SERVER = ROOT / "core/lepton_core/secagg/client.py", ROOT / "core/lepton_core/secagg/server.py"
EXAMPLE = ROOT / "examples/secagg_round.py"


def drawer() -> ModuleType:
    """docs/draw.py, which is a script and not part of a package."""
    spec = importlib.util.spec_from_file_location("docs_draw", ROOT / "docs" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


DRAW = drawer()


def test_every_drawn_place_is_fresh() -> None:
    drawn = DRAW.drawn_pages()
    assert drawn, "no page has a drawn place"
    stale = [path.name for path, text in drawn.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs` and commit the result"


def test_the_page_of_secure_aggregation_shows_both_machines_and_the_example() -> None:
    page = (ROOT / "docs/secagg.md").read_text(encoding="utf-8")
    for shown in (
        DRAW.draw_states(DRAW.read_phase_table(CLIENT.read_text(encoding="utf-8"))),
        DRAW.draw_states(DRAW.read_phase_table(SERVER.read_text(encoding="utf-8"))),
        f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```",
    ):
        assert shown in page


def test_a_stale_place_is_found() -> None:
    page = f"text\n<!-- drawn: states {CLIENT.relative_to(ROOT)} -->\nold\n<!-- end -->\nmore\n"
    fresh = DRAW.redrawn(page)
    assert fresh != page
    assert "old" not in fresh
    assert fresh.startswith("text\n<!-- drawn: states ")
    assert fresh.endswith("<!-- end -->\nmore\n")
    assert DRAW.redrawn(fresh) == fresh


@pytest.mark.parametrize(("machine", "phases"), [(CLIENT, client_phases.Phase), (SERVER, server_phases.Phase)])
def test_a_phase_table_names_every_phase_and_no_other(machine: Path, phases: object) -> None:
    table = DRAW.read_phase_table(machine.read_text(encoding="utf-8"))
    assert set(table.phases) == {phase.__name__ for phase in get_args(phases)}


def test_a_member_goes_through_the_phases_as_its_table_says_on_the_events_that_it_says() -> None:
    """Recorded from an honest round."""
    fake = FakeRound(4)
    member, seen = fake.ids[1], [("-", "start", type(fake.members[fake.ids[1]]).__name__)]
    tell = fake.tell

    def watched(who: object, event: object) -> object:
        before = type(fake.members[who]).__name__
        after = len(seen)
        effects = tell(who, event)
        if who == member:
            # What a phase's effects cause is told before `tell` returns: the phase left is the one recorded here.
            seen.insert(after, (before, type(event).__name__, ""))
        return effects

    fake.tell = watched
    fake.run()
    left = [(phase, event) for phase, event, _ in seen]
    rows = [row for row in DRAW.read_phase_table(CLIENT.read_text(encoding="utf-8")).rows if row[0] != "any but Done"]
    assert left == [(row[0], row[1]) for row in rows]
    # Each row becomes the phase that the next one leaves.
    assert [row[-1] for row in rows[:-1]] == [row[0] for row in rows[1:]]
    assert type(fake.members[member]).__name__ == rows[-1][-1]


def test_a_member_s_table_awaits_events_that_there_are() -> None:
    events = {event.__name__ for event in get_args(client_events.Event)}
    rows = DRAW.read_phase_table(CLIENT.read_text(encoding="utf-8")).rows
    awaited = {row[1] for row in rows[1:-1]}
    assert awaited <= events
    # The rest repeats what was told before, or ends the member's part.
    assert events - awaited == {"SetupReceived", "Stop"}


def test_the_coordinator_goes_through_the_phases_as_its_table_says_and_sends_what_it_says() -> None:
    fake = FakeRound(4)
    phases, sent = [type(fake.phase).__name__], {}
    hear, down = fake.hear, fake.down

    def watched(event: object) -> object:
        effects = hear(event)
        if type(fake.phase).__name__ != phases[-1]:
            phases.append(type(fake.phase).__name__)
        return effects

    def noted(member: object, message: object) -> object:
        sent[type(fake.phase).__name__] = type(message).__name__
        return down(member, message)

    fake.hear, fake.down = watched, noted
    fake.run()
    rows = [row for row in DRAW.read_phase_table(SERVER.read_text(encoding="utf-8")).rows if row[0] != "any of these"]
    # With its model bound from the start a round does not wait for one.
    assert phases == [*(row[0] for row in rows if row[0] != "AwaitingModel"), "Closed"]
    assert [row[-1] for row in rows[:-1]] == [row[0] for row in rows[1:]]
    assert sent == {row[0]: row[2] for row in rows if row[2] not in {"-", "(the caller: Setup)"}}


TABLE = '''"""A machine.

  phase   awaits  becomes
  -       start   One
  One     Event   Two
  any     Stop    Two
"""
'''


def test_a_table_is_read_by_its_columns() -> None:
    table = DRAW.read_phase_table(TABLE)
    assert table.titles == ("phase", "awaits", "becomes")
    assert table.rows[1] == ("One", "Event", "Two")
    assert "[*] --> One: start" in DRAW.draw_states(table)


@pytest.mark.parametrize(
    "wrong",
    ['"""No table."""', "x = 1", TABLE.replace("  One     Event   Two", "  One Event       Two")],
)
def test_a_docstring_without_a_table_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"table|column"):
        DRAW.read_phase_table(wrong)


def test_the_example_runs_and_tells_the_exact_sum() -> None:
    ran = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=50, check=True)
    told, sent = ran.stdout.splitlines()
    # The multiples of 1, 2, 4 and 5: the third of five is lost.
    assert told == "4 of 5 are in the sum: [0, 12, 24, 36, 48, 60] and [4, 12000]"
    assert sent.startswith("what one of them sent: [")
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 30
