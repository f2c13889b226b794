"""The parts of Opacus are Opacus' own, and come without the rest of it."""

import subprocess
import sys


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_neither_scipy_nor_distributed_tensors_are_imported_and_nothing_half_loaded_stays():
    out = run(
        "import sys\n"
        "from lepton_client.train.opacus_parts import load_parts\n"
        "parts = load_parts()\n"
        "print(sorted(rule.__name__ for rule in parts.rules))\n"
        "heavy = ('scipy', 'opacus', 'torch.distributed.tensor', 'torch.distributed.fsdp')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])\n"
    )
    assert out.splitlines() == ["['Conv1d', 'Conv2d', 'Conv3d', 'Linear']", "[]"]


def test_opacus_itself_still_imports_afterwards_and_is_used_when_it_is_there_first():
    run(
        "from lepton_client.train.opacus_parts import load_parts\n"
        "bare = load_parts()\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "import opacus\n"
        "load_parts.cache_clear()\n"
        "whole = load_parts()\n"
        "assert whole.grad_sample_module is opacus.GradSampleModule\n"
        "assert bare.grad_sample_module is not opacus.GradSampleModule\n"
        "assert bare.rules <= whole.rules\n"
    )
