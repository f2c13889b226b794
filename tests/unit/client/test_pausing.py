"""Does a paused client take part in nothing, whatever its file holds, until its owner says so?"""

from __future__ import annotations

import json

import pytest

from lepton_client.home import Home, save_settings
from lepton_client.pausing import Pause, pause, paused, require_running, resume
from lepton_core.errors import InputError, PolicyRefusal
from tests.unit.client.owners import NOW, FakeClock


@pytest.fixture
def home(tmp_path) -> Home:
    home = Home(tmp_path)
    save_settings(home, "aurora")
    return home


def test_a_pause_holds_from_its_file_until_it_is_taken_back(home) -> None:
    assert paused(home) is None
    require_running(home)
    assert pause(home, "an audit", FakeClock()) == Pause(NOW, "an audit") == paused(home)
    assert home.paused.stat().st_mode & 0o777 == 0o600
    with pytest.raises(PolicyRefusal) as refused:
        require_running(home)
    assert refused.value.reason == "PAUSED"
    assert "audit" not in json.dumps(refused.value.as_dict())
    assert resume(home) == Pause(NOW, "an audit")
    require_running(home)
    assert resume(home) is None


def test_a_second_pause_keeps_the_time_of_the_first(home) -> None:
    pause(home, "one", FakeClock())
    assert pause(home, "other", FakeClock(NOW + 60)) == Pause(NOW, "other")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"since": "x", "reason": ""}'])
def test_a_file_that_says_nothing_pauses_as_well(home, content) -> None:
    home.paused.write_bytes(content)
    assert paused(home).since == 0.0
    with pytest.raises(PolicyRefusal):
        require_running(home)
    resume(home)
    require_running(home)


def test_a_link_to_nowhere_pauses_as_well(home) -> None:
    home.paused.symlink_to(home.folder / "nowhere")
    with pytest.raises(PolicyRefusal):
        require_running(home)


def test_a_folder_that_cannot_be_looked_into_pauses_as_well(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PolicyRefusal):
        require_running(Home(tmp_path / "file"))


def test_what_is_no_client_can_be_neither_paused_nor_resumed(tmp_path) -> None:
    for act in (lambda: pause(Home(tmp_path), "", FakeClock()), lambda: resume(Home(tmp_path))):
        with pytest.raises(InputError, match="no client"):
            act()
    assert list(tmp_path.iterdir()) == []
