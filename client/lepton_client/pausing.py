"""An owner's brake: while a client is paused, its daemon stays connected and takes part in nothing.

The file is the state, so that it holds across restarts and works with the daemon running or not. Whatever is asked
while it is there is refused as by the policy: jobs are not matched, rounds not begun, and what was trained does not
leave. A file that cannot be read pauses as well.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from lepton_client.home import Home, load_settings
from lepton_client.journal import write_private
from lepton_core.errors import FaultError, PolicyRefusal
from lepton_core.ports import Clock
from lepton_protos.durable import sync_folder


@dataclass(frozen=True)
class Pause:
    """Since when, in seconds since the epoch, and why, in the owner's words; neither leaves the site."""

    since: float
    reason: str


def pause(home: Home, reason: str, clock: Clock) -> Pause:
    """Pause the client from now on; one that is paused already keeps its time and gets the new reason.

    Raises:
        InputError: no client lives there.
        FaultError: the disk.
    """
    load_settings(home)
    known = paused(home)
    now = Pause(known.since if known is not None else clock.now(), reason)
    write_private(home.paused, json.dumps({"since": now.since, "reason": now.reason}).encode() + b"\n")
    return now


def resume(home: Home) -> Pause | None:
    """Let the client take part again; the pause that has ended, None if there was none.

    Raises:
        InputError: no client lives there.
        FaultError: the disk.
    """
    load_settings(home)
    known = paused(home)
    try:
        home.paused.unlink(missing_ok=True)
        sync_folder(home.folder)
    except OSError as error:
        raise FaultError(
            "the client cannot be resumed", where=str(home.paused), got=error.strerror or "", hint="delete this file"
        ) from None
    return known


def paused(home: Home) -> Pause | None:
    """The pause in force, if any; one whose file says nothing that can be read began at an unknown time."""
    try:
        document = json.loads(home.paused.read_bytes())
        return Pause(float(document["since"]), str(document["reason"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Pause(0.0, "unknown: the file cannot be read")


def require_running(home: Home) -> None:
    """Refuse whatever is asked while the client is paused, or may be: asked several times a round, so one look.

    Raises:
        PolicyRefusal: PAUSED; neither time nor reason is in it.
    """
    try:
        os.lstat(home.paused)
    except FileNotFoundError:
        return
    except OSError:
        pass
    raise PolicyRefusal("the owner has paused its client", where="client", hint="ask again later", reason="PAUSED")
