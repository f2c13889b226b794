"""A process that keeps freed memory takes no fresh pages for its second vector."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys, threading
import numpy as np
from lepton_pool.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = []
def work():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        parts = [np.ones(3 << 20, dtype=np.uint8) for _ in range(6)]
        del parts
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_vectors_are_used_again_in_every_thread():
    faults = {
        word: int(subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, check=True).stdout)
        for word in ("keep", "leave")
    }
    assert faults["keep"] < 100
    assert faults["keep"] < faults["leave"]
