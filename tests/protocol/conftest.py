from __future__ import annotations

from tests.protocol.remembered import signatures_are_verified_once

__all__ = ["signatures_are_verified_once"]
