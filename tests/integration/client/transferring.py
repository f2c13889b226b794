"""A process that transfers one file until somebody kills it: `up` or `down`, folder, address, file, digest."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from lepton_core.ids import Digest, JobId, RoundNumber
from tests.integration.client.cable import transfers_of

DEADLINE_S = 60.0


async def main(way: str, folder: Path, address: str, file: Path, digest: Digest) -> None:
    """Transfer it."""
    async with transfers_of(folder, address) as transfers:
        if way == "up":
            await transfers.upload_from(file, digest, job=JobId("file"), number=RoundNumber(1), deadline_s=DEADLINE_S)
        else:
            await transfers.download_to(file, digest, largest=2**30, deadline_s=DEADLINE_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Digest(sys.argv[5])))
