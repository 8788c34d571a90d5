"""Baseline, intervals and calibration of a test, from Python and from the command line."""

import csv
import re

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning import EmbeddingDotTask, RatingEvaluation, RatingsDataModule, Trainer
from cflightning.__main__ import main as front_door
from cflightning.cli.training.cli import TrainingCLI
from cflightning.cli.training.report import summarise_test
from cflightning.data.splits.split import TEST, TRAIN, Split
from cflightning.errors import ConfigError
from cflightning.evaluation.run_metrics import read_metrics
from cflightning.metrics.baseline import fit_baseline
from cflightning.metrics.intervals import error_sums, percentile_interval, resample, rmse_and_mae

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
SYNTHETIC = {"num_users": 80, "num_items": 50, "num_ratings": 2000}


def trainer(*callbacks, **options):
    return Trainer(
        max_epochs=2, limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", callbacks=list(callbacks), **options,
    )  # fmt: skip


def evaluate(data, task=None, **options):
    evaluation, task = RatingEvaluation(), task or EmbeddingDotTask(dim=4)
    with_it = trainer(evaluation, **options)
    with_it.fit(task, data)
    [figures] = with_it.test(task, data, verbose=False)
    return evaluation, task, figures


def test_metrics_are_those_of_the_scores():
    data = RatingsDataModule(source="synthetic", synthetic=SYNTHETIC, eval_batch_size=37)
    evaluation, task, figures = evaluate(data)
    table, rows = data.table, data.split.test
    user, item = data.vocabulary.users.indices_of(table.user)[rows], data.vocabulary.items.indices_of(table.item)[rows]
    with torch.no_grad():
        # In the batches of the test: in others, sums over factors may be taken in another order.
        batches = [torch.from_numpy(rows).long().split(37) for rows in (user, item)]
        scores = torch.cat([task(*batch) for batch in zip(*batches, strict=True)]).numpy()
    baseline = fit_baseline(
        table.user.codes,
        table.item.codes,
        table.ratings,
        data.split.parts == TRAIN,
        len(table.user.ids),
        len(table.item.ids),
    )
    others = baseline.score(table.user.codes[rows], table.item.codes[rows])
    sums = error_sums(table.user.codes[rows], table.ratings[rows], scores, others)
    drawn = resample(sums)
    for at, name in enumerate(("rmse", "mae")):
        model, bias_only = (rmse_and_mae(sums.sum(axis=0), which)[at] for which in (0, 1))
        assert figures[f"test/{name}"] == pytest.approx(model, abs=1e-9)
        assert figures[f"test/baseline_{name}"] == pytest.approx(bias_only, abs=1e-9)
        assert figures[f"test/{name}_gain"] == pytest.approx(bias_only - model, abs=1e-9)
        errors, gains = rmse_and_mae(drawn)[:, at], (rmse_and_mae(drawn, 1) - rmse_and_mae(drawn))[:, at]
        for ends, values in ((name, errors), (f"{name}_gain", gains)):
            got = figures[f"test/{ends}_low"], figures[f"test/{ends}_high"]
            assert got == pytest.approx(percentile_interval(values), abs=1e-9)
        assert figures[f"test/{name}_low"] < model < figures[f"test/{name}_high"]
    bins = pd.qcut(scores.astype(np.float64), 10)
    by_bin = pd.DataFrame({"score": scores, "rating": table.ratings[rows]}).groupby(bins, observed=True)
    np.testing.assert_allclose(evaluation.calibration.rating, by_bin["rating"].mean())
    off = np.abs(evaluation.calibration.score - evaluation.calibration.rating)
    assert figures["test/calibration_error"] == pytest.approx(np.average(off, weights=by_bin.size()))


def test_unknown_users_are_separate_clusters():
    # All of them share the unknown row, but not their taste: as one cluster they would make the interval absurd.
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user": np.repeat(np.arange(60), 8), "item": np.tile(np.arange(8), 60)})
    frame["rating"] = rng.integers(1, 6, len(frame))
    data = RatingsDataModule.from_frame(frame)
    table = data.table
    test = table.user.codes >= 20
    data._split = Split(np.where(test, TEST, TRAIN).astype(np.uint8))
    _, _, figures = evaluate(data)
    assert 0.02 < figures["test/rmse_high"] - figures["test/rmse_low"] < 0.5
    assert figures["test/rmse_low"] < figures["test/rmse"] < figures["test/rmse_high"]


def test_limited_batches_are_measured_on_the_rows_that_were_scored():
    data = RatingsDataModule(source="synthetic", synthetic=SYNTHETIC, eval_batch_size=50)
    evaluation, _, figures = evaluate(data, limit_test_batches=2)
    assert evaluation.calibration.rows.sum() == 100
    assert figures["test/rmse_low"] < figures["test/rmse"] < figures["test/rmse_high"]
    assert figures["test/rmse_gain"] == pytest.approx(figures["test/baseline_rmse"] - figures["test/rmse"])


@pytest.mark.parametrize("rows", [1, 5])
def test_few_test_rows_of_one_user_have_no_interval(rows, tmp_path):
    frame = pd.DataFrame({"user": [0] * 6 + [1, 2, 3] * 2, "item": [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]})
    frame["rating"] = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
    data = RatingsDataModule.from_frame(frame)
    data._split = Split(np.where(np.arange(12) < rows, TEST, TRAIN).astype(np.uint8))
    evaluation, _, figures = evaluate(data)
    assert "test/rmse_low" not in figures
    assert figures["test/baseline_rmse"] > 0
    assert evaluation.write(tmp_path) is not None
    [*_, last] = csv.DictReader((tmp_path / "calibration.csv").read_text().splitlines())
    assert last["rating_low"] == ""


class Silent(EmbeddingDotTask):
    def test_step(self, batch, batch_idx):
        super().test_step(batch, batch_idx)


def test_a_task_without_scores_is_tested_without_baseline(caplog):
    _, _, figures = evaluate(RatingsDataModule(source="synthetic", synthetic=SYNTHETIC), Silent(dim=4, objective="mse"))
    assert set(figures) == {"test/rmse", "test/mae"}
    assert "Silent.test_step returns no scores: no baseline and no intervals" in caplog.text


def test_wrong_arguments_are_errors():
    for options, message in (({"replicates": 1}, "replicates"), ({"bins": 0}, "bins"), ({"seed": -1}, "seed")):
        with pytest.raises(ConfigError, match=rf"RatingEvaluation\({message}=...\): must be at least"):
            RatingEvaluation(**options)
    data = RatingsDataModule(source="synthetic", synthetic=SYNTHETIC)
    _, task, _ = evaluate(data)
    with pytest.raises(ConfigError, match="must be used with a RatingsDataModule"):
        trainer(RatingEvaluation()).test(task, data.test_dataloader(), verbose=False)


def test_nothing_is_written_before_a_test(tmp_path):
    assert RatingEvaluation().write(tmp_path) is None
    assert not list(tmp_path.iterdir())


BRACKETS = r" \[\d\.\d{4}, \d\.\d{4}\]"


@pytest.mark.slow
def test_output_and_files_of_fit_and_test(tmp_path, capsys):
    data = ["--data.source", "synthetic", "--trainer.default_root_dir", str(tmp_path), *QUIET]
    assert front_door(["fit", *data, "--trainer.max_epochs", "5"]) == 0
    out = capsys.readouterr().out
    line = re.search(rf"test RMSE 0\.\d{{4}}{BRACKETS}   MAE 0\.\d{{4}}{BRACKETS}   baseline RMSE 0\.\d{{4}}\n", out)
    assert line, out
    assert re.search(
        rf"\nRMSE below the baseline of user and item biases alone by 0\.\d{{4}}{BRACKETS}; brackets: 95 % intervals",
        out,
    )
    run = tmp_path / "version_0"
    metrics = read_metrics(run / "metrics.json")
    assert 0 < metrics["test/calibration_error"] < 1
    assert metrics["test/rmse_low"] < metrics["test/rmse"] < metrics["test/rmse_high"] < metrics["test/baseline_rmse"]
    rows = list(csv.DictReader((run / "calibration.csv").read_text().splitlines()))
    assert [int(row["bin"]) for row in rows] == list(range(1, 11))
    assert float(rows[0]["score"]) < float(rows[9]["score"])
    assert float(rows[4]["rating_low"]) < float(rows[4]["rating"]) < float(rows[4]["rating_high"])
    before = {path.name: path.read_bytes() for path in run.glob("*.*")}
    assert front_door(["test", *data, "--ckpt_path", "best"]) == 0
    assert line.group() in capsys.readouterr().out
    again = read_metrics(tmp_path / "test" / "metrics.json")
    assert {name: value for name, value in again.items() if name.startswith("test/")} == {
        name: value for name, value in metrics.items() if name.startswith("test/")
    }
    assert "epochs" not in again
    assert (tmp_path / "test" / "calibration.csv").read_bytes() == before["calibration.csv"]
    assert {path.name: path.read_bytes() for path in run.glob("*.*")} == before  # the run's report is left alone


def test_a_model_worse_than_the_baseline_causes_a_warning(tmp_path, capsys):
    TrainingCLI(["fit", "--data.source", "synthetic", "--model.learning_rate", "1e-6", "--trainer.max_epochs", "1",
          "--data.split.val_fraction", "0", "--trainer.default_root_dir", str(tmp_path), *QUIET])  # fmt: skip
    out = capsys.readouterr().out
    assert re.search(
        rf"\nwarning: RMSE above the baseline of user and item biases alone by 0\.\d{{4}}{BRACKETS};", out
    ), out


def test_summary_lines():
    assert summarise_test({}) == []
    assert summarise_test({"test/rmse": 1.0, "test/mae": 0.5}) == ["test RMSE 1.0000   MAE 0.5000"]
    figures = {"test/rmse": 0.888, "test/mae": 0.7, "test/baseline_rmse": 0.9437, "test/rmse_gain": 0.0557}
    assert summarise_test(figures)[0] == "test RMSE 0.8880   MAE 0.7000   baseline RMSE 0.9437"
    assert summarise_test(figures)[1].startswith("RMSE below the baseline of user and item biases alone by 0.0557")
    figures |= {"test/rmse_gain": -0.02, "test/rmse_gain_low": -0.03, "test/rmse_gain_high": -0.01}
    assert summarise_test(figures)[1].startswith(
        "warning: RMSE above the baseline of user and item biases alone by 0.0200 ["
    )


def test_a_fast_dev_run_of_test_writes_nothing(run, movielens, tmp_path):
    TrainingCLI(
        [
            "test",
            "--ckpt_path",
            str(run),
            "--data.path",
            str(movielens("ml-latest-small", 60, 40)),
            *QUIET,
            "--trainer.fast_dev_run",
            "true",
            "--trainer.default_root_dir",
            str(tmp_path),
        ]
    )
    assert not (tmp_path / "test").exists()
