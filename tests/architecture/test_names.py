"""Names of tests, which every worker of a run sends to the process that deals the tests out."""

from __future__ import annotations

import pytest

#: A parameter without a name of its own becomes a part of its test's: a page of text may, megabytes may not.
LONGEST = 600


def test_no_test_has_a_document_for_a_name(request: pytest.FixtureRequest) -> None:
    long = [item.nodeid[:120] for item in request.session.items if len(item.nodeid) > LONGEST]
    assert long == [], "give these parameters names: pytest.param(..., id=...)"
