"""The bar of long transfers: on standard error, only where somebody looks, never in a program's way."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from lepton_admin.cli.bar import TransferBar, transfer_bar
from lepton_admin.cli.options import OutputFormat
from lepton_protos.incoming import tell_nobody


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch) -> Terminal:
    """Standard error from now on; not as a fixture, whose end of set-up pytest's capture would undo."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def told(bar: TransferBar, now: list[float], *moments: tuple[float, int]) -> None:
    for now[0], done in moments:
        bar.tell(done, 1_000_000)


def test_a_short_transfer_shows_nothing(monkeypatch):
    terminal, now = at_a_terminal(monkeypatch), [0.0]
    bar = TransferBar("model", now_s=lambda: now[0])
    told(bar, now, (0.0, 0), (1.9, 900_000), (2.5, 1_000_000))
    bar.close()
    assert terminal.getvalue() == ""


def test_a_long_one_shows_its_name_and_how_far_it_is(monkeypatch):
    terminal, now = at_a_terminal(monkeypatch), [0.0]
    bar = TransferBar("model.safetensors", now_s=lambda: now[0])
    told(bar, now, (0.0, 0), (2.1, 400_000), (3.0, 1_000_000))
    assert "model.safetensors" in terminal.getvalue()
    assert "MB" in terminal.getvalue()


@pytest.mark.parametrize(
    ("output", "is_terminal", "watched"),
    [(OutputFormat.TABLE, True, True), (OutputFormat.JSON, True, False), (OutputFormat.TABLE, False, False)],
)
def test_only_a_person_at_a_terminal_gets_one(monkeypatch, output, is_terminal, watched):
    monkeypatch.setattr(sys, "stderr", Terminal() if is_terminal else io.StringIO())
    link = SimpleNamespace(progress=tell_nobody)
    with transfer_bar(link, output, "model"):
        assert (link.progress is not tell_nobody) == watched
    assert link.progress is tell_nobody
