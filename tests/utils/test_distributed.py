"""Several processes: their launch, the agreement of their data, and the report of a lost one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks.process_watch import LIMIT_VARIABLE, find_limit
from cflightning.utils.distributed import check_launch, check_strategy, find_launch

SCRIPT = Path(__file__).with_name("one_process.py")
DDP = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Paths of a table, the same with its rows in another order, with a row less, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    pairs = rng.permutation(30 * 20)[:300]
    table = pd.DataFrame({"user": pairs // 20, "item": pairs % 20, "rating": rng.integers(1, 6, 300)})
    made = {
        "table": table,
        "shuffled": table[::-1],
        "shorter": table[:-1],
        "other": table.assign(rating=6 - table.rating),
    }
    for name, frame in made.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    (folder / "bad.csv").write_text("user,item,rating\n1,2,3\n1,3,x\n")
    return {path.stem: str(path) for path in folder.glob("*.csv")}


def start(root, given, of_rank=None, launcher=(), **environment):
    """A fit of the command line as a process; `of_rank` holds options that one rank alone is given."""
    options = ["fit", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--model.dim", "4",
               "--trainer.enable_model_summary", "false", "--trainer.default_root_dir", str(root / "runs"),
               "--model.objective", "mse", "--model.engine", "autograd", *given]  # fmt: skip
    told = json.dumps({"all": options, **(of_rank or {})})
    return subprocess.Popen(
        [*(launcher or [sys.executable]), str(SCRIPT), told], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, **environment}, cwd=root,
    )  # fmt: skip


def said(process):
    """Return the lines of one process, and the output of all."""
    output, _ = process.communicate(timeout=400)
    return [line for line in output.splitlines() if line.startswith("cflightning: ")], output


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("shuffled", "got the same rows in another order"),
        pytest.param("shorter", "got 299 rows instead of 300", marks=pytest.mark.slow),
        pytest.param("other", "got other values in its 300 rows", marks=pytest.mark.slow),
        ("bad", "bad.csv: line 3, column 'rating': must be a finite number, got 'x'"),
    ],
)
def test_a_rank_with_another_table_is_named_in_one_line(tables, tmp_path, other, expected):
    of_rank = {"0": ["--data.path", tables["table"]], "1": ["--data.path", tables[other]]}
    process = start(tmp_path, DDP, of_rank)
    lines, output = said(process)
    assert process.returncode in (1, 2), output
    assert len(lines) == 1, output
    assert lines[0].startswith("cflightning: rank 1: ")
    assert expected in lines[0]
    assert "Traceback" not in output
    assert not any((tmp_path / "runs").glob("*")), "an empty run folder is left"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_a_lost_rank_is_named_in_one_line(tables, tmp_path, how):
    endless = (
        "--trainer.max_epochs",
        "1000000",
        "--early_stopping.patience",
        "1000000",
        "--data.path",
        tables["table"],
    )
    process = start(tmp_path, [*DDP, *endless], **{LIMIT_VARIABLE: "6"})
    try:
        deadline = time.monotonic() + 300
        while not [*tmp_path.glob("runs/*/checkpoints/last.ckpt")]:  # it trains
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        [child] = (
            int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        )
        os.kill(child, signal.Signals[how])
        lines, output = said(process)
    finally:
        process.kill()
    assert process.returncode == 1, output
    reason = "was killed by signal 9" if how == "SIGKILL" else "has sent no heartbeat for 6 s"
    assert [line for line in lines if line.startswith(f"cflightning: rank 1: {reason}")] == lines != [], output
    assert "Traceback" not in output
    deadline = time.monotonic() + 20
    while (stat := Path(f"/proc/{child}/stat")).exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX":
        assert time.monotonic() < deadline, "a stopped process is left over"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "torchrun"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, "SLURM"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, "MPI"),
        (
            {"MASTER_ADDR": "10.0.0.1", "RANK": "0", "WORLD_SIZE": "2"},
            "RANK and WORLD_SIZE",
        ),  # Kubeflow's, among others
    ],
)
def test_launched_processes_do_not_train_separately(environment, launcher):
    found = find_launch(environment)
    assert found is not None and launcher in found.launcher and found.processes == 2
    alone = Trainer(accelerator="cpu", devices=1, logger=False)
    with pytest.raises(ConfigError, match=r"--trainer.devices: .* has started 2 processes .* the trainer has 1"):
        check_launch(alone, found)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "1"},
        {"SLURM_PROCID": "3"},
        {"LOCAL_RANK": "0", "WORLD_SIZE": "2"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
    ],
)
def test_a_single_process_has_no_launch(environment):
    assert find_launch(environment) is None


@pytest.mark.slow
def test_the_command_line_refuses_to_train_alone_beside_others(tables, tmp_path):
    given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    process = start(tmp_path, ["--data.path", tables["table"]], **given)
    lines, output = said(process)
    assert process.returncode == 2, output
    assert len(lines) == 1 and "--trainer.devices" in lines[0], output
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_two_nodes_without_a_shared_disk_report_and_leave_nothing_over(tables, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp", "--trainer.max_epochs",
             "2", "--data.path", tables["table"]]  # fmt: skip
    nodes = []
    for rank in ("0", "1"):
        folder = tmp_path / f"node{rank}"
        folder.mkdir()
        nodes.append(
            start(folder, given, TORCHELASTIC_RUN_ID="1", WORLD_SIZE="2", RANK=rank, GROUP_RANK=rank, LOCAL_RANK="0",
                  MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        )  # fmt: skip
    # What another training has left on the second node is not taken for the checkpoint of this one.
    stale = tmp_path / "node1" / "runs" / "version_0" / "checkpoints" / "best.ckpt"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of another run")
    outputs = [said(node)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(outputs)
    assert "test RMSE" in outputs[0] and "test RMSE" not in outputs[1]
    assert (tmp_path / "node0" / "runs" / "version_0" / "metrics.json").is_file()
    assert [path.name for path in (tmp_path / "node1").rglob("*") if path.is_file()] == ["best.ckpt"]
    assert stale.read_bytes() == b"of another run"


def test_strategies_that_would_train_ranks_apart_are_refused():
    with pytest.raises(ConfigError, match=r"--trainer.strategy: must be auto, ddp .*, got ModelParallelStrategy"):
        check_strategy(Trainer(accelerator="cpu", devices=2, strategy=ModelParallelStrategy(), logger=False))


def test_strategies_derived_from_ddp_are_known_to_every_engine(monkeypatch):
    class OfACluster(DDPStrategy):
        pass

    from cflightning.engines.select import unsupported_reason

    pytest.importorskip("numba", reason="the fused engine needs the extra `fast`")
    trainer = Trainer(accelerator="cpu", devices=2, strategy=OfACluster(), logger=False)
    check_strategy(trainer)
    network = EmbeddingDot(10, 10, 4, (1.0, 5.0), 3.0)
    assert unsupported_reason("auto", trainer, network) is None


@pytest.mark.parametrize("given", ["0", "-1", "soon"])
def test_the_time_limit_must_be_a_number_of_seconds(monkeypatch, given):
    monkeypatch.setenv(LIMIT_VARIABLE, given)
    with pytest.raises(ConfigError, match=f"{LIMIT_VARIABLE}: must be a number of seconds above 0"):
        find_limit()
