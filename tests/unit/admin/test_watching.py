from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from lepton_admin import watching
from lepton_admin.cli.options import OutputFormat
from lepton_admin.watching import Scoreboard, Watcher, follow, line_of
from lepton_core.errors import FaultError
from tests.unit.admin.job_events import event, numbered

STORY = numbered(
    event("submitted", message="rosa submitted hospitals"),
    event("matched", owner="aurora", message="aurora takes part"),
    event("refused", owner="fjord", message="fjord cannot take part: MISSING_CONCEPT x"),
    event("started", message="5 owners take part"),
    event("step", round=1, step="advertise", cohort=5),
    event("step", round=1, step="input", cohort=5),
    event("dropped", round=1, step="input", owner="changhe", cohort=5, message="changhe dropped out"),
    event("round", round=1, cohort=5, bytes_up=4096, message="round 1 completed"),
    event("model", round=1, accuracy=0.91, auc=0.97, epsilon=1.25, model_version=1, message="model 1"),
    event("finished", round=1, message="hospitals finished"),
)


def board_after(events):
    board = Scoreboard("hospitals-1")
    for entry in events:
        board.take(entry)
    return board


def test_the_board_tells_a_round_as_its_events_told_it():
    board = board_after(STORY)

    row = board.rounds[1]
    assert (row.cohort, row.phase, row.dropped) == (5, "done", ["changhe (input)"])
    assert (row.accuracy, row.auc, row.epsilon, row.bytes_up) == (0.91, 0.97, 1.25, 4096)
    assert board.can == ["aurora"]
    assert board.cannot == [("fjord", "fjord cannot take part: MISSING_CONCEPT x")]
    assert board.ended()
    assert board.state == "finished"


@pytest.mark.parametrize("kind", ["failed", "aborted"])
def test_a_job_that_did_not_finish_has_ended_and_says_why(kind):
    board = board_after([*STORY[:5], event(kind, sequence=6, message="too few")])
    assert (board.ended(), board.state, board.reason) == (True, kind, "too few")


def test_an_event_told_twice_counts_once():
    twice = [entry for entry in STORY for _ in range(2)]
    assert board_after(twice) == board_after(STORY)


def test_piped_every_event_is_one_line(capsys):
    with Watcher("hospitals-1", OutputFormat.TABLE) as watcher:
        for entry in STORY:
            watcher.take(entry)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [line_of(entry) for entry in STORY]
    assert lines[7].endswith("round 1 completed  4,096 bytes up")


def test_as_json_every_event_is_one_object_and_nothing_else_is_said(capsys):
    with Watcher("hospitals-1", OutputFormat.JSON) as watcher:
        for entry in STORY:
            watcher.take(entry)
        watcher.say("a line for people")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["sequence"] for entry in told] == list(range(1, 11))
    assert told[6]["owner"] == "changhe"


def test_the_live_table_shows_each_round(capsys):
    from rich.console import Console

    console = Console(width=120, record=True)
    console.print(board_after(STORY).table())
    shown = console.export_text()
    for text in ("accuracy", "0.910", "changhe (input)", "4,096", "fjord"):
        assert text in shown


def test_following_goes_on_where_a_cut_stream_ended(monkeypatch):
    monkeypatch.setattr(watching.time, "sleep", lambda _seconds: None)
    board, asked, looks = Scoreboard("hospitals-1"), [], []

    def stream(after):
        asked.append(after)
        yield from STORY[after : after + 3]
        if after + 3 < len(STORY) and after % 2 == 0:
            raise FaultError("cut")

    follow(stream, board.take, board, between=lambda: looks.append(board.sequence))

    assert asked == [0, 3, 6, 9]
    assert looks == [3, 6, 9, 10]
    assert board == board_after(STORY)


def test_following_gives_up_when_the_coordinator_stays_away(monkeypatch):
    monkeypatch.setattr(watching.time, "sleep", lambda _seconds: None)
    board = Scoreboard("hospitals-1")
    tries = []

    def gone(after):
        tries.append(after)
        raise FaultError("the coordinator cannot be reached")

    said = []
    with pytest.raises(FaultError, match="cannot be reached"):
        follow(gone, board.take, board, say=said.append)
    assert len(tries) == watching.MOST_RETRIES + 1
    assert said == ["the coordinator cannot be reached; trying again for a while"]


def test_following_outlasts_a_coordinator_that_takes_a_minute_to_start(monkeypatch):
    away_s = []
    monkeypatch.setattr(watching.time, "sleep", away_s.append)
    board = Scoreboard("hospitals-1")

    def stream(_after):
        if sum(away_s) < 60:
            raise FaultError("the coordinator cannot be reached")
        return iter(STORY)

    follow(stream, board.take, board)
    assert board.state == "finished"


#: Twenty rounds of four-digit uploads; one has two members dropped, so its line wraps.
LONG_STORY = numbered(
    event("started", message="5 owners take part"),
    *(event("round", round=number, cohort=5, bytes_up=12_935, message="done") for number in range(1, 20)),
    *(
        event("model", round=number, accuracy=0.91, auc=0.97, epsilon=1.25, model_version=number, message="model")
        for number in range(1, 20)
    ),
    event("dropped", round=19, step="input", owner="changhe", cohort=5, message="changhe dropped out"),
    event("dropped", round=19, step="input", owner="delta-clinic", cohort=5, message="delta-clinic dropped out"),
    event("step", round=20, step="advertise", cohort=5),
)


def drawn(table, *, width):
    screen = Console(width=width, file=io.StringIO())
    screen.print(table)
    return screen.file.getvalue().splitlines()


def test_every_column_of_the_live_table_is_whole_on_80_characters():
    lines = drawn(board_after(LONG_STORY).table(), width=80)

    assert lines[2].split() == ["round", "cohort", "phase", "dropped", "accuracy", "AUC", "epsilon", "bytes", "up"]
    assert lines[4].split() == ["1", "5", "done", "-", "0.910", "0.970", "1.25", "12,935"]


def test_the_live_table_never_has_more_lines_than_the_screen_and_ends_with_the_newest_round():
    for height in (10, 16, 24, 50):
        screen = Console(width=80, height=height, file=io.StringIO())
        watcher = Watcher("hospitals-1", OutputFormat.TABLE)
        for entry in LONG_STORY:
            watcher.board.take(entry)
        lines = drawn(watcher.live_table(screen), width=80)
        assert len(lines) < height
        assert lines[-2].split()[:2] == ["20", "5"]
