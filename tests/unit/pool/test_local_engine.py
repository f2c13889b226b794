"""The local engine does its work in a real process, survives its death, and leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from lepton_core.errors import FaultError, InputError, JobError, NotFoundError
from lepton_core.job import ModelSpec
from lepton_pool import evaluate as here
from lepton_pool import kinds
from lepton_pool.frames import Frame
from lepton_pool.local import LocalEngine
from lepton_pool.models import Architecture, initial_vector

MODEL = Architecture(ModelSpec(kind="mlp", hidden=(8,)), 6)
RNG = np.random.default_rng(1)
FEATURES = RNG.uniform(-1, 1, (50, 6)).astype(np.float32)
TARGET = (FEATURES[:, 0] > 0).astype(np.float32)
VECTOR = initial_vector(MODEL)


async def test_work_in_the_engine_gives_what_it_gives_here_and_errors_keep_their_class():
    engine = LocalEngine()
    try:
        await engine.start()
        metrics, logits, vector = await asyncio.gather(
            kinds.evaluate(engine, MODEL, VECTOR, FEATURES, TARGET),
            kinds.predict(engine, MODEL, VECTOR, FEATURES),
            kinds.initial_model(engine, MODEL),
        )
        assert metrics == here.evaluate(MODEL, VECTOR, FEATURES, TARGET)
        assert np.allclose(logits, here.predict(MODEL, VECTOR, FEATURES), atol=1e-6)
        assert np.array_equal(vector, VECTOR)
        process = psutil.Process(engine.worker.pid)
        with pytest.raises(InputError, match="does not fit"):
            await kinds.predict(engine, MODEL, VECTOR[:-1], FEATURES)
        with pytest.raises(JobError, match="fill the image"):
            await kinds.initial_model(engine, Architecture(ModelSpec(kind="cnn", image=(1, 3, 3)), 6))
        with pytest.raises(NotFoundError):
            await kinds.initial_model(engine, Architecture(ModelSpec(kind="no-such-model"), 6))
        with pytest.raises(InputError, match="no such kind"):
            await engine.submit("shell", Frame(), deadline_s=60).result()
        with pytest.raises(FaultError, match="failed with KeyError") as fault:
            await engine.submit(
                kinds.INITIAL_MODEL, Frame({"features": 6}, kinds._request(MODEL, {}).arrays), deadline_s=60
            ).result()
        assert fault.value.reason == "WORKER_EXCEPTION"
        assert engine.worker.pid == process.pid
    finally:
        await engine.close()
    assert not process.is_running()
    await engine.close()
    with pytest.raises(FaultError, match="closed"):
        await engine.submit(kinds.PREDICT, Frame(), deadline_s=1).result()


async def test_work_whose_worker_dies_or_is_late_or_that_is_cancelled_says_so_and_the_next_goes_on():
    engine = LocalEngine()
    try:
        work = engine.submit(kinds.EVALUATE, Frame(), deadline_s=60)
        await engine.start()
        killed = psutil.Process(engine.worker.pid)
        os.kill(killed.pid, signal.SIGKILL)
        with pytest.raises(FaultError) as died:
            await work.result()
        assert died.value.reason == "WORKER_DIED"

        await engine.start()
        late = psutil.Process(engine.worker.pid)
        late.suspend()
        with pytest.raises(FaultError, match="in time") as given_up:
            await kinds.initial_model(engine, MODEL, deadline_s=0.05)
        assert given_up.value.reason == "DEADLINE"
        assert not late.is_running()

        work = engine.submit(kinds.INITIAL_MODEL, Frame(), deadline_s=60)
        await engine.start()
        work.cancel()
        with pytest.raises(FaultError) as cancelled:
            await work.result()
        assert cancelled.value.reason == "CANCELLED"

        assert np.array_equal(await kinds.initial_model(engine, MODEL), VECTOR)
        assert len({killed.pid, late.pid, engine.worker.pid}) == 3
        assert engine.worker.generation >= 3
    finally:
        await engine.close()


def test_a_worker_ends_with_its_parent_even_if_that_is_killed():
    code = (
        "import asyncio, sys\n"
        "from lepton_pool.local import LocalEngine\n"
        "async def main():\n"
        "    engine = LocalEngine()\n"
        "    await engine.start()\n"
        "    print(engine.worker.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
    worker.wait(timeout=30)  # raises if it lives on


def test_a_worker_answers_with_frames_only_and_ends_at_the_end_of_its_input():
    done = subprocess.run(
        [sys.executable, "-m", "lepton_pool.worker"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
