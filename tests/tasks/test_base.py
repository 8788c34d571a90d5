"""Fitted tasks are copied, pickled and returned from other processes; forks that would hang are refused."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions

KINDS = {
    "multitask": {},
    "gibbs": {"objective": "mse", "engine": "gibbs"},
    "bce": {"objective": "bce"},
    "softmax": {"objective": "softmax"},
    "autograd": {"objective": "mse", "engine": "autograd"},
    "bpr": {"objective": "bpr"},
}
SCRIPT = """
import sys, torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from cflightning import EmbeddingDotTask, RatingsDataModule

if __name__ == "__main__":
    strategy, folder, out = sys.argv[1:]
    data = RatingsDataModule(source="synthetic", synthetic={"num_users": 60, "num_items": 40, "num_ratings": 1111})
    task, kept = EmbeddingDotTask(dim=8), ModelCheckpoint(folder)
    options = {"devices": 2, "strategy": strategy} if strategy != "auto" else {"devices": 1}
    trainer = Trainer(accelerator="cpu", max_epochs=2, logger=False, callbacks=[kept], enable_progress_bar=False,
                      enable_model_summary=False, **options)
    trainer.fit(task, data)
    [metrics] = trainer.test(task, data, verbose=False)
    content = torch.load(kept.best_model_path, weights_only=True)
    torch.save({"metrics": metrics, "tables": dict(task.named_parameters()), "names": [*content["state_dict"]]}, out)
"""


def fitted(**options):
    data = RatingsDataModule(
        source="synthetic",
        synthetic={"num_users": 60, "num_items": 40, "num_ratings": 1111},
        split=SplitOptions(val_fraction=0.05),
    )
    task = EmbeddingDotTask(dim=8, **options)
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(task, data)
    return task, data


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_task_and_its_data_are_pickled_and_copied(kind):
    if kind not in ("autograd", "bpr"):
        pytest.importorskip("numba", reason="the compiled engines need the extra `fast`")
    task, data = fitted(**KINDS[kind])
    user, item = torch.arange(5), torch.arange(5)
    for other in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task)):
        assert torch.equal(other(user, item), task(user, item))
        assert other.metadata == task.metadata
    for other in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert other.split.sizes == data.split.sizes


def run(strategy, folder):
    (folder / "script.py").write_text(SCRIPT)
    out = folder / f"{strategy}.pt"
    done = subprocess.run(
        [sys.executable, str(folder / "script.py"), strategy, str(folder / strategy), str(out)], capture_output=True,
        text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_notebook", "ddp_spawn"])
def test_a_task_returns_from_the_processes_that_trained_it(tmp_path, strategy):
    pytest.importorskip("numba", reason="one process and two are compared by the fused engine")
    alone, several = run("auto", tmp_path), run(strategy, tmp_path)
    assert several["metrics"] == pytest.approx(alone["metrics"], abs=5e-7)
    assert several["tables"].keys() == alone["tables"].keys()
    for name, table in alone["tables"].items():
        assert torch.equal(several["tables"][name], table), name
    assert several["names"] == alone["names"], "a checkpoint holds what is for the way home alone"


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_of_a_process_that_had_threads_is_refused_instead_of_hanging(threads):
    code = (
        "import os, sys, torch; from cflightning import RatingsDataModule;"
        f"torch.set_num_threads({threads});"
        "data = RatingsDataModule(source='synthetic', synthetic=dict(num_users=60, num_items=40, num_ratings=1111));"
        "data.setup('fit'); child = os.fork();\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "data.setup('fit')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == (threads > 1), done.stderr
    assert ("forked" in done.stderr and "ddp_spawn" in done.stderr) == (threads > 1)
