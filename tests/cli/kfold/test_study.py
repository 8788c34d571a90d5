"""The report of several runs, and the variation of their metrics."""

import json
import statistics

import numpy as np
import pandas as pd
import pytest

from cflightning.cli.kfold.study import REPORT, Run, Study, format_line, summarise
from cflightning.errors import ConfigError


def run(fold, seed, **metrics):
    return Run(fold, seed, f"{fold}_{seed}", {f"test/{name}": value for name, value in metrics.items()})


def test_folds_vary():
    values = [0.9, 0.95, 1.03]
    found = summarise([run(fold, 0, rmse=value) for fold, value in enumerate(values, start=1)])
    assert set(found) == {"mean", "sd", "se"}
    assert found["mean"]["test/rmse"] == pytest.approx(statistics.mean(values))
    assert found["sd"]["test/rmse"] == pytest.approx(np.std(values, ddof=1))
    assert found["se"]["test/rmse"] == pytest.approx(pd.Series(values).sem())


def test_seeds_vary_within_folds_and_are_the_sample_of_a_single_fold():
    values = np.array([[0.9, 0.92], [0.95, 0.99], [1.03, 1.01]])
    found = summarise([run(fold, seed, rmse=values[fold, seed]) for seed in (0, 1) for fold in (0, 1, 2)])
    assert found["sd"]["test/rmse"] == pytest.approx(values.mean(axis=1).std(ddof=1))
    assert found["sd_over_seeds"]["test/rmse"] == pytest.approx(np.sqrt(values.var(axis=1, ddof=1).mean()))
    alone = summarise([run(None, seed, rmse=value) for seed, value in enumerate(values[1])])
    assert alone["sd"]["test/rmse"] == pytest.approx(values[1].std(ddof=1))
    assert "sd_over_seeds" not in alone


def test_one_run_has_a_mean_alone_and_only_common_metrics_are_summarised():
    assert summarise([run(1, 0, rmse=0.9)]) == {"mean": {"test/rmse": 0.9}}
    both = summarise([run(1, 0, rmse=0.9, rmse_low=0.8, mae=0.7), run(2, 0, rmse=0.9, rmse_low=0.8)])
    assert both["mean"] == {"test/rmse": 0.9}  # ends of intervals are not averaged


def test_columns_are_aligned_with_the_heading():
    heading, row = format_line("", None), format_line("fold 1", {"test/rmse": 0.91234, "epochs": 10}, "kept")
    assert " ".join(heading.split()) == "test RMSE MAE baseline RMSE gain nDCG@10 val RMSE epochs train, s"
    assert row.index("0.9123") + 6 == heading.index("RMSE") + 4
    assert row.index("10") + 2 == heading.index("epochs") + 6
    assert row.endswith("  kept")


def finish(study, *runs):
    for one in runs:
        (study.folder / one.folder).mkdir(exist_ok=True)
        (study.folder / one.folder / "metrics.json").write_text("{}")
        study.add(one)


def test_a_study_is_continued(tmp_path):
    first = Study(tmp_path, "aaa", "x")
    finish(first, run(1, 0, rmse=0.9), run(2, 0, rmse=1.0))
    content = json.loads((tmp_path / REPORT).read_text())
    assert (content["fingerprint"], content["data"]) == ("aaa", "x")
    assert content["mean"]["test/rmse"] == pytest.approx(0.95)
    assert [one["fold"] for one in content["runs"]] == [1, 2]
    again = Study(tmp_path, "aaa", "")
    assert again.find(2, 0) == run(2, 0, rmse=1.0)
    assert again.find(3, 0) is None and again.find(2, 1) is None
    finish(again, run(2, 0, rmse=2.0))
    assert [one.metrics["test/rmse"] for one in Study(tmp_path, "aaa", "").runs] == [0.9, 2.0]


def test_a_run_without_folder_is_not_finished(tmp_path):
    study = Study(tmp_path, "aaa", "")
    finish(study, run(1, 0, rmse=0.9))
    (tmp_path / "1_0" / "metrics.json").unlink()
    assert Study(tmp_path, "aaa", "").find(1, 0) is None


@pytest.mark.parametrize("text", ["", "[]", '{"fingerprint": "aaa", "runs": [{"x": 1}]}'])
def test_a_damaged_report_is_refused_and_not_changed(tmp_path, text):
    (tmp_path / REPORT).write_text(text)
    with pytest.raises(ConfigError, match=r"kfold.json: must list the finished runs, got .*; delete it"):
        Study(tmp_path, "aaa", "")
    assert (tmp_path / REPORT).read_text() == text


def test_other_processes_write_nothing(tmp_path):
    study = Study(tmp_path / "runs", "aaa", "", writes=False)
    study.add(run(1, 0, rmse=0.9))
    assert not (tmp_path / "runs").exists()
    assert study.runs == [run(1, 0, rmse=0.9)]
