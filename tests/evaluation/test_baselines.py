"""Ranking baselines beside a test: the printed comparison, and intervals of nDCG@10."""

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TEST
from cflightning.evaluation.baselines import RankingBaselines, comparison_lines
from cflightning.evaluation.rankings import evaluate_scores, evaluate_tables, select_eval_users, user_ndcg
from cflightning.solvers.ease import ease, item_scores
from cflightning.utils.interactions import make_interactions

MODEL = {"test/hr@10": 0.5, "test/ndcg@10": 0.25, "test/ndcg@20": 0.3, "test/recall@20": 0.4, "test/coverage@10": 0.125}
INTERVALS = {
    "test/ndcg@10_low": 0.24, "test/ndcg@10_high": 0.26,
    "test/ndcg@10_gain": 0.01, "test/ndcg@10_gain_low": -0.005, "test/ndcg@10_gain_high": 0.025,
}  # fmt: skip


def baselines(**ndcg):
    return {f"test/{name.replace('_', '-')}/ndcg@10": value for name, value in ndcg.items()}


def cells(line):
    """The cells of a line of the table: a title of 22 characters, then columns of 12."""
    return [line[:22].strip(), *(line[at : at + 12].strip() for at in range(22, len(line), 12))]


def test_the_table_has_a_row_for_each_model_that_was_measured():
    lines = comparison_lines(MODEL | baselines(ease=0.24, popularity=0.1) | {"test/ease/hr@10": 0.45})
    assert [cells(line) for line in lines] == [
        ["recommendations", "HR@10", "nDCG@10", "nDCG@20", "recall@20", "coverage@10"],
        ["this model", "0.5000", "0.2500", "0.3000", "0.4000", "0.1250"],
        ["popularity", "", "0.1000", "", "", ""],
        ["EASE", "0.4500", "0.2400", "", "", ""],
    ]


@pytest.mark.parametrize(
    ("ndcg", "listed"),
    [
        ({"ease": 0.3, "popularity": 0.1}, "EASE (by 20.0%)"),
        ({"item_knn": 0.26, "ease": 0.3, "ratings": 0.252}, "item neighbours (by 4.0%) and EASE (by 20.0%)"),
    ],
)
def test_better_baselines_are_listed_below_the_table(ndcg, listed):
    expected = f"recommendations of {listed} have a higher nDCG@10; docs/ranking.md lists other objectives"
    assert comparison_lines(MODEL | baselines(**ndcg))[-1] == expected


def test_baselines_within_one_percent_are_not_listed():
    assert "higher" not in "".join(comparison_lines(MODEL | baselines(ease=0.2524, item_knn=0.25)))


def test_a_model_without_any_hit_is_compared_without_a_ratio():
    zero = MODEL | {"test/ndcg@10": 0.0}
    [last] = comparison_lines(zero | baselines(ease=0.1))[-1:]
    assert last.startswith("recommendations of EASE have a higher nDCG@10")
    assert "higher" not in "".join(comparison_lines(zero | baselines(ease=0.0)))


def test_a_test_without_rankings_has_no_table():
    assert comparison_lines({"test/rmse": 0.9}) == []
    assert comparison_lines({}) == []


@pytest.mark.parametrize(
    ("sign", "gain"),
    [(1, "above EASE by 0.0100 [-0.0050, 0.0250]"), (-1, "below EASE by 0.0100 [-0.0050, 0.0250]")],
)
def test_intervals_are_printed_below_the_table(sign, gain):
    low, high = ("gain_low", "gain_high")[::sign]
    signed = {"gain": sign * 0.01, low: sign * -0.005, high: sign * 0.025}
    intervals = INTERVALS | {f"test/ndcg@10_{name}": value for name, value in signed.items()}
    lines = comparison_lines(MODEL | intervals | baselines(ease=0.25 - sign * 0.01, popularity=0.1))
    expected = f"nDCG@10 0.2500 [0.2400, 0.2600], {gain}; brackets: 95 % intervals over users"
    assert [line for line in lines if "[" in line] == [expected]


def groups(users=40, items=30, seed=0):
    """Interactions of users with items of their own half."""
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(users) for i in range(items) if u % 2 == i % 2 and rng.random() < 0.6]
    return pd.DataFrame(pairs, columns=["user", "item"])


def measure(data, objective="svd", dim=2):
    """A trained model, and the metrics of its test."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_epochs=1, limit_val_batches=0, enable_checkpointing=False, callbacks=[RankingBaselines()], **quiet
    )
    model = EmbeddingDotTask(dim=dim, objective=objective)
    trainer.fit(model, data)
    [metrics] = trainer.test(model, data, verbose=False)
    return model, metrics


def implicit(frame, **split):
    split = SplitOptions(**{"val_fraction": 0, "test_fraction": 0.2} | split)
    return RatingsDataModule.from_frame(frame, feedback="implicit", split=split)


def expected_interval(values, users=None):
    """Mean ± 1.96 standard errors of some users' values; the other users have 0."""
    values = np.append(values, np.zeros((users or len(values)) - len(values)))
    margin = 1.959964 * values.std(ddof=1) / len(values) ** 0.5
    return pytest.approx((values.mean() - margin, values.mean() + margin), abs=1e-7)


def interval(metrics, name=""):
    return metrics[f"test/ndcg@10{name}_low"], metrics[f"test/ndcg@10{name}_high"]


@pytest.mark.parametrize("held_out", [False, True])
def test_intervals_are_those_of_the_mean_over_users(held_out):
    data = implicit(groups(80), **({"method": "users", "test_users": 20, "val_users": 5} if held_out else {}))
    model, metrics = measure(data)
    users = select_eval_users(data, TEST, None)
    pairs = (torch.from_numpy(index) for index in data.training_pairs())
    weights = ease(make_interactions(*pairs, data.num_users, data.num_items), 500.0)
    of_ease = evaluate_scores(users, item_scores(weights, users.seen)).ndcg
    assert metrics["test/ease/ndcg@10"] == pytest.approx(float(of_ease.mean()), abs=1e-6)
    named = {name: metrics[f"test/{name}/ndcg@10"] for name in ("popularity", "item-knn", "ease")}
    assert metrics["test/ndcg@10_gain"] == pytest.approx(metrics["test/ndcg@10"] - max(named.values()), abs=1e-7)
    assert metrics["test/ndcg@10_low"] < metrics["test/ndcg@10"] < metrics["test/ndcg@10_high"]
    assert metrics["test/ndcg@10_gain_low"] <= metrics["test/ndcg@10_gain"] <= metrics["test/ndcg@10_gain_high"]
    if not held_out:
        values = user_ndcg(users, model.network.tables())
        assert interval(metrics) == expected_interval(values.numpy())
        if max(named, key=named.get) == "ease":
            assert interval(metrics, "_gain") == expected_interval((values - of_ease).numpy())


def test_a_single_user_has_no_interval():
    frame = groups()
    data = implicit(frame, method="users", test_users=1, val_users=1)
    _, metrics = measure(data)
    assert "test/ndcg@10_gain" in metrics
    assert not any(name.endswith(("_low", "_high")) for name in metrics)
    assert not any("[" in line for line in comparison_lines(metrics))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_a_process_without_users_has_no_values():
    data = implicit(groups())
    model, _ = measure(data)
    users, none = select_eval_users(data, TEST, None), torch.zeros(0, dtype=torch.int64)
    empty = users._replace(users=none, seen=users.seen.take(none), relevant=users.relevant.take(none))
    assert evaluate_tables(empty, model.network.tables()).ndcg.shape == (0,)


def test_sampled_candidates_have_intervals_of_ranks_among_them(tmp_path):
    rng = np.random.default_rng(1)
    frame, users, items = groups(), 40, 30
    last = frame.groupby("user").sample(1, random_state=0)
    frame.drop(last.index).assign(rating=1, timestamp=0).to_csv(
        tmp_path / "a.train.rating", sep="\t", header=False, index=False
    )
    last.iloc[0, 1] = items + 5  # an item without training row, which counts as a miss
    last.assign(rating=1, timestamp=1).to_csv(tmp_path / "a.test.rating", sep="\t", header=False, index=False)
    with (tmp_path / "a.test.negative").open("w") as out:
        for user, item in last.itertuples(index=False):
            negatives = rng.choice([i for i in range(items) if i != item], 20, replace=False)
            out.write(f"({user},{item})\t" + "\t".join(map(str, negatives)) + "\n")
    data = RatingsDataModule(str(tmp_path), split=SplitOptions(val_fraction=0))
    model, metrics = measure(data)
    values = evaluate_tables(select_eval_users(data, TEST, None), model.network.tables()).ndcg
    assert len(values) == users - 1
    assert metrics["test/ndcg@10"] == pytest.approx(float(values.sum()) / users, abs=1e-7)
    assert interval(metrics) == expected_interval(values.numpy(), users)
    assert metrics["test/full_ndcg@10"] != metrics["test/ndcg@10"]
