"""An invitation as a file: a secret of one use, never on a command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from lepton_admin.files import write_private
from lepton_core.views import Invitation


def write_invitation(path: Path, invitation: Invitation) -> None:
    """Write the invitation as JSON, readable by its owner only.

    Raises:
        ConflictError: the file exists; an invitation that may be in use is never overwritten.
    """
    write_private(path, (json.dumps(dataclasses.asdict(invitation), indent=2) + "\n").encode())
