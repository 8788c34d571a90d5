"""Ranking objectives, alone and in multitask models: recommendations, metrics, checkpoints and refused options."""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.checkpoint.format import SOLVER_KEY
from cflightning.cli.training.cli import TrainingCLI
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TEST, TRAIN, VAL
from cflightning.errors import CheckpointError, ConfigError, DataError
from cflightning.evaluation.baselines import RankingBaselines, comparison_lines
from cflightning.objectives.registry import find_ranking_objective, solver_names
from cflightning.solvers.logistic import fold_in
from cflightning.tasks.loading import load_task

pytest.importorskip("numba", reason="the compiled kernel of the sampled loss needs the extra `fast`")

ALONE = ["bce", "softmax", "ials", "svd"]
AUTOGRAD = {
    "bce": {"engine": "autograd", "learning_rate": 0.1, "l2": 0.005}, "bpr": {}, "softmax": {"engine": "autograd"},
    "ccl": {"ranking": {"weight": 2.0, "margin": 0.2}},  # in a table this dense, many negative samples are interactions
    "softmax, of the batch": {"objective": "softmax", "engine": "autograd", "ranking": {"in_batch": True}},
    "bpr, through neighbours": {"objective": "bpr", "ranking": {"smooth": 0.5, "dropout": 0.1}},
}  # fmt: skip


def groups(users=40, items=30, seed=0):
    """Interactions of users with most items of their own half, with random ratings."""
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(users) for i in range(items) if u % 2 == i % 2 and rng.random() < 0.8]
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    return frame.assign(rating=rng.integers(1, 6, len(frame)).astype(float))


def data(frame=None, **options):
    split = {"method": "per_user", "test_fraction": 0.2, "val_fraction": 0.1} | options.pop("split", {})
    options["split"] = SplitOptions(**split)
    return RatingsDataModule.from_frame(groups() if frame is None else frame, **options)


def task(objective, **options):
    return EmbeddingDotTask(**{"dim": 8, "objective": objective, **options})


def trainer(epochs=4, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": epochs, "enable_checkpointing": False, **quiet, **options})


def default_epochs(objective):
    return find_ranking_objective(objective).default_epochs(by_autograd=False)


def tables(network):
    return torch.cat([table.reshape(-1) for table in network.tables()])


def by_hand(network, module, part, k=10):
    """Return hr, recall and ndcg at k, computed user by user."""
    found = network.tables()
    seen = module.interactions(TRAIN, VAL) if part == TEST else module.interactions(TRAIN)
    wanted, rows = module.interactions(part), []
    for user in range(1, module.num_users):
        relevant = set(wanted.indices[wanted.offsets[user] : wanted.offsets[user + 1]].tolist())
        if not relevant:
            continue
        scores = found.item_vectors @ found.user_vectors[user] + found.item_bias
        scores[0] = scores[seen.indices[seen.offsets[user] : seen.offsets[user + 1]].long()] = -torch.inf
        hit = np.array([item in relevant for item in scores.argsort(descending=True, stable=True)[:k].tolist()])
        gain = 1 / np.log2(np.arange(k) + 2)
        rows.append([hit.any(), hit.sum() / len(relevant), gain[hit].sum() / gain[: min(len(relevant), k)].sum()])
    return dict(zip(("hr", "recall", "ndcg"), np.mean(rows, axis=0), strict=True))


@pytest.mark.parametrize("objective", ALONE)
def test_solvers_rank_the_own_half_first_and_metrics_equal_those_by_hand(objective):
    module, model = data(), task(objective)
    fit = trainer(default_epochs(objective))
    fit.fit(model, module)
    val = {name: float(value) for name, value in fit.callback_metrics.items()}
    assert "val/rmse" not in val
    assert np.isfinite(val["train/loss"])
    [figures] = fit.test(model, module, verbose=False)
    assert not any("rmse" in name for name in figures)
    for part, name, found in ((VAL, "val", val), (TEST, "test", figures)):
        for figure, value in by_hand(model.network, module, part).items():
            assert found[f"{name}/{figure}@10"] == pytest.approx(value, abs=1e-6), (name, figure)
    assert figures["test/ndcg@10"] > 0.6  # items of the own half in any order give .7, of both halves .4
    assert torch.count_nonzero(model.network.user_factors.weight[0]) == 0
    assert torch.count_nonzero(model.network.item_factors.weight[0]) == 0


@pytest.mark.parametrize("objective", [*ALONE, "multitask"])
def test_a_checkpoint_restores_the_task(objective, tmp_path):
    module, model = data(), task(objective)
    fit = trainer(2)
    fit.fit(model, module)
    fit.save_checkpoint(tmp_path / "some.ckpt")
    loaded = load_task(tmp_path / "some.ckpt")
    assert (loaded.predicts_ratings, loaded.predicts_rankings) == (objective == "multitask", True)
    assert torch.equal(tables(loaded.recommender), tables(model.recommender))
    [expected] = fit.test(model, module, verbose=False)
    [figures] = trainer().test(
        EmbeddingDotTask(), module, str(tmp_path / "some.ckpt"), verbose=False, weights_only=True
    )
    assert figures == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("options", [{"objective": "bce"}, {"objective": "bce", "members": 2}, {"objective": "ials"},
                                     {"objective": "softmax"}, {"objective": "svd"}, {"objective": "multitask"}],
                         ids=str)  # fmt: skip
def test_a_resumed_run_equals_an_uninterrupted_one(options, tmp_path):
    straight = task(**options)
    trainer(4).fit(straight, data())
    first, again = (
        trainer(4, callbacks=[ModelCheckpoint(tmp_path / name, "{epoch}", save_top_k=-1)], enable_checkpointing=True)
        for name in ("first", "again")
    )
    first.fit(task(**options), data())
    second = task(**options)
    again.fit(second, data(), ckpt_path=tmp_path / "first" / "epoch=1.ckpt", weights_only=True)
    assert again.current_epoch == 4
    assert torch.equal(tables(second.recommender), tables(straight.recommender))
    assert torch.equal(tables(second.network), tables(straight.network))


@pytest.mark.parametrize(
    ("options", "name", "edit"),
    [
        ({"objective": "svd"}, "basis", "shape"),
        ({"objective": "svd"}, "basis", "type"),
        ({"objective": "bce", "members": 2}, "1.user_bias", "shape"),
        ({"objective": "bce", "members": 2}, "0.item_vectors", "missing"),
        ({"objective": "softmax"}, "items", "type"),
        ({"objective": "softmax"}, "item_squares", "shape"),
    ],
    ids=str,
)
def test_an_edited_solver_state_is_refused(options, name, edit, tmp_path):
    fit = trainer(2)
    fit.fit(task(**options), data())
    fit.save_checkpoint(path := tmp_path / "some.ckpt")
    content = torch.load(path, weights_only=True)
    tensor = content[SOLVER_KEY].pop(name)
    if edit != "missing":
        content[SOLVER_KEY][name] = tensor[..., :-1] if edit == "shape" else tensor.double()
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"checkpoint: {name} must be float32 \[[\d, ]+\]; was it edited"):
        trainer(4).fit(task(**options), data(), ckpt_path=path, weights_only=True)


def test_softmax_does_not_resume_without_its_state(tmp_path):
    fit = trainer(1)
    fit.fit(task("softmax"), data())
    fit.save_checkpoint(path := tmp_path / "some.ckpt")
    content = torch.load(path, weights_only=True)
    torch.save(content | {SOLVER_KEY: {}}, path)
    with pytest.raises(CheckpointError, match="must have the state of the softmax solver, got none"):
        trainer(2).fit(task("softmax"), data(), ckpt_path=path, weights_only=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("name", AUTOGRAD)
def test_autograd_ranks_the_own_half_first_and_resumes_exactly(name, tmp_path):
    options = {"objective": name, "learning_rate": 0.05, **AUTOGRAD[name]}
    module, straight = data(batch_size=64), task(**options)
    fit = trainer(8)
    fit.fit(straight, module)
    assert straight.automatic_optimization
    [figures] = fit.test(straight, module, verbose=False)
    assert figures["test/ndcg@10"] > 0.6
    for figure, value in by_hand(straight.network, module, TEST).items():
        assert figures[f"test/{figure}@10"] == pytest.approx(value, abs=1e-6), figure
    fit.save_checkpoint(tmp_path / "end.ckpt")
    loaded = load_task(tmp_path / "end.ckpt")
    assert torch.equal(tables(loaded.network), tables(straight.network))
    if "softmax" in options["objective"]:
        lengths = straight.network.user_factors.weight[1:].norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
    path = tmp_path / "first"
    first, again = (
        trainer(8, callbacks=[ModelCheckpoint(path, "{epoch}", save_top_k=-1)], enable_checkpointing=True)
        for _ in range(2)
    )
    first.fit(task(**options), data(batch_size=64))
    second = task(**options)
    second_path = path / "epoch=3.ckpt"
    again.fit(second, data(batch_size=64), ckpt_path=second_path, weights_only=True)
    if "dropout" not in str(options):  # dropout uses the global generator
        assert torch.equal(tables(second.network), tables(straight.network))


@pytest.mark.slow
@pytest.mark.parametrize("ranking", ALONE)
def test_multitask_equals_a_rating_model_and_a_ranking_model(ranking):
    module = data(groups(60, 40))
    both = task("multitask", ranking={"objective": ranking, "dim": 8})
    trainer(3).fit(both, module)
    rating, choice = task("mse"), task(ranking)
    trainer(3).fit(rating, module)
    trainer(default_epochs(ranking)).fit(choice, module)
    assert torch.equal(tables(both.network), tables(rating.network))
    assert torch.equal(tables(both.recommender), tables(choice.network))
    assert both.recommender is not both.network
    [figures] = trainer(callbacks=[RankingBaselines()]).test(both, module, verbose=False)
    assert {"test/rmse", "test/ndcg@10", "test/ratings/ndcg@10", "test/ease/ndcg@10"} <= set(figures)
    assert figures["test/ndcg@10"] > figures["test/ratings/ndcg@10"]


def test_the_default_objective_is_multitask_for_ratings_and_ranks_implicit_feedback(tmp_path):
    model, module = EmbeddingDotTask(dim=4), data()
    fit = trainer(1)
    fit.fit(model, module)
    assert (model.objective, model.metadata.objective) == (None, "multitask")
    assert {"val/rmse", "val/ndcg@10"} <= set(fit.callback_metrics)
    fit.save_checkpoint(tmp_path / "multitask.ckpt")
    assert load_task(tmp_path / "multitask.ckpt").metadata.objective == "multitask"
    for engine, expected in (("auto", "ease"), ("autograd", "bce")):
        model = EmbeddingDotTask(dim=4, engine=engine)
        fit = trainer(1)
        fit.fit(model, data(groups().drop(columns="rating"), feedback="implicit"))
        assert model.metadata.objective == expected
        assert "val/rmse" not in fit.callback_metrics
        fit.save_checkpoint(tmp_path / "choices.ckpt")
        loaded = load_task(tmp_path / "choices.ckpt")
        assert (loaded.metadata.objective, loaded.predicts_ratings) == (expected, False)


@pytest.mark.parametrize("given", ["mse", "multitask", "svd"])
def test_a_run_resumes_with_its_own_objective_if_none_is_given(given, tmp_path):
    straight = task(given)
    trainer(2).fit(straight, data())
    fit = trainer(1)
    fit.fit(task(given), data())
    fit.save_checkpoint(tmp_path / "some.ckpt")
    model = EmbeddingDotTask(dim=8)
    trainer(2).fit(model, data(), ckpt_path=tmp_path / "some.ckpt", weights_only=True)
    assert model.metadata.objective == given
    assert (model.ranking_network is not None) == (given == "multitask")


@pytest.mark.parametrize("pairs", [[(1, 1), (2, 2)], [(1, 1), (1, 2), (2, 1)]], ids=["no pair shared", "three"])
def test_tiny_tables_train(pairs):
    frame = pd.DataFrame(pairs, columns=["user", "item"]).assign(rating=[1.0, 5.0, 3.0][: len(pairs)])
    module = RatingsDataModule.from_frame(frame, split=SplitOptions(test_fraction=0, val_fraction=0))
    model = EmbeddingDotTask(engine="autograd")
    trainer(1, limit_val_batches=0).fit(model, module)
    assert tables(model.recommender).isfinite().all()
    assert tables(model.network).isfinite().all()


def test_metrics_of_other_data_are_measured_again():
    model, module = task("multitask"), data()
    trainer(1).fit(model, module)
    [first] = trainer().validate(model, module, verbose=False)
    [other] = trainer().validate(model, data(split={"seed": 7}), verbose=False)
    assert first["val/ndcg@10"] == pytest.approx(by_hand(model.recommender, module, VAL)["ndcg"], abs=1e-6)
    assert other["val/ndcg@10"] != first["val/ndcg@10"]


def test_settings_of_the_separate_ranking_network():
    module = data()
    both = task("multitask", ranking={"objective": "ials", "dim": 3, "l2": 10.0})
    trainer(1).fit(both, module)
    assert both.ranking_network.dim == 3
    other = task("multitask", ranking={"objective": "ials", "dim": 3})
    trainer(1).fit(other, module)
    assert not torch.equal(tables(both.ranking_network), tables(other.ranking_network))


def test_bce_members_are_concatenated_and_compressed():
    module = data()
    several, one, cut = task("bce", members=3), task("bce"), task("bce", members=3, compress=5)
    for model in (several, one, cut):
        trainer(3).fit(model, module)
    assert (several.network.dim, one.network.dim, cut.network.dim) == (24, 8, 5)
    several_scores, cut_scores = (
        tables.user_vectors @ tables.item_vectors.T for tables in (several.network.tables(), cut.network.tables())
    )
    assert torch.linalg.matrix_rank(cut_scores) <= 5
    assert not torch.allclose(several_scores, cut_scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objective": "ials", "ranking": {"negatives": 3}},
            "ranking: has weight, l2, exponent, block with ials, got neg",
        ),
        (
            {"objective": "multitask", "ranking": {"objective": "mse"}},
            "^ranking.objective: must be one of bce, softmax, ease, ials, svd or None, got 'mse'",
        ),
        ({"objective": "bce", "ranking": {"last_rate": 1.0}}, "--model.ranking.last_rate: must be above 0"),
        ({"objective": "bce", "engine": "gibbs"}, "--model.engine: has no meaning with --model.objective bce"),
        ({"objective": "svd", "optimizer": {"class_path": "torch.optim.SGD"}}, "--model.optimizer: has no meaning"),
        ({"objective": "ials", "ranking": {"l2": -1.0}}, "ials: l2 must be above 0"),
        ({"objective": "bpr", "ranking": {"margin": 0.1}}, "ranking: has negatives, l2, in_batch"),
        ({"objective": "bpr", "members": 2}, "--model.members: is not known to --model.objective bpr"),
        ({"objective": "ccl", "engine": "fused"}, "--model.engine: must be autograd for --model.objective ccl"),
    ],
)
def test_options_without_meaning_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        trainer(1).fit(task(**options), data())


def held_out(**options):
    users = {"method": "users", "test_users": 12, "val_users": 8, "holdout_fraction": 0.3}
    return data(groups(80, 30), split=users, **options)


def by_hand_of_new_users(network, vectors, module, part, k=10):
    """Compute `by_hand` for users in the order of `held_out_users`."""
    found, (_, given, wanted), gains = network.tables(), module.held_out_users(part), []
    for user, vector in enumerate(vectors):
        relevant = set(wanted.indices[wanted.offsets[user] : wanted.offsets[user + 1]].tolist())
        scores = found.item_vectors @ vector + found.item_bias
        scores[0] = scores[given.indices[given.offsets[user] : given.offsets[user + 1]].long()] = -torch.inf
        hit = np.array([item in relevant for item in scores.argsort(descending=True, stable=True)[:k].tolist()])
        gain = 1 / np.log2(np.arange(k) + 2)
        gains.append(gain[hit].sum() / gain[: min(len(relevant), k)].sum())
    return np.mean(gains)


def least_squares(items, rows, weight, l2):
    """Return a user's vector by iALS with exponent 1, solved in double precision."""
    near, everything = items[rows].double(), items.double()
    penalty = l2 * (len(rows) + weight * (len(items) - 1)) * torch.eye(items.shape[1], dtype=torch.float64)
    return torch.linalg.solve(near.T @ near + weight * everything.T @ everything + penalty, near.sum(0)).float()


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        ("ials", {"ranking": {"weight": 0.2, "l2": 0.03}}),
        ("multitask", {"ranking": {"objective": "ials", "weight": 0.2, "l2": 0.03}}),
        ("ease", {"ranking": {"l2": 5.0}}),
        ("svd", {"ranking": {"score_power": 0.3}}),
        ("bce", {}),
        ("bpr", {"learning_rate": 0.05}),
    ],
)
def test_held_out_users_are_ranked_by_fold_in(objective, options, tmp_path):
    module, model = held_out(batch_size=64), task(objective, **options)
    fit = trainer(8)
    fit.fit(model, module)
    measured = {VAL: float(fit.callback_metrics["val/ndcg@10"])}
    fit.save_checkpoint(tmp_path / "some.ckpt")
    [figures] = trainer(callbacks=[RankingBaselines()]).test(
        EmbeddingDotTask(), held_out(), str(tmp_path / "some.ckpt"), verbose=False, weights_only=True
    )
    measured[TEST] = figures["test/ndcg@10"]
    items, counts = model.recommender.tables().item_vectors, torch.from_numpy(module.counts()[1])
    for part, value in measured.items():
        given = module.held_out_users(part).fold_in_items
        lists = [rows.long() for rows in torch.split(given.indices, given.counts.tolist())]
        if objective in ("ials", "multitask"):
            vectors = [least_squares(items, rows, 0.2, 0.03) for rows in lists]
        elif objective == "ease":
            vectors = [model.recommender.encoder[rows].sum(0) for rows in lists]
        elif objective == "svd":
            vectors = [(items[rows] / counts[rows, None] ** 0.8).sum(0) for rows in lists]
        else:
            vectors = fold_in(items, model.network.tables().item_bias, given)
        assert value == pytest.approx(by_hand_of_new_users(model.recommender, vectors, module, part), abs=1e-6)
    assert figures["test/ndcg@10"] > 0.5  # items of both halves in any order give .3
    for other in ("popularity", "item-knn", "ease"):
        assert 0 < figures[f"test/{other}/ndcg@10"] <= 1
    assert figures["test/ease/ndcg@10"] > 0.5
    assert "test/ratings/ndcg@10" not in figures  # users without ratings have no predicted ones


def test_baselines_of_held_out_users_use_their_fold_in_items():
    """Popularity is compared by hand; item neighbours and EASE score from the fold-in items."""
    module, model = held_out(), task("svd")
    fit = trainer(2, callbacks=[RankingBaselines()])
    fit.fit(model, module)
    [figures] = fit.test(model, module, verbose=False)
    network = EmbeddingDotTask(dim=1, objective="svd").build_network(2, module.num_items, None, None)
    with torch.no_grad():
        network.item_factors.weight.zero_()
        network.item_bias.weight[:, 0] = torch.from_numpy(module.counts()[1])
    nothing = torch.zeros(len(module.held_out_users(TEST).users), 1)
    expected = by_hand_of_new_users(network, nothing, module, TEST)
    assert figures["test/popularity/ndcg@10"] == pytest.approx(expected, abs=1e-6)


def test_without_known_users_only_ratings_are_measured(caplog):
    model, module, strangers = task("multitask"), data(), data(groups().assign(user=groups()["user"] + 1000))
    fit = trainer(1, callbacks=[RankingBaselines()])
    fit.fit(model, module)
    [figures] = fit.test(model, strangers, verbose=False)
    assert set(figures) == {"test/rmse", "test/mae"}
    assert "no ranking metrics: the frame: must have rows to rank" in caplog.text
    alone = task("svd")
    trainer(1).fit(alone, module)
    with pytest.raises(DataError, match="must have rows to rank"):
        trainer().test(alone, strangers, verbose=False)


def test_resuming_with_another_objective_is_refused(tmp_path):
    for objective in ("mse", "multitask", "ials"):
        fit = trainer(1)
        fit.fit(task(objective), data())
        fit.save_checkpoint(tmp_path / f"{objective}.ckpt")
    for before, now in (("mse", "multitask"), ("multitask", "mse"), ("ials", "svd"), ("mse", "ials"), ("ials", "mse")):
        with pytest.raises(CheckpointError, match=r"--model\.(objective|engine): "):
            trainer(2).fit(task(now), data(), ckpt_path=tmp_path / f"{before}.ckpt", weights_only=True)


def test_ranking_needs_no_ratings_and_mse_does():
    frame = groups().drop(columns="rating")
    module = data(frame, feedback="implicit")
    model = task("ials")
    trainer(2).fit(model, module)
    assert trainer().test(model, module, verbose=False)[0]["test/ndcg@10"] > 0.6
    with pytest.raises(
        DataError, match="must have ratings to train on with --model.objective mse, got implicit feedback"
    ):
        trainer(1).fit(task("mse"), data(frame, feedback="implicit"))


@pytest.mark.parametrize("objective", ["ials", "ease"])
def test_two_objectives_use_weights(objective):
    frame = groups().assign(times=np.arange(len(groups())) % 5 + 1)
    found = []
    for weight in (None, "times"):
        model = task(objective)
        trainer(2).fit(model, data(frame, feedback="implicit", table=TableFormat(weight=weight)))
        found.append(tables(model.network))
    assert not torch.allclose(*found)


@pytest.mark.parametrize("objective", sorted({*solver_names()} - {"ease", "ials"}))
def test_other_solvers_refuse_weights(objective):
    frame = groups().assign(times=np.arange(len(groups())) % 5 + 1)
    with pytest.raises(ConfigError, match="--data.table.weight: is known to --model.objective ease and ials alone"):
        trainer(1).fit(task(objective), data(frame, feedback="implicit", table=TableFormat(weight="times")))


def test_without_a_validation_part_the_last_epoch_is_kept(tmp_path):
    frame = groups()
    frame.to_csv(tmp_path / "table.csv", index=False)
    args = ["fit", "--data.path", str(tmp_path / "table.csv"), "--data.split.val_fraction", "0",
            "--model.objective", "ials",
            "--model.dim", "4", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu",
            "--trainer.default_root_dir", str(tmp_path)]  # fmt: skip
    cli = TrainingCLI(args)
    assert cli.trainer.current_epoch == default_epochs("ials")
    assert "test/ndcg@10" in cli.report.metrics


def test_implicit_feedback_needs_no_other_option(tmp_path):
    groups().drop(columns="rating").to_csv(tmp_path / "table.csv", index=False)
    args = ["fit", "--data.path", str(tmp_path / "table.csv"), "--data.feedback", "implicit", "--model.dim", "4",
            "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu",
            "--data.split.val_fraction", "0.05", "--trainer.default_root_dir", str(tmp_path)]  # fmt: skip
    cli = TrainingCLI(args)
    assert cli.model.metadata.objective in ("ease", "ials")  # the better by validation rows
    assert cli.trainer.max_epochs == default_epochs("ease")
    assert cli.trainer.checkpoint_callback.monitor == "val/ndcg@10"


def test_the_best_epoch_is_kept_and_a_table_is_printed(tmp_path, capsys):
    groups().to_csv(tmp_path / "table.csv", index=False)
    args = ["fit", "--data.path", str(tmp_path / "table.csv"), "--model.objective", "multitask", "--model.dim", "4",
            "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2",
            "--data.split.val_fraction", "0.05", "--trainer.default_root_dir", str(tmp_path)]  # fmt: skip
    cli = TrainingCLI(args)
    said = capsys.readouterr().out
    assert "test RMSE" in said
    for row in ("this model", "popularity", "item neighbours", "EASE", "predicted ratings"):
        assert row in said
    assert cli.trainer.checkpoint_callback.monitor == "val/rmse"
    ranked = TrainingCLI([*args[:4], "svd", *args[5:]])
    assert ranked.trainer.checkpoint_callback.monitor == "val/ndcg@10"
    assert ranked.trainer.checkpoint_callback.mode == "max"
    assert "test RMSE" not in capsys.readouterr().out
    assert comparison_lines({"test/rmse": 1.0}) == []


def test_plain_metric_names_are_those_of_the_candidates(tmp_path):
    rng = np.random.default_rng(1)
    frame, users, items = groups(), 40, 30
    last = frame.groupby("user").sample(1, random_state=0)
    frame.drop(last.index).assign(timestamp=0).to_csv(
        tmp_path / "made.train.rating", sep="\t", header=False, index=False
    )
    last.assign(timestamp=1).to_csv(tmp_path / "made.test.rating", sep="\t", header=False, index=False)
    negatives = {u: rng.choice([i for i in range(items) if i % 2 != u % 2], 9, replace=False) for u in range(users)}
    with gzip.open(tmp_path / "made.test.negative.gz", "wt") as out:
        for u, i in zip(last.user, last.item, strict=True):
            out.write(f"({u},{i})\t" + "\t".join(map(str, [i, *negatives[u]])) + "\n")
    module = RatingsDataModule(str(tmp_path), split=SplitOptions(val_fraction=0))
    model = task("ials")
    fit = trainer(3, limit_val_batches=0)
    fit.fit(model, module)
    [figures] = fit.test(model, module, verbose=False)
    assert figures["test/hr@10"] == 1  # nine negatives, and the item itself is none
    assert figures["test/ndcg@10"] > 0.95  # all of them are of the other half
    assert figures["test/full_hr@10"] == pytest.approx(by_hand(model.network, module, TEST)["hr"])
    assert "test/sampled_hr@10" not in figures
