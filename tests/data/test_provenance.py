"""Provenance in checkpoints, and rejection of test rows that a checkpoint was trained on."""

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.leakage import check_rows
from cflightning.data.provenance import Provenance, data_settings
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.splits.options import SplitOptions
from cflightning.errors import CheckpointError, DataError
from cflightning.tasks.loading import load_task


def frame(n=600, seed=0):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(40 * 30)[:n]
    return pd.DataFrame({"user": pairs // 30, "item": pairs % 30, "rating": rng.integers(1, 6, n).astype(float)})


def split(method=None, **options):
    return SplitOptions(method, **{"val_fraction": 0.05, **options})


def data(rows=None, **options):
    options.setdefault("split", split())
    return RatingsDataModule.from_frame(frame() if rows is None else rows, **options)


GROWN = pd.concat([frame(), frame(900)[600:].assign(user=lambda rows: rows["user"] + 100)], ignore_index=True)
SHUFFLED = frame().sample(frac=1, random_state=1, ignore_index=True)
OTHERS = {"grown": GROWN, "shuffled": SHUFFLED, "another rating": frame().assign(rating=frame()["rating"] % 5 + 1)}


def test_provenance_is_plain_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame().to_csv("rows.csv", index=False)
    module = RatingsDataModule(
        tmp_path.joinpath("rows.csv").relative_to(tmp_path), rating_range=(1, 5), table=TableFormat(column_names=None)
    )
    kept = module.provenance
    torch.save({"x": kept.state()}, "x.ckpt")
    again = Provenance.from_state(torch.load("x.ckpt", weights_only=True)["x"])
    assert again == kept
    assert again.settings["path"] == str(tmp_path / "rows.csv")
    assert again.settings["rating_range"] == [1, 5]
    assert (again.rows, again.frame, again.fingerprint) == (600, False, module.table.fingerprint)
    assert RatingsDataModule(**again.settings).table.fingerprint == kept.fingerprint


def test_provenance_follows_the_table_and_the_split():
    module = data()
    first = module.provenance
    module.table = data(GROWN).table
    assert module.provenance.fingerprint != first.fingerprint
    module = data()
    module.split = data(split=split(seed=7)).split
    assert module.provenance.parts != first.parts


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_the_same_rows_and_split_are_accepted(stage):
    check_rows(data().provenance, data(batch_size=7, eval_batch_size=3), stage)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("method", ["random", "per_user", "kfold"])
def test_rows_that_may_have_been_trained_on_are_refused(other, method):
    options = {"split": split(method, fold=1 if method == "kfold" else None)}
    kept, now = data(**options).provenance, data(OTHERS[other], **options)
    for stage, part in (("test", "test"), ("validate", "validation")):
        with pytest.raises(DataError, match=f"its {part} part may hold rows that the checkpoint was trained on"):
            check_rows(kept, now, stage)
    with pytest.raises(
        DataError, match=r"must be the table that the checkpoint was trained on, 600 rows of .*other_dat"
    ):
        check_rows(kept, now, "fit")
    with pytest.raises(DataError, match="--data.split.method hash"):
        check_rows(kept, data(OTHERS[other], other_data=True, **options), "fit")


def test_another_split_is_refused_with_the_number_of_leaked_rows():
    kept = data(split=split(seed=1)).provenance
    now = data(split=split(seed=2))
    before = data(split=split(seed=1)).split
    leaked = len(np.intersect1d(now.split.test, np.concatenate([before.train, before.val])))
    with pytest.raises(
        DataError, match=f"trained on {leaked} of 60 test rows.*random, seed 2; the checkpoint's: random, seed 1"
    ):
        check_rows(kept, now, "test")
    with pytest.raises(DataError, match="test rows"):
        check_rows(kept, data(split=split(method="hash")), "fit")
    # The test rows are the same with and without a validation part.
    check_rows(data().provenance, data(split=split(val_fraction=0)), "test")
    check_rows(data().provenance, data(split=split(val_fraction=0)), "fit")
    with pytest.raises(DataError, match="validation rows"):
        check_rows(data(split=split(val_fraction=0)).provenance, data(), "validate")


@pytest.mark.parametrize("other", OTHERS)
def test_a_hash_split_of_other_rows_is_accepted(other):
    kept = data(split=split(method="hash")).provenance
    for stage in ("test", "validate"):
        check_rows(kept, data(OTHERS[other], split=split(method="hash")), stage)
    with pytest.raises(DataError, match="--data.other_data true"):
        check_rows(kept, data(OTHERS[other], split=split(method="hash")), "fit")
    check_rows(kept, data(OTHERS[other], other_data=True, split=split(method="hash")), "fit")
    for changed in ({"seed": 7}, {"test_fraction": 0.2}, {"method": "random"}):
        with pytest.raises(DataError, match="may hold rows"):
            check_rows(kept, data(OTHERS[other], split=split(**{"method": "hash", **changed})), "test")


def test_rows_of_a_hash_split_without_validation_part_never_validate():
    small = data(split=SplitOptions(method="hash"))  # too few rows for a validation part
    assert not small.split.sizes[1]
    assert small.provenance.settings["split"]["val_fraction"] == 0
    with pytest.raises(DataError, match="validation part may hold"):
        check_rows(small.provenance, data(GROWN, split=SplitOptions(method="hash", val_fraction=0.1)), "validate")
    check_rows(small.provenance, data(GROWN, split=SplitOptions(method="hash", val_fraction=0.1)), "test")


def test_a_test_table_beside_the_training_table_is_accepted(tmp_path):
    frame().to_csv(tmp_path / "old.csv", index=False)
    frame(900)[600:].assign(user=lambda rows: rows["user"] + 100).to_csv(tmp_path / "new.csv", index=False)
    frame()[:5].to_csv(tmp_path / "seen.csv", index=False)
    old, new = str(tmp_path / "old.csv"), str(tmp_path / "new.csv")
    kept = RatingsDataModule(old).provenance
    beside = RatingsDataModule(old, test_path=new)
    check_rows(kept, beside, "test")
    assert beside.split.sizes[2] == 300
    # Rows in both tables are refused when loaded, and when one of the two is not trained on.
    with pytest.raises(DataError, match="5 repeated"):
        check_rows(kept, RatingsDataModule(old, test_path=str(tmp_path / "seen.csv")), "test")
    with pytest.raises(DataError, match="may hold rows"):
        check_rows(kept, RatingsDataModule(old, test_path=str(tmp_path / "seen.csv"), duplicates="last"), "test")
    with pytest.raises(DataError, match="may hold rows"):
        check_rows(kept, RatingsDataModule(new, test_path=old), "test")


@pytest.mark.slow
def test_tasks_refuse_other_rows_in_python(tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    fit = Trainer(max_epochs=1, default_root_dir=tmp_path, enable_checkpointing=False, **quiet)
    task = EmbeddingDotTask(dim=4)
    fit.fit(task, data())
    fit.save_checkpoint(tmp_path / "x.ckpt")
    other = Trainer(max_epochs=2, enable_checkpointing=False, **quiet)
    for use in (other.test, other.validate, other.fit):
        with pytest.raises(DataError, match="that the checkpoint was trained on"):
            use(EmbeddingDotTask(dim=4), datamodule=data(GROWN), ckpt_path=tmp_path / "x.ckpt")
    other.test(EmbeddingDotTask(dim=4), datamodule=data(), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    loaded = load_task(tmp_path / "x.ckpt")
    with pytest.raises(DataError, match="that the checkpoint was trained on"):
        other.test(loaded, datamodule=data(GROWN))
    other.test(loaded, datamodule=data(), verbose=False)
    # After training on the new data, the task accepts it.
    again = Trainer(max_epochs=1, enable_checkpointing=False, **quiet)
    again.fit(loaded.train(), data(GROWN))
    again.test(loaded, data(GROWN), verbose=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["settings"].update(path="relative.csv"),
        lambda state: state["settings"].update(path="http://host/x.csv"),
        lambda state: state["settings"].update(test_path="//host/share/x.csv"),
        lambda state: state["settings"].update(path=["a"]),
        lambda state: state["settings"].update(synthetic={"x": {"y": {"z": {"deep": 1}}}}),
        lambda state: state.update(settings=[]),
        lambda state: state.update(rows="600"),
        lambda state: state.update(name="a\x1b[2J"),
        lambda state: state.pop("parts"),
    ],
)
def test_edited_provenance_is_refused(change):
    state = data().provenance.state()
    change(state)
    with pytest.raises(CheckpointError, match="was it edited"):
        Provenance.from_state(state)
    assert Provenance.from_state(None) is None


def test_settings_of_the_checkpoint_are_defaults(tmp_path):
    usual = RatingsDataModule().settings
    frame().rename(columns={"user": "who"}).to_csv(tmp_path / "rows.csv", index=False)
    path = str(tmp_path / "rows.csv")
    kept = RatingsDataModule(path, source="ml-1m", table=TableFormat(user="who"), split=SplitOptions(seed=3)).provenance
    for command in ("fit", "test", "validate"):
        found = data_settings(kept, usual, command)
        assert (found["path"], found["table"]["user"], found["split"]["seed"]) == (path, "who", 3)
    # A given path or source replaces the whole source.
    for given in ({"path": "other.csv"}, {"source": "ml-100k"}):
        found = data_settings(kept, {**usual, **given}, "test")
        assert found["split"]["seed"] == 3
        assert not {"path", "source", "test_path"} & set(found)
    assert data_settings(kept, {**usual, "path": "pairs.csv"}, "predict") == {"table": {"user": "who"}}
    with pytest.raises(DataError, match="--data.path: must name the table whose rows are to be scored"):
        data_settings(kept, usual, "predict")
    with pytest.raises(DataError, match="rows in memory"):
        data_settings(data().provenance, usual, "test")
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(DataError, match="--data.path: must exist, but .*rows.csv, which the checkpoint was"):
        data_settings(kept, usual, "test")
