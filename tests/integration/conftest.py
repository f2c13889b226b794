"""The PostgreSQL server of the conformance tests, for a coordinator that runs on it."""

from __future__ import annotations

from tests.conformance.conftest import postgres_url

__all__ = ["postgres_url"]
