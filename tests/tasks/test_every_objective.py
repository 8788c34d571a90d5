"""Every objective and every config has the same metrics on two processes as on one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("numba", reason="the compiled objectives need the extra `fast`")

CONFIGS = Path(__file__).parents[2] / "configs"
QUICK = {
    "ials": {"objective": "ials", "dim": 8},
    "choices": {"feedback": "implicit"},
    "bce": {"objective": "bce", "dim": 8, "members": 2},
}
MORE = {
    "svd": {"objective": "svd", "dim": 8},
    "softmax": {"objective": "softmax", "dim": 8},
    "multitask": {},
    "multitask, autograd": {"engine": "autograd", "dim": 8},
    **{
        f"{objective}, autograd": {"objective": objective, "engine": "autograd", "dim": 8}
        for objective in ("mse", "bce", "bpr", "softmax", "ccl")
    },
    "compressed": {"objective": "mse", "dim": 8, "compress": 4},
    "perceptron": {"kind": "EmbeddingMLPTask", "dim": 8},
}
LOOSE = {"perceptron": 5e-3}
"""Tolerances of kinds whose gradients are summed in another order, so that small differences grow."""


def config_kinds():
    """Return the model of every config with its kind of feedback."""
    kinds = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        feedback = content.get("data", {}).get("feedback", "ratings")
        kinds[path.name] = {"feedback": feedback, **content["model"]["init_args"]}
    return kinds


def start(kinds, strategy, out, **environment):
    script = Path(__file__).with_name("every_objective.py")
    return subprocess.Popen(
        [sys.executable, str(script), json.dumps(kinds), strategy, str(out)], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def run_kinds(kinds, strategy, out):
    """Return the metrics by kind, of one process and of both ranks of two that are started as by torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"} for rank in range(2)]
    processes = [start(kinds, strategy, out), *(start(kinds, strategy, out, **rank) for rank in ranks)]
    for process in processes:
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output[-3000:]
    return [json.loads((out / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")]


def check(kinds, metrics):
    one, *two = metrics
    for kind in kinds:
        assert one[kind], kind
        for rank in two:
            for name, value in rank[kind].items():
                tolerance = {"abs": 5e-6, "rel": 1e-5} if kind not in LOOSE else {"abs": LOOSE[kind], "rel": 1e-2}
                assert value == pytest.approx(one[kind][name], **tolerance), (kind, name)


@pytest.mark.slow
def test_two_processes_have_the_metrics_of_one(tmp_path):
    check(QUICK, run_kinds(QUICK, "auto", tmp_path))


@pytest.mark.slow
def test_two_processes_have_the_metrics_of_one_for_every_objective_and_config(tmp_path):
    kinds = MORE | config_kinds()
    check(kinds, run_kinds(kinds, "ddp", tmp_path))
