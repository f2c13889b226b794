"""Is anything secret in what a traceback, a log or a debugger would show of a round?"""

from __future__ import annotations

import numpy as np

from lepton_core.ids import MemberId
from lepton_core.secagg.client_events import InputReady
from lepton_core.secagg.messages import RevealedShare, ShareKind, Unmasking


def test_an_unmasked_input_is_not_shown() -> None:
    assert "123456" not in repr(InputReady(np.full(3, 123456, dtype=np.uint64)))


def test_a_share_that_may_not_have_been_sent_yet_is_not_shown() -> None:
    member = MemberId(bytes(16))
    share = RevealedShare(member, ShareKind.SELF_SEED, b"salt" * 8, b"element!" * 4)
    shown = repr(Unmasking(member, (share,), b"s" * 64))
    assert "salt" not in shown
    assert "element!" not in shown
