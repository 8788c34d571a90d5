"""Refit of known users, compared with another minimiser, and in an export."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning import EmbeddingDotTask
from cflightning.data.splits.split import TEST, TRAIN, VAL
from cflightning.errors import ExportError
from cflightning.evaluation.run_metrics import group_metrics
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks.loading import load_task
from cflightning_export import bundle, export_bundle
from cflightning_export.cli import main
from cflightning_export.contents.training_data import TrainingRows
from cflightning_export.fold_in.prior import estimate_prior, mean_information
from cflightning_export.fold_in.refit_users import PosteriorVariance, rating_errors, refit_users, refit_users_if_better
from cflightning_serve import Scorer

USERS, ITEMS, DIM = 60, 30, 5


def make_network(sigmoid):
    network = EmbeddingDot(USERS + 1, ITEMS + 1, DIM, (1.0, 5.0), 3.2, sigmoid, 0.125, std=0.3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for bias in (network.user_bias.weight, network.item_bias.weight):
            bias[1:] = 0.3 * torch.randn(len(bias) - 1, 1, generator=generator)
    return network.eval()


def make_rows(seed=0):
    rng = np.random.default_rng(seed)
    pairs = np.sort(rng.permutation(USERS * ITEMS)[: USERS * ITEMS // 3])
    pairs = pairs[pairs // ITEMS != 8]  # user 9 has no ratings
    rating = rng.integers(1, 6, len(pairs)).astype(np.float32)
    return TrainingRows((pairs // ITEMS + 1).astype(np.int32), (pairs % ITEMS + 1).astype(np.int32), rating)


def make_svdpp_terms(rows):
    """SVD++ terms as training leaves them, of random vectors."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for side, own, other, size in (("user", rows.user, rows.item, ITEMS), ("item", rows.item, rows.user, USERS)):
        for table, width in (("factors", DIM), ("bias", 1)):
            vectors = 0.2 * torch.randn(size + 1, width, generator=generator)
            mean = torch.zeros((USERS if side == "user" else ITEMS) + 1, width)
            for row in np.unique(own):
                mine = other[own == row]
                mean[row] = (len(mine) - 1) ** 0.5 / len(mine) * vectors[torch.from_numpy(mine).long()].sum(0)
            found |= {f"{side}_{table}.vectors": vectors, f"{side}_{table}.mean": mean}
    return found


def minimum(start, rating, unsure, mean, precision, score):
    """The minimum of the expected squared error and the penalty of the prior, by L-BFGS."""
    rating, unsure, mean, precision = (
        torch.tensor(part, dtype=torch.float64) for part in (rating, unsure, mean, precision)
    )
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS(
        [x], max_iter=500, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def cost():
        descent.zero_grad()
        found = (score(x) - rating).square().sum() + x @ unsure @ x + (x - mean) @ precision @ (x - mean)
        found.backward()
        return found

    descent.step(cost)
    return x.detach().numpy()


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("with_svdpp", [True, False])
def test_users_are_the_minimum_of_the_expected_error(sigmoid, with_svdpp):
    """With the covariance of each item computed by itself, and another minimiser."""
    network, rows = make_network(sigmoid), make_rows()
    bags = make_svdpp_terms(rows) if with_svdpp else None
    counts = np.bincount(rows.item, minlength=ITEMS + 1)[1:]
    before = network.tables()._replace(user_vectors=network.user_factors.weight.clone().detach(),
                                     user_bias=network.user_bias.weight[:, 0].clone().detach())  # fmt: skip
    users, items = (estimate_prior(before, side, network.scale, counts, bags, trust=1.0) for side in ("user", "item"))
    said = mean_information(before, "item", network.scale, counts) / 0.45
    refit_users(network, rows, counts, bags)
    noise, width = 0.45, network.scale.high - network.scale.low
    spread = np.linalg.inv(users.root @ users.root.T)
    for user in (1, 2, 30, USERS):
        mine = rows.user == user
        item, rating = rows.item[mine], rows.rating[mine]
        z = np.column_stack([before.item_vectors.double().numpy()[item], np.ones(len(item))])
        base = before.item_bias.double().numpy()[item] + float(before.global_bias)
        start = np.array([*before.user_vectors[user].tolist(), float(before.user_bias[user])])
        mean = users.mean
        if with_svdpp:
            leant = [bags[f"user_{table}.mean"][user].double().numpy() for table in ("factors", "bias")]
            mean = mean + np.concatenate(leant)

        def score(x, z=z, base=base):
            logit = torch.from_numpy(z) @ x + torch.from_numpy(base)
            return network.scale.low + width * torch.sigmoid(logit) if sigmoid else logit

        slope = np.ones(len(item))
        if sigmoid:
            at = score(torch.from_numpy(start)).numpy()
            slope = (at - network.scale.low) * (network.scale.high - at) / width
        unsure = np.zeros((DIM + 1, DIM + 1))
        for one, steep in zip(item, slope, strict=True):
            covariance = np.linalg.inv(np.linalg.inv(items.root @ items.root.T) + counts[one - 1] * said)
            unsure[:-1, :-1] += steep**2 * covariance[:-1, :-1]
        expected = minimum(start, rating, unsure, mean, noise * spread, score)
        found = [*network.user_factors.weight[user].tolist(), network.user_bias.weight[user].item()]
        np.testing.assert_allclose(found, expected, atol=2e-3)
    for row in (0, 9):  # the unknown user, and a user without ratings
        np.testing.assert_array_equal(network.user_factors.weight[row].detach(), before.user_vectors[row])
    np.testing.assert_array_equal(network.item_factors.weight.detach(), before.item_vectors)


def test_items_with_many_ratings_have_no_variance():
    network, rows = make_network(True), make_rows()
    tables, counts = network.tables(), np.bincount(rows.item, minlength=ITEMS + 1)[1:]
    prior, said = estimate_prior(tables, "item", network.scale), mean_information(tables, "item", network.scale, counts)
    every = np.arange(3)
    few, many = (PosteriorVariance(prior, said, np.full(3, n)).sum(every, np.ones(3)) for n in (0.0, 1e9))
    np.testing.assert_allclose(few[:-1, :-1], 3 * (prior.root @ prior.root.T)[:-1, :-1], atol=1e-9)
    assert abs(many).max() < 1e-6
    assert not few[-1].any()
    assert not few[:, -1].any()


# Exports --------------------------------------------------------------------------------------------------------------


def make_frame(users=40, items=25):
    rng = np.random.default_rng(0)
    pairs = rng.permutation(users * items)[: users * items // 3]
    return pd.DataFrame({"user": pairs // items, "item": pairs % items, "rating": rng.integers(1, 6, len(pairs))})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_run):
    folder = tmp_path_factory.mktemp("refit") / "run"
    task = EmbeddingDotTask(dim=4, objective="multitask")
    data = make_run(folder, make_frame(80, 40), task, split={"val_fraction": 0.2})
    figures = {"val/rmse": 9.0, "val/mae": 9.0, "test/rmse": 9.0, "test/ndcg@10": 0.5, "val/loss": 9.0}
    (folder / "metrics.json").write_text(json.dumps(group_metrics(figures, {})))
    return folder, data


def rmse(scorer, data, part):
    rows = data.table.frame[data.split.parts == part]
    apart = scorer.score(rows["user"].to_numpy(), rows["item"].to_numpy()) - rows["rating"].to_numpy()
    return float(np.sqrt((apart.astype(float) ** 2).mean()))


def exported(trained, tmp_path, monkeypatch, better, **options):
    """Export with refitted users, where the validation error falls or rises."""
    folder, data = trained
    calls = []

    def errors(network, data, part, vocabulary):
        if part != VAL:
            return rating_errors(network, data, part, vocabulary)
        calls.append(part)
        return rating_errors(network, data, part, vocabulary) | {"rmse": 1.0 if (len(calls) > 1) == better else 2.0}

    monkeypatch.setattr(bundle, "refit_users_if_better", partial(refit_users_if_better, errors=errors))
    return Scorer.load(export_bundle(folder, tmp_path / "refitted", refit_users=True, **options)), data


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_has_refitted_users(trained, tmp_path, monkeypatch, precision):
    plain = Scorer.load(export_bundle(trained[0], tmp_path / "plain"))
    scorer, data = exported(trained, tmp_path, monkeypatch, better=True, precision=precision, max_rmse_change=1.0,
                            min_overlap=0.0)  # fmt: skip
    task = load_task(trained[0] / "checkpoints" / "best.ckpt")
    train = data.table.frame[data.split.parts == TRAIN].sort_values(["user", "item"])
    users, items = (
        ids.indices(train[name]) for ids, name in ((task.vocabulary.users, "user"), (task.vocabulary.items, "item"))
    )
    rows = TrainingRows(users, items, train["rating"].to_numpy(np.float32))
    refit_users(task.network, rows, task.vocabulary.counts, None)  # this checkpoint has no SVD++ term
    pairs = torch.from_numpy(rows.user.astype(np.int64)), torch.from_numpy(rows.item.astype(np.int64))
    expected = task.network.eval()(*pairs).detach().numpy()
    found = scorer.score(train["user"].to_numpy(), train["item"].to_numpy())
    np.testing.assert_allclose(found, expected, atol=1e-5 if precision == "fp32" else 5e-3)
    assert abs(found - plain.score(train["user"].to_numpy(), train["item"].to_numpy())).max() > 1e-3
    metrics = scorer.manifest.metrics
    assert set(metrics) == {"val/rmse", "val/mae", "test/rmse", "test/ndcg@10"}
    assert metrics["test/ndcg@10"] == 0.5  # another network makes the recommendations
    if precision == "fp32":
        assert metrics["test/rmse"] == pytest.approx(rmse(scorer, data, TEST), abs=1e-4)
        assert scorer.recommend(1, 5).items.tolist() == plain.recommend(1, 5).items.tolist()


@pytest.mark.slow
def test_users_stay_as_trained_if_the_validation_error_rises(trained, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "cflightning_export")
    plain = Scorer.load(export_bundle(trained[0], tmp_path / "plain"))
    scorer, data = exported(trained, tmp_path, monkeypatch, better=False)
    assert "users stay as trained: validation RMSE 1.0000, refitted 2.0000" in caplog.text
    rows = data.table.frame[["user", "item"]].to_numpy().T
    np.testing.assert_array_equal(scorer.score(*rows), plain.score(*rows))
    assert scorer.manifest.metrics == plain.manifest.metrics


@pytest.mark.slow
@pytest.mark.parametrize("task", [{"objective": "ials"}, {"members": 2}])
def test_other_networks_cannot_be_refitted(tmp_path, task, make_run):
    make_run(tmp_path / "run", make_frame(), EmbeddingDotTask(dim=3, **task))
    with pytest.raises(ExportError, match="--refit-users: must meet one network of ratings"):
        export_bundle(tmp_path / "run", tmp_path / "bundle", refit_users=True)
    assert not (tmp_path / "bundle").exists()


def test_a_refit_needs_the_data(trained, tmp_path):
    bare = tmp_path / "bare.ckpt"
    content = torch.load(trained[0] / "checkpoints" / "best.ckpt", weights_only=True)
    del content["cflightning"]["data"]  # as in checkpoints without provenance
    torch.save(content, bare)
    with pytest.raises(ExportError, match="^--refit-users: .*must lie in a run folder.*or leave --refit-users out"):
        main([str(bare), str(tmp_path / "bundle"), "--refit-users"])
