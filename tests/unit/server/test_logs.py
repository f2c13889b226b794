"""The coordinator's log tells what failed and never what it held."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from lepton_server.logs import configure_logs


def fail() -> None:
    private_key = "the-value-of-a-local-variable"
    raise ValueError(f"{len(private_key)} characters")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["piped", "terminal"])
def test_a_traceback_names_the_place_and_shows_no_local_variable(stream: io.StringIO) -> None:
    configure_logs(stream)
    try:
        fail()
    except ValueError:
        structlog.get_logger("lepton.pump").exception("an input was dropped")
    told = stream.getvalue()
    assert "an input was dropped" in told
    assert "in fail" in told
    assert "the-value-of-a-local-variable" not in told


def test_a_piped_log_is_one_json_object_a_line() -> None:
    stream = io.StringIO()
    configure_logs(stream)
    structlog.get_logger().info("coordinator up", address="127.0.0.1:1")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["address"] == "127.0.0.1:1"
