"""Is a file read again whenever it may say something else, and only then?"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lepton_client.home import Home, load_settings, save_settings, watch_home_policy
from lepton_client.membership import watch_accepted
from lepton_client.watched import Watched
from lepton_core.errors import InputError, SettingsError
from tests.unit.client.clinics import write_policy
from tests.unit.client.owners import FakeClock, Federation

#: By this clock, everything on disk was changed long ago.
LATER = FakeClock(time.time() + 3600.0)


class Reads:
    """A file's text, and how often it was read."""

    def __init__(self, path: Path, clock: FakeClock = LATER) -> None:
        self.path = path
        self.count = 0
        self.watched = Watched(path, self._load, clock)

    def _load(self) -> str:
        self.count += 1
        return self.path.read_text()


@pytest.fixture
def reads(tmp_path) -> Reads:
    return Reads(tmp_path / "file")


def settle(path: Path, text: str, *, age_s: float = 3600.0) -> None:
    """Write the file as if it had lain there for so long, but for the time of its inode, which nobody can set."""
    path.write_text(text)
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_a_file_that_has_not_changed_is_read_once(reads) -> None:
    reads.path.write_text("one")
    assert [reads.watched.current() for _ in range(3)] == ["one"] * 3
    assert reads.count == 1


def test_a_changed_file_holds_from_the_next_look_on(reads) -> None:
    settle(reads.path, "one")
    assert reads.watched.current() == "one"
    reads.path.write_text("two")
    assert reads.watched.current() == "two"


def test_a_change_that_keeps_size_and_time_is_seen_by_its_inode(reads) -> None:
    settle(reads.path, "one", age_s=50.0)
    reads.watched.current()
    stamp = reads.path.stat()
    draft = reads.path.with_name("draft")
    draft.write_text("two")
    os.utime(draft, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    draft.replace(reads.path)
    assert reads.watched.current() == "two"


def test_a_change_in_place_whose_time_is_set_back_is_seen_by_the_inodes_own_time(reads) -> None:
    settle(reads.path, "one", age_s=50.0)
    reads.watched.current()
    stamp = reads.path.stat()
    deadline = time.monotonic() + 5.0
    while reads.path.stat().st_ctime_ns == stamp.st_ctime_ns:  # until the file system's clock has ticked
        assert time.monotonic() < deadline
        reads.path.write_text("two")
        os.utime(reads.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert reads.watched.current() == "two"


def test_a_link_that_points_elsewhere_is_another_file(reads, tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    reads.path.symlink_to("one")
    assert reads.watched.current() == "one"
    (tmp_path / "link").symlink_to("two")
    (tmp_path / "link").replace(reads.path)
    assert reads.watched.current() == "two"


def test_a_file_that_was_changed_just_now_is_read_each_time(tmp_path) -> None:
    reads = Reads(tmp_path / "file", FakeClock(time.time()))
    settle(reads.path, "one")  # its inode is new, whatever its own time says
    assert [reads.watched.current() for _ in range(3)] == ["one"] * 3
    assert reads.count == 3


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    rewritten = iter(["two, longer"])

    def load() -> str:
        text = path.read_text()
        for newer in rewritten:
            path.write_text(newer)
        return text

    watched = Watched(path, load, LATER)
    assert [watched.current(), watched.current()] == ["one", "two, longer"]


def test_a_file_that_is_gone_or_broken_is_told_and_looked_at_again(tmp_path) -> None:
    home = Home(tmp_path)
    save_settings(home, "aurora")
    policy = watch_home_policy(home, load_settings(home), LATER)
    for _ in range(2):
        with pytest.raises(InputError):
            policy.current()
    (tmp_path / "policy.toml").write_text("[jobs")
    for _ in range(2):
        with pytest.raises(SettingsError):
            policy.current()
    write_policy(tmp_path, "f" * 64)
    loaded = policy.current()
    assert loaded.peers.federation_key == "f" * 64
    assert policy.current() is loaded
    (tmp_path / "policy.toml").unlink()
    with pytest.raises(InputError):
        policy.current()


def test_a_list_that_is_accepted_after_the_first_look_is_seen(tmp_path) -> None:
    federation, home = Federation(), Home(tmp_path)
    accepted = watch_accepted(home, LATER)
    assert accepted.current() is None
    home.membership.write_bytes(federation.signed.to_json())
    assert accepted.current() == federation.signed
    assert accepted.current() is accepted.current()
