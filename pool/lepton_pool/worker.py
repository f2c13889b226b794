"""The pool's worker process: `python -m lepton_pool.worker [threads]`, started by `lepton_pool.local`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from lepton_pool.child import Handler, serve
from lepton_pool.kinds import KINDS
from lepton_pool.memory import importing


def _load() -> Mapping[str, Handler]:
    with importing():
        import torch

    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    return KINDS


if __name__ == "__main__":
    serve(_load)
