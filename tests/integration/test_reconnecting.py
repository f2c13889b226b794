"""Does a blocking channel find its server again, however often it was used while the server was away?"""

from __future__ import annotations

import asyncio

import pytest

from lepton_admin.link import CoordinatorLink
from lepton_core.errors import FaultError
from tests.integration.server.running import running

#: Calls that fail while the server is away.
CALLS = 5
#: The longest pause between attempts is 5 s (`grpc.max_reconnect_backoff_ms`).
BACK_WITHIN_S = 15.0


async def until_ready(link: CoordinatorLink) -> None:
    """Call again and again, as `lepton job watch` does."""
    while True:
        try:
            assert (await asyncio.to_thread(link.health)).ready
        except FaultError:
            await asyncio.sleep(0.2)
        else:
            return


# `localhost` has two addresses, of which the coordinator listens on one.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_link_used_during_an_outage_works_again_soon_after_it(tmp_path, host) -> None:
    async with running(tmp_path) as address:
        port = address.rpartition(":")[2]
        (tmp_path / "operator" / "address").write_text(f"{host}:{port}\n", "utf-8")
        link = CoordinatorLink.of_profile(tmp_path / "operator")
        assert (await asyncio.to_thread(link.health)).ready
    with link:
        for _ in range(CALLS):
            with pytest.raises(FaultError, match="cannot be reached"):
                await asyncio.to_thread(link.health)
            await asyncio.sleep(0.1)
        async with running(tmp_path, listen=f"127.0.0.1:{port}"):
            await asyncio.wait_for(until_ready(link), BACK_WITHIN_S)
