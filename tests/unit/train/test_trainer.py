"""The trainer's process trains what it is given, survives its own death, and tells nothing but updates."""

import asyncio
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import pytest_asyncio
import torch

from lepton_client.train.dpsgd import PrivateModule
from lepton_client.train.rows import Rows
from lepton_client.train.trainer import Trainer
from lepton_core.errors import ConflictError, FaultError, InputError, RefusedError
from lepton_core.job import Job
from lepton_pool.models import architecture_of, initial_vector

RNG = np.random.default_rng(5)
FEATURES = RNG.uniform(-1, 1, (60, 6)).astype(np.float32)
TARGET = (FEATURES[:, 0] > 0).astype(np.float32)
JOB = Job.model_validate(
    {
        "name": "test",
        "task": {
            "ontology": "0" * 64,
            "vocabulary": "https://example.org/",
            "features": [{"concept": f"f{index}"} for index in range(6)],
            "target": {"concept": "t", "positive": "yes"},
        },
        "model": {"kind": "mlp", "hidden": [4]},
        "training": {"rounds": 2, "local_steps": 2, "sampling_rate": 0.5},
        "privacy": {"mode": "none"},
    }
)
MODEL = initial_vector(architecture_of(JOB))
KEPT = np.array([0, 3, 32], dtype=np.int64)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def capped():
    """A trainer whose process may take no more than 512 MiB, which is enough to train small models."""
    trainer = Trainer(memory_mib=512)
    await trainer.start()
    yield trainer
    await trainer.close()


async def test_a_round_trains_in_the_process_and_survives_its_death():
    trainer = Trainer()
    try:
        await trainer.start()
        with pytest.raises(ConflictError, match="no rows"):
            await trainer.train(JOB, MODEL, KEPT, 30.0)
        await trainer.load(FEATURES, TARGET)
        update = await trainer.train(JOB, MODEL, KEPT, 30.0)
        assert update.dtype == np.float32
        assert np.flatnonzero(update).tolist() == KEPT.tolist()
        with pytest.raises(InputError, match="do not fit"):
            await trainer.train(JOB, MODEL[:-1], KEPT, 30.0)
        with pytest.raises(InputError):
            await trainer.load(FEATURES, TARGET[:-1])
        await trainer.load(FEATURES, TARGET)

        process = psutil.Process(trainer.pid)
        process.suspend()
        late = asyncio.create_task(trainer.train(JOB, MODEL, KEPT, 30.0))
        await asyncio.sleep(0)  # the task runs up to its first wait
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(FaultError) as died:
            await late
        assert died.value.reason == "WORKER_DIED"
        again = await trainer.train(JOB, MODEL, KEPT, 30.0)
        assert np.flatnonzero(again).tolist() == KEPT.tolist()
        model = await trainer.train_alone(JOB, FEATURES, TARGET)
        assert model.shape == MODEL.shape
        process = psutil.Process(trainer.pid)
    finally:
        await trainer.close()
    assert not process.is_running()


async def test_training_that_takes_too_long_is_ended():
    trainer = Trainer(deadline_s=0.05)
    try:
        await trainer.start()
        os.kill(trainer.pid, signal.SIGSTOP)  # however fast it is
        with pytest.raises(FaultError, match="in time"):
            await trainer.load(FEATURES, TARGET)
        assert trainer.pid is None
    finally:
        await trainer.close()


def test_the_daemon_does_not_import_torch_with_the_trainer():
    code = (
        "import sys, lepton_client.train.trainer; sys.exit(any(n in sys.modules for n in ('torch', 'opacus', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_work_that_needs_more_memory_than_the_owner_allows_is_told_and_the_next_is_done(capped):
    # 1 GB of weights
    huge = JOB.model_copy(update={"model": JOB.model.model_copy(update={"hidden": (60_000, 4_000)})})
    await capped.load(FEATURES, TARGET)
    await capped.train(JOB, MODEL, KEPT, 30.0)
    first = capped.pid
    with pytest.raises(FaultError, match="more memory") as refused:
        await capped.first_weights(huge)
    assert refused.value.reason == "MEMORY"
    update = await capped.train(JOB, MODEL, KEPT, 30.0)
    assert np.flatnonzero(update).tolist() == KEPT.tolist()
    assert capped.pid == first


@pytest.mark.asyncio(loop_scope="module")
async def test_a_clipped_sum_comes_out_whole_and_nothing_of_how_many_rows_there_were(capped):
    job = Job.model_validate(
        JOB.model_dump()
        | {
            "training": {"batching": "all", "expected_rows": 60},
            "privacy": {"mode": "record-distributed", "delta": 1e-4, "noise_multiplier": 4.0, "clip_norm": 0.5},
        }
    )
    await capped.load(FEATURES, TARGET)
    whole = await capped.clipped_sum(job, MODEL, None)
    assert (whole.dtype, whole.shape) == (np.float64, MODEL.shape)
    assert 0 < np.linalg.norm(whole) <= 60 * 0.5
    some = await capped.clipped_sum(job, MODEL, KEPT)
    assert np.flatnonzero(some).tolist() == KEPT.tolist()
    assert await capped.methods(job) == {"0": "book-keeping", "2": "book-keeping"}
    with pytest.raises(InputError, match="do not fit"):
        await capped.clipped_sum(job, MODEL[:-1], None)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_process_clips_and_draws_subjects_when_the_job_says_so(capped):
    # All subjects in the batch and next to no noise: the step is against the sum of what subjects give.
    training = {"rounds": 1, "local_steps": 1, "sampling_rate": 1.0, "learning_rate": 0.5}
    privacy = {"mode": "record-local", "unit": "subject", "clip_norm": 0.05, "noise_multiplier": 1e-9}
    job = Job.model_validate(JOB.model_dump(mode="json") | {"training": training, "privacy": privacy})
    subjects = np.repeat(np.arange(4), [1, 30, 9, 20])[RNG.permutation(60)]
    given = PrivateModule(job)
    given._sums.flat.copy_(torch.from_numpy(MODEL))
    total = given._clipped_sum(Rows(FEATURES, TARGET, subjects), np.arange(4), None, clip_norm=0.05)
    await capped.load(FEATURES, TARGET)
    with pytest.raises(RefusedError) as refused:
        await capped.train(job, MODEL, None, 10.0)
    assert refused.value.reason == "MISSING_SUBJECT"
    await capped.load(FEATURES, TARGET, subjects)
    update = await capped.train(job, MODEL, None, 10.0)
    assert np.allclose(update, -0.5 * total / 10.0, atol=1e-7)
    assert np.abs(total).sum() > 3 * 0.05  # something was there to be clipped
