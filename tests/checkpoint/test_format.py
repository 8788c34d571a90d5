"""Untrusted checkpoints: no class, file or address in them is imported, fetched, followed or rewritten."""

import functools
import http.server
import inspect
import os
import pickle
import re
import shutil
import sys
import threading

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ReduceLROnPlateau

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.__main__ import main as front_door
from cflightning.checkpoint.format import FileCheckpointIO, locate_checkpoint, read_checkpoint
from cflightning.checkpoint.paths import confine_states, file_in_run
from cflightning.checkpoint.settings import TEXT_ARGUMENTS
from cflightning.cli.training.cli import TrainingCLI
from cflightning.data.splits.options import SplitOptions
from cflightning.errors import CheckpointError, DataError
from cflightning.evaluation.run_metrics import read_metrics
from cflightning.tasks.loading import load_task

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A folder that only executed code would make, such as a module `payload` of the current folder."""
    made = tmp_path / "marker"
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "payload.py").write_text(
        f"import os, torch\nos.mkdir({str(made)!r})\nclass Evil(torch.optim.SGD): pass\ndef evil(epoch): return 1.0\n"
    )
    (folder / "described").write_text("class_path: payload.Evil\n")  # the command line reads this file as an object
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield made
    sys.modules.pop("payload", None)


@pytest.fixture
def evil(tmp_path, marker):
    """A checkpoint that runs code where it is read carelessly, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save({"state_dict": {}, "x": Payload(marker)}, folder / "evil.ckpt")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder / "evil.ckpt", f"http://127.0.0.1:{server.server_port}/evil.ckpt"
        server.shutdown()
        thread.join()


def data_of(run):
    return ["--config", str(run / "config.yaml"), *QUIET]


def hostile(run, path, change):
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    change(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address", "pickle", "stranger"])
def test_paths_of_a_checkpoint_are_not_followed(run, tmp_path, marker, evil, kind):
    # All epochs are done, so that fit goes straight to testing what it takes for its best checkpoint.
    stranger = tmp_path / "stranger" / "best.ckpt"
    stranger.parent.mkdir()
    shutil.copy(run / "checkpoints" / "best.ckpt", stranger)
    named = {"address": evil[1], "pickle": str(evil[0]), "stranger": str(stranger)}[kind]

    def change(content):
        for state in content["callbacks"].values():
            if "best_model_path" in state:
                state.update(best_model_path=named, last_model_path=named, kth_best_model_path=named,
                             best_k_models={named: torch.tensor(0.1)})  # fmt: skip

    before = stranger.read_bytes()
    path = hostile(run, tmp_path / "given.ckpt", change)
    cli = TrainingCLI(
        ["fit", *data_of(run), "--ckpt_path", str(path), "--trainer.default_root_dir", str(tmp_path / "runs")]
    )
    assert not marker.exists()
    assert stranger.read_bytes() == before
    assert cli.trainer.current_epoch == 3
    for callback in cli.trainer.checkpoint_callbacks:
        assert named not in (callback.best_model_path, callback.last_model_path, callback.kth_best_model_path)
        assert named not in callback.best_k_models


@pytest.mark.parametrize("version", ["0.9.0", "1.9.5", None])
def test_states_of_old_versions_are_refused(run, tmp_path, marker, evil, version, capsys):
    def change(content):  # Lightning moves these into the state of ModelCheckpoint
        content["pytorch-lightning_version"] = version
        content["checkpoint_callback_best_model_path"] = evil[1]
        content["checkpoint_callback_best_model_score"] = torch.tensor(0.1)
        del content["callbacks"], content["loops"]
        if version is None:
            del content["pytorch-lightning_version"]

    path = hostile(run, tmp_path / "given.ckpt", change)
    assert front_door(["fit", *data_of(run), "--ckpt_path", str(path)]) == 2
    assert "must be of Lightning 2 or later" in capsys.readouterr().err
    assert not marker.exists()


EVIL = {"class_path": "payload.Evil", "init_args": {"lr": 0.1}}
NAMING = {
    "class": lambda content: content["hyper_parameters"].update(_class_path="payload.Evil"),
    "instantiator": lambda content: content["hyper_parameters"].update(_instantiator="payload.evil"),
    "task": lambda content: content["cflightning"].update(task="payload.Evil"),
    "optimizer": lambda content: content["hyper_parameters"].update(optimizer=EVIL),
    "optimizer as text": lambda content: content["hyper_parameters"].update(optimizer="{class_path: payload.Evil}"),
    "schedule": lambda content: content["hyper_parameters"].update(
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        lr_scheduler={
            "class_path": "torch.optim.lr_scheduler.LambdaLR",
            "init_args": {"lr_lambda": "payload.evil"},
        },
    ),
    "file of an argument": lambda content: content["hyper_parameters"].update(
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": "described"}},
    ),
    "file in a list": lambda content: content["hyper_parameters"].update(
        optimizer={"class_path": "torch.optim.Adam", "init_args": {"betas": ["described", 0.9]}},
    ),
    "file of a schedule": lambda content: content["hyper_parameters"].update(
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        lr_scheduler={
            "class_path": "torch.optim.lr_scheduler.LambdaLR",
            "init_args": {"lr_lambda": os.path.abspath("described")},
        },
    ),
    "nested": lambda content: content["hyper_parameters"].update(ranking={"weight": EVIL}),
    "text": lambda content: content["hyper_parameters"].update(ranking="payload.evil"),
    "another setting": lambda content: content["hyper_parameters"].update(callback="payload.evil"),
}


@pytest.mark.slow
@pytest.mark.parametrize("naming", NAMING)
@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_classes_of_a_checkpoint_are_not_imported(run, tmp_path, marker, command, naming, capsys):
    path = hostile(run, tmp_path / "given.ckpt", NAMING[naming])
    front_door([command, *data_of(run), "--ckpt_path", str(path), "--trainer.default_root_dir", str(tmp_path / "runs")])
    assert not marker.exists()
    assert "payload" not in sys.modules
    assert "Traceback" not in capsys.readouterr().err


class TaskOfObjects(EmbeddingDotTask):
    """A task of another package, with an argument that can be an object."""

    def __init__(self, head: "torch.nn.Module | str | None" = None, svdpp: "SvdppSides" = "none", **kwargs):  # noqa: F821
        super().__init__(svdpp=svdpp, **kwargs)
        self.head = head


@pytest.mark.parametrize("setting", ["head", "svdpp"])  # the type of the second is unknown at run time
def test_an_object_is_not_read_from_a_file_that_a_checkpoint_names(run, tmp_path, marker, setting, capsys):
    def change(content):
        content["cflightning"]["task"] = f"{TaskOfObjects.__module__}.TaskOfObjects"
        content["hyper_parameters"][setting] = "described"

    path = hostile(run, tmp_path / "given.ckpt", change)
    assert front_door(["test", *data_of(run), "--ckpt_path", str(path)]) == 2
    assert f"setting '{setting}': must be no file, got 'described'" in capsys.readouterr().err
    assert not marker.exists()
    assert "payload" not in sys.modules


def test_text_arguments_are_texts_in_torch():
    kinds = [*vars(torch.optim).values(), *vars(torch.optim.lr_scheduler).values(), ReduceLROnPlateau]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler):
            for name, parameter in inspect.signature(kind.__init__).parameters.items():
                hint = getattr(parameter.annotation, "__name__", str(parameter.annotation))
                if name in TEXT_ARGUMENTS:
                    assert re.fullmatch(r"str( \| None)?|(typing\.)?Literal(\[.*\])?", hint), (kind, hint)


@pytest.mark.parametrize("naming", NAMING)
def test_tasks_are_loaded_without_any_import(run, tmp_path, marker, naming):
    path = hostile(run, tmp_path / "given.ckpt", NAMING[naming])
    for load in (load_task, EmbeddingDotTask.load_from_checkpoint):
        try:
            task = load(path)
        except CheckpointError:
            pass
        else:
            assert type(task) is EmbeddingDotTask
            assert task.optimizer is None
    assert not marker.exists()
    assert "payload" not in sys.modules


def test_a_custom_optimiser_must_be_given_again(run, tmp_path, marker, capsys):
    path = hostile(run, tmp_path / "given.ckpt", NAMING["optimizer"])
    assert front_door(["fit", *data_of(run), "--ckpt_path", str(path)]) == 2
    assert "names the optimizer 'payload.Evil'" in capsys.readouterr().err
    load_task(path)  # to answer, it is not needed


@pytest.mark.parametrize("weights_only", [None, False, True])
def test_files_are_read_without_running_code_whatever_lightning_asks(evil, marker, weights_only):
    for io in (FileCheckpointIO(), FileCheckpointIO(remote="s3://bucket/run")):
        with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
            io.load_checkpoint(str(evil[0]), weights_only=weights_only)
        for address in (evil[1], f"simplecache::{evil[1]}", "s3://other/x.ckpt", "file:///etc/passwd"):
            with pytest.raises(CheckpointError, match="must be a local file, but is an address; download it first"):
                io.load_checkpoint(address, weights_only=weights_only)
    with pytest.raises(CheckpointError, match="download it first"):
        EmbeddingDotTask.load_from_checkpoint(evil[1])
    for source in evil:
        with pytest.raises(DataError, match="made from its own arguments"):
            RatingsDataModule.load_from_checkpoint(source, weights_only=weights_only)
    assert not marker.exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_addresses_are_refused_with_one_line(run, evil, marker, command, capsys):
    assert front_door([command, *data_of(run), "--ckpt_path", evil[1]]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"cflightning: {evil[1]}: must be a local file, but is an address; download it first"
    )
    with pytest.raises(CheckpointError, match="download it first"):
        locate_checkpoint(type(evil[0])(evil[1]))


@pytest.mark.slow
def test_export_reads_checkpoints_by_the_same_rules(run, evil, marker, tmp_path, capsys):
    path = hostile(run, tmp_path / "given.ckpt", NAMING["class"])
    assert front_door(["export", str(path), str(tmp_path / "bundle")]) == 0
    for source in (str(evil[0]), evil[1]):
        assert front_door(["export", source, str(tmp_path / "other")]) == 2
    assert not marker.exists()
    assert "payload" not in sys.modules


def test_only_files_in_the_checkpoint_folder_are_used(tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        for name in ("best.ckpt", f"{folder.name}.ckpt"):
            (folder / name).write_bytes(b"")
    (own / "link.ckpt").symlink_to(other / "best.ckpt")
    folders = [str(own)]
    assert file_in_run(str(own / "best.ckpt"), folders) == str(own / "best.ckpt")
    assert file_in_run(str(other / "best.ckpt"), folders) == str(own / "best.ckpt")  # as in a run that was moved
    refused = [str(other / "other.ckpt"), str(own / "link.ckpt"), str(own / ".." / "other" / "other.ckpt"), "", None, 3,
               "best.ckpt\0", "x" * 5000, f"file://{own}/best.ckpt", "http://host/best.ckpt", str(own)]  # fmt: skip
    assert [path for path in refused if file_in_run(path, folders)] == []


def test_scores_of_other_files_are_removed(tmp_path):
    (tmp_path / "best.ckpt").write_bytes(b"")
    best, gone = str(tmp_path / "best.ckpt"), "/nowhere/a.ckpt"

    def confined(**state):
        content = {"callbacks": {"ModelCheckpoint{}": {"best_model_path": best, "dirpath": "/nowhere", **state}}}
        confine_states(content, [str(tmp_path)], str(tmp_path / "last.ckpt"))
        return content["callbacks"]["ModelCheckpoint{}"]

    kept = confined(kth_best_model_path=best, best_k_models={best: 1.0, gone: 2.0})
    assert (kept["best_model_path"], kept["best_k_models"], kept["dirpath"]) == (best, {best: 1.0}, str(tmp_path))
    assert confined(kth_best_model_path=gone, best_k_models={best: 1.0, gone: 2.0})["best_k_models"] == {}
    assert confined(kth_best_model_path="", best_k_models={best: 1.0})["best_k_models"] == {best: 1.0}
    with pytest.raises(CheckpointError, match="callbacks: must be states by name"):
        confine_states({"callbacks": [1]}, [], None)


@pytest.mark.slow
def test_a_moved_run_keeps_its_best_checkpoint(run, tmp_path):
    moved = tmp_path / "elsewhere" / "version_7"
    shutil.copytree(run, moved)
    for state in read_checkpoint(moved / "checkpoints" / "last.ckpt")["callbacks"].values():
        assert str(moved) not in str(state)
    cli = TrainingCLI(["fit", *data_of(run), "--ckpt_path", str(moved / "checkpoints" / "last.ckpt"),
                "--trainer.default_root_dir", str(tmp_path / "runs")])  # fmt: skip
    assert cli.trainer.checkpoint_callback.best_model_path == str(moved / "checkpoints" / "best.ckpt")
    assert cli.trainer.checkpoint_callback.best_k_models
    old, new = (read_metrics(at / "metrics.json")["test/rmse"] for at in (run, moved))
    assert new == pytest.approx(old, abs=1e-12)


def test_a_pickle_without_tensors_is_refused(tmp_path, marker):
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps({"state_dict": {}, "x": Payload(marker)}))
    for mapped in (False, True):
        with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
            read_checkpoint(tmp_path / "plain.ckpt", mapped=mapped)
    assert not marker.exists()


def _rows(content):
    return content["cflightning_solver"]


SIZES = {
    "users": ("softmax", lambda content: _rows(content).update(users=torch.zeros(3, 4))),
    "items": ("softmax", lambda content: _rows(content).update(items=torch.zeros(31, 2))),
    "basis": ("svd", lambda content: _rows(content).update(basis=torch.zeros(2, 16))),
    "of doubles": ("svd", lambda content: _rows(content).update(basis=_rows(content)["basis"].double())),
    "short": ("autograd", lambda content: content["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(2))),
    "of no memory": (
        "autograd",
        lambda content: content["optimizer_states"][0]["state"][0].update(
            exp_avg=torch.zeros(1, 1).expand_as(content["optimizer_states"][0]["state"][0]["exp_avg"])
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_states_of_another_size_never_reach_compiled_steps(tmp_path, name):
    # These trust the sizes that they are given: they would read and write beyond the ends.
    kind, change = SIZES[name]
    options = {"engine": "autograd", "objective": "mse"} if kind == "autograd" else {"objective": kind}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}

    def data():
        made = {"num_users": 40, "num_items": 30, "num_ratings": 600}
        return RatingsDataModule(
            source="synthetic",
            synthetic=made,
            batch_size=100 if kind == "autograd" else None,
            split=SplitOptions(val_fraction=0.05),
        )

    first = Trainer(max_epochs=1, enable_checkpointing=False, **quiet)
    first.fit(EmbeddingDotTask(dim=4, svdpp="none", **options), data())
    first.save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "x.ckpt")
    again = Trainer(max_epochs=2, enable_checkpointing=False, **quiet)
    with pytest.raises(CheckpointError, match=r"must be .*(float32|as its parameter is).*was it edited"):
        again.fit(EmbeddingDotTask(dim=4, svdpp="none", **options), data(), ckpt_path=tmp_path / "x.ckpt")
