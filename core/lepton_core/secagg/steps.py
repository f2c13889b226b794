"""The five answers of a member that a round waits for."""

from __future__ import annotations

from enum import Enum


class Step(Enum):
    """What a member is waited for, in order."""

    ADVERT = 0
    SHARE = 1
    INPUT = 2
    CONSISTENCY = 3
    UNMASK = 4
