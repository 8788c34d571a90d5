"""The Markov chain: each conditional against its closed form, and independence of the number of threads."""

import numpy as np
import pytest
import torch

from cflightning.models.network import DotProductTables, RatingScale
from cflightning.sampling.chain import Chain
from cflightning.sampling.padded_rows import CHUNK_SIZE, PaddedRows
from cflightning.sampling.svdpp import draw_svdpp_vectors
from cflightning.utils.csr import csr_from_pairs


def ratings(users=40, items=30, n=500, seed=0):
    """Indices of both sides from 1; user 3 and item 5 have no rating."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation((users - 1) * (items - 1))[:n]
    user, item = pairs // (items - 1) + 1, pairs % (items - 1) + 1
    kept = (user != 3) & (item != 5)
    rating = rng.integers(1, 6, n).astype(np.float32)
    return tuple(torch.from_numpy(column[kept].astype(kind)) for column, kind in (
        (user, np.int32), (item, np.int32), (rating, np.float32)))  # fmt: skip


def make(columns=None, dim=3, sigmoid=True, **options):
    scale = RatingScale((1.0, 5.0), sigmoid, 0.125)
    return Chain(*(columns or ratings()), num_users=40, num_items=30, dim=dim, scale=scale, **options)


def bits(chain):
    return torch.cat([value.reshape(-1).float() for value in chain.state.values()])


def test_chunks_contain_every_rating_once():
    user, item, rating = ratings(n=700)
    rows = PaddedRows(csr_from_pairs(user, item, 40, 30, rating), 4)
    seen = []
    for index, other, target in rows.chunks:
        assert target.numel() * 4 <= CHUNK_SIZE
        for at, u in enumerate(index.tolist()):
            for i, r in zip(other.view_as(target)[at].tolist(), target[at].tolist(), strict=True):
                seen += [(u, i, r)] * (i > 0)
                assert i > 0 or r == 0
    assert sorted(seen) == sorted(zip(user.tolist(), item.tolist(), rating.tolist(), strict=True))
    assert not rows.rated[0] and not rows.rated[3] and int(rows.counts.sum()) == len(user)


def test_very_different_counts_cause_little_padding():
    rng = np.random.default_rng(0)
    own = np.concatenate([np.full(9000, 1), np.full(700, 2), rng.integers(3, 2000, 20_000)]).astype(np.int32)
    ones = torch.ones(len(own), dtype=torch.int32)
    rows = PaddedRows(csr_from_pairs(torch.from_numpy(own), ones, 2000, 2, ones.float()), 65)
    assert sum(chunk.target.numel() for chunk in rows.chunks) < 1.2 * len(own)


@pytest.mark.slow
def test_svdpp_vectors_have_the_posterior_of_a_ridge_regression():
    # d = W y + noise, y ~ N(0, 1 / penalty): a ridge regression.
    rng, penalty, users, items = np.random.default_rng(0), 2.0, 9, 4
    near = rng.random((items, users)) < 0.6
    near[2] = False  # no index depends on this one
    rows = np.concatenate([np.flatnonzero(one) for one in near]).astype(np.int32)
    ends = np.concatenate([[0], near.sum(1).cumsum()])
    weight = rng.uniform(0.3, 1, users).astype(np.float32)
    design = near.T * weight[:, None]
    truth = rng.standard_normal((users, 1)).astype(np.float32)
    vectors, rest, draws = np.zeros((items, 1), np.float32), truth.copy(), []
    squares = (design**2).sum(0).astype(np.float32)
    for number in range(30_000):
        noise = rng.standard_normal((items, 1)).astype(np.float32)
        draw_svdpp_vectors(rows, ends, weight, squares, penalty, noise, vectors, rest)
        if number >= 100:
            draws.append(vectors[:, 0].copy())
    np.testing.assert_allclose(rest, truth - design @ vectors, atol=2e-3)  # updated
    kept = [0, 1, 3]
    covariance = np.linalg.inv(design.T @ design + penalty * np.eye(items))
    np.testing.assert_allclose(np.mean(draws, 0)[kept], (covariance @ design.T @ truth)[kept, 0], atol=0.02)
    np.testing.assert_allclose(np.cov(np.transpose(draws))[np.ix_(kept, kept)], covariance[np.ix_(kept, kept)],
                               atol=0.02)  # fmt: skip
    assert not vectors[2].any()


def test_the_compiled_draw_equals_the_plain_one():
    compiled = pytest.importorskip("cflightning.kernels.gibbs", reason="needs the extra `fast`").draw_svdpp_vectors
    states = []
    for one in (draw_svdpp_vectors, compiled):
        chain = make(draw_vectors=one)
        for _ in range(3):
            chain.sweep()
        states.append(bits(chain))
        chain.close()
    torch.testing.assert_close(*states, atol=2e-3, rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_vector_is_drawn_from_its_conditional(sigmoid):
    chain = make(dim=2, sigmoid=sigmoid)
    for _ in range(3):
        chain.sweep()
    user, item, rating = (column.numpy() for column in ratings())
    state = {name: value.clone() for name, value in chain.state.items()}
    precision = torch.tensor([[3.0, 0.5, 0], [0.5, 2, 0], [0, 0, 9]], dtype=torch.float64)
    draws = []
    for seed in range(4000):
        chain.load(state)
        chain.draw_side(1, precision, torch.zeros(40).double(), np.random.default_rng(seed))
        draws.append(chain.state["factors_1"][7].numpy().copy())
    chain.close()
    mine = item == 7
    x, alpha = state["factors_0"][user[mine]].numpy(), state["precision"][user[mine]].numpy()
    old = state["factors_1"][7].numpy()
    features = np.column_stack([x[:, :2], np.ones(len(x))])
    fitted = features @ old
    logit = fitted + x[:, 2] + float(state["global_bias"])
    score, slope, target = logit, 1.0, rating[mine]
    if sigmoid:
        score, target = 1 / (1 + np.exp(-logit)), (rating[mine] - 0.5) / 5
        slope = score * (1 - score)
    weight = alpha * slope**2
    pull = features.T @ (weight * (fitted + (target - score) / slope))
    expected = np.linalg.inv(features.T @ (weight[:, None] * features) + precision.numpy())
    prior = precision.numpy() @ (state["prior_mean_1"] + state["svdpp_means_1"][7]).numpy()
    np.testing.assert_allclose(np.mean(draws, 0), expected @ (pull + prior), atol=0.05)
    np.testing.assert_allclose(np.cov(np.transpose(draws)), expected, atol=0.05 * expected.max())


def test_noise_is_drawn_per_user_and_errors_are_those_before_the_sweep():
    chain = make()
    chain.sweep()
    user, item, rating = (column.long() for column in ratings())
    rows, others = chain.state["factors_0"], chain.state["factors_1"]
    logit = (rows[user, :-1] * others[item, :-1]).sum(1) + rows[user, -1] + others[item, -1]
    score = 0.5 + 5 * torch.sigmoid(logit + chain.state["global_bias"])
    assert chain.sweep() == pytest.approx(float((score - rating).square().sum()), rel=1e-4)
    precision = chain.state["precision"][chain.sides[0].rated]
    assert len(precision.unique()) == len(precision)
    chain.close()


def test_the_result_does_not_depend_on_the_number_of_threads():
    compiled = pytest.importorskip("cflightning.kernels.gibbs", reason="needs the extra `fast`").draw_svdpp_vectors
    states = []
    for threads in (1, 2, 3):
        chain = make(ratings(n=900), threads=threads, draw_vectors=compiled)
        for _ in range(3):
            chain.sweep()
        states.append(bits(chain))
        chain.close()
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])


def test_draws_depend_on_the_seed():
    found = []
    for seed in (0, 0, 1):
        chain = make(seed=seed)
        chain.sweep()
        found.append(bits(chain))
        chain.close()
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("svdpp", ["none", "user", "both"])
def test_the_chosen_sides_have_svdpp_terms(svdpp):
    chain = make(svdpp=svdpp)
    for _ in range(2):
        chain.sweep()
    learnt = [bool(chain.state[f"svdpp_vectors_{at}"].any()) for at in (0, 1)]
    assert learnt == [svdpp != "none", svdpp == "both"]
    for at, weight in enumerate(chain.svdpp_weights):  # the mean is the weighted sum of the vectors
        summed = torch.zeros_like(chain.state[f"svdpp_means_{at}"])
        own, other, _ = ratings()
        own, other = ((own, other), (other, own))[at]
        summed.index_add_(0, own.long(), chain.state[f"svdpp_vectors_{at}"][other.long()])
        torch.testing.assert_close(chain.state[f"svdpp_means_{at}"], summed * weight[:, None], atol=2e-4, rtol=1e-3)
    chain.close()


def test_tables_predict_as_the_draw_and_the_unknown_index_by_the_prior_mean():
    chain = make()
    for _ in range(4):
        chain.sweep()
    tables, state = chain.tables(), chain.state
    for at, table in ((0, tables.user_vectors), (1, tables.item_vectors)):
        assert not table[~chain.sides[at].rated].any()
    rows = [
        torch.where(chain.sides[at].rated[:, None], state[f"factors_{at}"], state[f"prior_mean_{at}"]) for at in (0, 1)
    ]
    expected = rows[0][:, :-1] @ rows[1][:, :-1].T + rows[0][:, -1:] + rows[1][:, -1] + state["global_bias"]
    found = tables.user_vectors @ tables.item_vectors.T + tables.user_bias[:, None] + tables.item_bias
    torch.testing.assert_close(found + tables.global_bias, expected, atol=1e-4, rtol=1e-4)
    chain.close()


def test_a_chain_starts_from_given_tables():
    chain = make()
    generator = torch.Generator().manual_seed(0)
    shapes = (40, 3), (30, 3), (40,), (30,), ()
    chain.start(DotProductTables(*(torch.randn(shape, generator=generator) for shape in shapes)))
    assert not chain.state["factors_0"][3].any() and not chain.state["factors_1"][0].any()
    assert chain.state["factors_0"][1].all()
    chain.close()


def test_planted_factors_are_recovered_from_a_random_start():
    rng = np.random.default_rng(0)
    users, items, n, noise = 200, 100, 6000, 0.4
    pairs = rng.permutation((users - 1) * (items - 1))[:n]
    user, item = pairs // (items - 1) + 1, pairs % (items - 1) + 1
    p, q = rng.standard_normal((users, 2)), rng.standard_normal((items, 2))
    truth = 3 + (p[user] * q[item]).sum(1) * 0.7
    rating = (truth + noise * rng.standard_normal(n)).astype(np.float32)
    columns = [
        torch.from_numpy(c[:5000].astype(k)) for c, k in ((user, np.int32), (item, np.int32), (rating, np.float32))
    ]
    chain = Chain(*columns, num_users=users, num_items=items, dim=3, scale=RatingScale(None), svdpp="none")
    total = torch.zeros(n - 5000)
    u, i = (torch.from_numpy(c[5000:]) for c in (user, item))
    for number in range(60):
        chain.sweep()
        if number >= 20:
            t = chain.tables()
            total += (t.user_vectors[u] * t.item_vectors[i]).sum(1) + t.user_bias[u] + t.item_bias[i] + t.global_bias
    chain.close()
    rmse = float(np.sqrt(np.mean((total.numpy() / 40 - truth[5000:]) ** 2)))
    assert rmse < 0.6 * noise
    assert float(chain.state["noise"]) ** -0.5 == pytest.approx(noise, rel=0.1)
