"""The parts of Opacus are Opacus' own, and come without the rest of it."""

import ast
import subprocess
import sys


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_parts_come_without_scipy_and_distributed_tensors_and_opacus_itself_still_imports_afterwards():
    out = run(
        "import sys\n"
        "from lepton_client.train.opacus_parts import load_parts\n"
        "bare = load_parts()\n"
        "print(sorted(kind.__name__ for kind in bare.samplers))\n"
        "heavy = ('scipy', 'opacus', 'torch.distributed.tensor', 'torch.distributed.fsdp')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])\n"
        # Recurrent layers of the whole of Opacus are clipped, which are refused without it.
        "import warnings; warnings.simplefilter('ignore')\n"
        "import opacus\n"
        "load_parts.cache_clear()\n"
        "whole = load_parts()\n"
        "assert whole.samplers == opacus.GradSampleModule.GRAD_SAMPLERS\n"
        "assert set(bare.samplers) <= set(whole.samplers)\n"
        "assert not set(bare.samplers.values()) & set(whole.samplers.values())\n"
        "import numpy, torch\n"
        "from opacus.layers import DPGRU, DPLSTM\n"
        "from lepton_client.train.clipping import ClippedSums\n"
        "class Recurrent(torch.nn.Module):\n"
        "    def __init__(self, kind):\n"
        "        super().__init__()\n"
        "        self.cells, self.head = kind(2, 4, batch_first=True), torch.nn.Linear(4, 3)\n"
        "    def forward(self, features):\n"
        "        return self.head(self.cells(features.unflatten(1, (3, 2)))[0][:, -1])\n"
        "for kind in (DPLSTM, DPGRU):\n"
        "    sums = ClippedSums(Recurrent(kind), 6)\n"  # compares with the naive loop
        "    assert len(sums.methods) == 3, sums.methods\n"
        "    total = numpy.zeros(sums.length)\n"
        "    sums.add(total, torch.rand(5, 6), torch.zeros(5), clip_norm=1e-3)\n"
        "    assert 4.5e-3 < float(numpy.linalg.norm(total)) < 5e-3\n"
    )
    kinds, heavy = out.splitlines()
    assert {"Conv1d", "Conv2d", "Conv3d", "Embedding", "GroupNorm", "LayerNorm"} < set(ast.literal_eval(kinds))
    assert heavy == "[]"
