"""A file that its owner may change at any time: what it says now, without reading it again while it has not changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from lepton_core.ports import Clock, SystemClock

T = TypeVar("T")

#: A file that was changed less than this ago is read each time: a second change within the clock tick of the file
#: system would leave all its numbers as they are (git calls such an entry racily clean). FAT's tick, 2 s, is the
#: longest in use.
_SETTLED_S = 4.0

_State = tuple[int, int, int, int, int]


class Watched(Generic[T]):
    """Gives what `load` makes of a file, and calls it again when the file may say something else.

    Guarantees: what is given was loaded from the file as it is at the call, or as it has been since. A file that is
    missing, was changed just now, or could not be loaded is looked at anew each time. The value must be immutable.
    """

    def __init__(self, path: Path, load: Callable[[], T], clock: Clock | None = None) -> None:
        """`load` reads the file at `path` and nothing else; whatever it raises goes to the caller of `current`."""
        self._path = path
        self._load = load
        self._clock = clock or SystemClock()
        #: Device, inode, size and both times of the file that `_value` was loaded from.
        self._kept: tuple[_State, T] | None = None

    def current(self) -> T:
        """What the file says now."""
        before = _state_of(self._path)
        if self._kept is not None and self._kept[0] == before:
            return self._kept[1]
        self._kept = None
        value = self._load()
        if before is not None and _is_settled(before, self._clock.now()):
            # A change while it was read makes the file differ from `before`, so the next call reads it again.
            self._kept = before, value
        return value


def _state_of(path: Path) -> _State | None:
    """Whatever differs after every change, the settled kind; None if the file cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_settled(state: _State, now: float) -> bool:
    # The time of the last change of the inode counts too, as nobody can set that one back.
    return 1e-9 * max(state[3], state[4]) < now - _SETTLED_S
