"""`metrics.json`: metrics in groups and settings, written and read."""

import json

import pytest

from cflightning.cli.training.cli import TrainingCLI
from cflightning.evaluation.run_metrics import group_metrics, read_metrics

FIGURES = {
    "test/rmse": 0.9, "test/rmse_low": 0.8, "test/ndcg@10": 0.3, "test/baseline_rmse": 0.95,
    "test/item-knn/ndcg@10": 0.2, "test/full_hr@10": 0.1, "val/rmse": 0.91, "train/loss": 0.7,
    "seconds/train": 1.5, "epochs": 4, "other": 1.0,
}  # fmt: skip


def test_metrics_are_grouped_and_read_again(tmp_path):
    content = group_metrics(FIGURES, {"dim": 8})
    assert content["settings"] == {"dim": 8}
    assert content["test"] == {"rmse": 0.9, "rmse_low": 0.8, "ndcg@10": 0.3, "full_hr@10": 0.1}
    assert content["baselines"] == {"biases": {"rmse": 0.95}, "item-knn": {"ndcg@10": 0.2}}
    assert content["validation"] == {"rmse": 0.91}
    assert content["training"] == {"loss": 0.7, "epochs": 4}
    assert content["seconds"] == {"train": 1.5}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    known = {name: value for name, value in FIGURES.items() if name != "other"}
    assert known.items() <= read_metrics(tmp_path / "metrics.json").items()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"test/rmse": 1.0}', '{"format": 1}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError):
        read_metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize("objective", ["mse", "multitask", "ials"])
def test_a_fit_reports_its_settings(tmp_path, movielens, objective):
    TrainingCLI(
        [
            "fit",
            "--data.path",
            str(movielens("ml-1m")),
            "--model.objective",
            objective,
            "--trainer.max_epochs",
            "1",
            "--trainer.default_root_dir",
            str(tmp_path),
            "--trainer.accelerator",
            "cpu",
            "--trainer.devices",
            "1",
            "--trainer.enable_progress_bar",
            "false",
        ]
    )
    content = json.loads((tmp_path / "version_0" / "metrics.json").read_text())
    used = content["settings"]
    assert (used["task"], used["objective"]) == ("EmbeddingDotTask", objective)
    assert used["dim"] == (64 if objective == "ials" else 128)
    assert used["data"]["split"] == "random"
    assert sum(used["data"]["rows"].values()) == 150
    assert used["checkpoint"].endswith("best.ckpt")
    if objective != "ials":
        assert used["engine"] in ("fused", "autograd")
        assert used["l2"] > 0
    if objective == "ials":
        assert used["ranking"]["weight"] > 0
    if objective == "multitask":
        assert used["ranking"]["objective"] == "ease"
        assert used["ranking"]["l2"] > 0
        assert "compared" not in used["ranking"]  # without validation rows
