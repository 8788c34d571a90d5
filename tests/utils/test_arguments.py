"""Arguments of constructors: what none of their values could mean is refused where it is given, by its own name."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

from cflightning import EmbeddingDotTask, EmbeddingMLPTask, RatingsDataModule, SplitOptions, TableFormat
from cflightning.__main__ import join_lists
from cflightning.__main__ import main as front_door
from cflightning.errors import ArgumentError, ConfigError, DataError

NAN, INF = float("nan"), float("inf")
OF_DATA = {
    "path": ["", "  ", 3],
    "test_path": ["", []],
    "source": ["netflix", None],
    "feedback": ["clicks", None],
    "table": [3, "user"],
    "split": [3],
    "duplicates": ["first"],
    "min_rating": [NAN, "4"],
    "rating_range": [(5, 1), (1, INF), (1,), 5, (1, 1), ("1", "5"), "5,1", "1", "a,b", "0,3e38", (0, 3e38)],
    "batch_size": [0, -1, 2.5],
    "eval_batch_size": [0, None],
    "synthetic": [[1]],
    "cache": ["no", None],
    "other_data": ["yes"],
}
OF_TABLE = {
    "user": [3],
    "decimal": [";", "", 1],
    "time_format": ["yyyy", 3],
    "rating_values": ["like", "like=good", "like=inf", 3, {"like": "good"}],
    "column_names": [3],
    "drop_zero_weights": ["yes", None],
}
OF_SPLIT = {
    "method": ["randm", 1],
    "val_method": ["kfold", None],
    "test_fraction": [1.0, -0.1, NAN, "0.1", None],
    "val_fraction": [1, -1e-9, INF, True],
    "fold": [0, 1.5, True],
    "folds": [1, 2.0],
    "leave_n": [0],
    "test_users": [-1, 2.5, NAN],
    "val_users": [-0.5, INF, "3"],
    "holdout_fraction": [0, 1.0, NAN],
    "seed": [-1, 0.5],
}
OF_TASKS = {
    "learning_rate": [-0.1, NAN, "fast"],
    "l2": [-1, INF],
    "l2_exponent": [NAN, "x"],
    "weight_decay": [-1, None],
    "margin": [-0.1, NAN],
    "sigmoid": ["no", None, 1],
    "seed": [0.5, None, "x"],
    "engine": ["gpu", None],
    "optimizer": ["Adam", {"init_args": {}}],
    "lr_scheduler": [[]],
}
OF_DOT = OF_TASKS | {
    "dim": [0, -3, 2.5, True, "8"],
    "objective": ["mes", 3],
    "ranking": [3, {"negative": 3}, {"objective": "mse"}, {"dim": 0}, {"epochs": 1.5}, {"l2": "much"}],
    "std": [-1, NAN],
    "svdpp": ["users", None],
    "members": [0, None, 1.5],
    "compress": [0, 2.5],
}
OF_MLP = OF_TASKS | {"dim": [0, None], "hidden": [[0], "abc", [1.5], 8], "std": [-1, None]}
KINDS = (
    (RatingsDataModule, OF_DATA), (TableFormat, OF_TABLE), (SplitOptions, OF_SPLIT), (EmbeddingDotTask, OF_DOT),
    (EmbeddingMLPTask, OF_MLP),
)  # fmt: skip
CASES = [
    (kind, name, value)
    for kind, cases in (
        (RatingsDataModule, OF_DATA),
        (TableFormat, OF_TABLE),
        (SplitOptions, OF_SPLIT),
        (EmbeddingDotTask, OF_DOT),
        (EmbeddingMLPTask, OF_MLP),
    )
    for name, values in cases.items()
    for value in values
]


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_arguments_are_refused_by_the_constructor(kind, name, value):
    with pytest.raises(ArgumentError, match=rf"^{name}(\.\w+)?: (must|has) ") as caught:
        kind(**{name: value})
    assert "--" not in str(caught.value)
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, DataError)
    assert len(str(caught.value)) < 300


def test_messages_have_the_requirement_and_the_value():
    for kind, name, value, message in (
        (EmbeddingDotTask, "objective", "mes",
         "objective: must be one of mse, bce, bpr, softmax, ccl, ease, ials, svd, multitask or None, got 'mes'"),
        (EmbeddingDotTask, "dim", 0, "dim: must be at least 1, got 0"),
        (SplitOptions, "test_fraction", 1.5, "test_fraction: must be at least 0 and below 1, got 1.5"),
        (RatingsDataModule, "path", "", "path: must name a file or folder, got ''"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError) as caught:
            kind(**{name: value})
        assert str(caught.value) == message
        for again in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
            assert (str(again), again.option) == (message, caught.value.option)


def test_valid_arguments_are_accepted():
    RatingsDataModule(
        rating_range=[1, 5],
        batch_size=np.int64(3),
        split=SplitOptions(test_fraction=0, val_fraction=np.float32(0.5), fold="u1", test_users=3.0, seed=0),
    )
    EmbeddingDotTask(dim=np.int32(4), learning_rate=0, l2=0, ranking={"dim": 8, "objective": "svd", "user_power": None})
    EmbeddingDotTask(objective="softmax", ranking={"in_batch": True, "temperature": 0.1})
    EmbeddingMLPTask(hidden=[])
    with pytest.raises(TypeError, match="dimension"):
        EmbeddingDotTask(dimension=3)


def test_a_frame_has_no_path():
    with pytest.raises(ArgumentError, match="path: must be left out with a frame, got 'x.csv'"):
        RatingsDataModule.from_frame(pd.DataFrame({"user": [1], "item": [1], "rating": [1.0]}), path="x.csv")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.std", "-1"], "--model.std: must not be negative, got -1.0"),
        (["--data.split.folds", "1"], "--data.split.folds: must be at least 2, got 1"),
        (["--data.path", ""], "--data.path: must name a file or folder, got ''"),
        (["--data.path="], "--data.path: must name a file or folder, got ''"),
        (["--data.path", "null"], "--data.path: must name a file or folder, got 'null'; leave it out, or write ./null"),
        (["--data.path=null"], "--data.path: must name a file or folder, got 'null'"),
        (["--data.test_path", "~"], "--data.test_path: must name a file or folder, got '~'"),
        (["--data.init_args.path", "null"], "--data.path: must name a file or folder, got 'null'"),
        (["--ckpt_path", ""], "--ckpt_path: must name a run or a checkpoint, got ''"),
        (["--ckpt_path", "null"], "--ckpt_path: must name a run or a checkpoint, got 'null'"),
    ],
)
def test_the_command_line_names_the_option(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    assert front_door(["fit", "--data.source", "synthetic", *args]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cflightning: ")]
    assert line.startswith(f"cflightning: {message}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        (["fit", "--data.table.missing", "-1,99"], ["fit", "--data.table.missing=-1,99"]),
        (["fit", "--data.rating_range", "-10,10", "--x", "1"], ["fit", "--data.rating_range=-10,10", "--x", "1"]),
        (["fit", "--data.rating_range=-10,10", "-1,2"], ["fit", "--data.rating_range=-10,10", "-1,2"]),
        (["fit", "--data.table.missing", "-1", "--", "-x,1"], ["fit", "--data.table.missing", "-1", "--", "-x,1"]),
    ],
)
def test_lists_that_begin_with_a_minus_belong_to_the_option_before_them(given, joined):
    assert join_lists(given) == joined


def test_a_list_that_begins_with_a_minus_on_the_command_line(capsys):
    with pytest.raises(SystemExit, match="0"):
        front_door(["fit", "--data.rating_range", "-10,10", "--data.table.missing", "-1,99", "--print_config"])
    printed = capsys.readouterr().out
    assert "rating_range: -10,10" in printed
    assert "missing: -1,99" in printed
