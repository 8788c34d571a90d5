"""The sampled logistic step: equal to its reference and to the rule for one sample, with uniform negatives."""

import math

import numpy as np
import pytest

pytest.importorskip("numba", reason="the fused engine needs the extra `fast`")

from reference_sampled_logistic import reference_kernel

from cflightning.errors import ConfigError, DataError
from cflightning.kernels.logistic_cells import GRID, MAX_GROUP, draw_epoch, make_cells, next_samples
from cflightning.kernels.sampled_logistic import LogisticTables, SampledLogistic, kernel


def interactions(n=1200, users=90, items=140, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, users, n).astype(np.int32), rng.integers(1, items, n).astype(np.int32)


def tables(users=90, items=140, dim=8, seed=0, std=0.3):
    rng = np.random.default_rng(seed)
    made = LogisticTables(
        *(rng.normal(0, std, shape).astype(np.float32) for shape in ((users, dim), (items, dim), users, items, 1))
    )
    for table in made[:4]:
        table[0] = 0
    return made


def train(dim=8, threads=1, epochs=2, negatives=3, columns=None, sizes=(90, 140), seed=1, rate=0.1, l2=0.02, **options):
    made = tables(*sizes, dim)
    columns = interactions() if columns is None else columns
    fit = SampledLogistic(*columns, *sizes, negatives=negatives, seed=seed, threads=threads, **options)
    losses = [fit.epoch(number, made, rate, l2) for number in range(epochs)]
    fit.close()
    return made, losses, fit


def same_bits(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "negatives"), [(3, 1), (8, 3), (8, 40), (100, 8)])
def test_compiled_step_equals_the_reference(dim, negatives):
    fast, fast_losses, _ = train(dim, negatives=negatives)
    slow, slow_losses, _ = train(dim, negatives=negatives, step=reference_kernel)
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)
    np.testing.assert_allclose(fast_losses, slow_losses, rtol=1e-5)


def test_the_result_does_not_depend_on_the_number_of_threads():
    one, two, many = (train(threads=threads)[:2] for threads in (1, 2, 40))
    assert same_bits(one[0], two[0]) and same_bits(one[0], many[0])
    assert one[1] == two[1] == many[1]


def test_an_epoch_depends_on_its_number_and_the_seed_not_on_previous_epochs():
    whole, _, _ = train(epochs=3)
    made, _, _ = train(epochs=2)
    again = SampledLogistic(*interactions(), 90, 140, negatives=3, seed=1, threads=1)
    again.epoch(2, made, 0.1, 0.02)
    assert same_bits(whole, made)
    for number, seed in ((0, 2), (1, 1)):
        other = SampledLogistic(*interactions(), 90, 140, negatives=3, seed=seed, threads=1)
        other.epoch(number, changed := tables(), 0.1, 0.02)
        assert not same_bits(changed, train(epochs=1)[0])


def rule(made, samples, lr, l2):
    """The rule of the paper, one sample at a time, in double precision."""
    p, q, bu, bi, b = (table.astype(np.float64) for table in made)
    loss, c = 0.0, 1 - lr * l2
    for u, i, y in samples:
        x = b[0] + bu[u] + bi[i] + p[u] @ q[i]
        s = 1 / (1 + math.exp(-x))
        loss -= math.log(s if y else 1 - s)
        g = lr * (y - s)
        p[u], q[i] = c * p[u] + g * q[i], c * q[i] + g * p[u]
        bu[u], bi[i], b[0] = c * bu[u] + g, c * bi[i] + g, b[0] + g
    return (p, q, bu, bi, b), loss


def test_one_user_and_one_item_follow_the_rule():
    # One interaction with the only item: a positive and a negative of the same pair, in random order.
    start = tables(2, 2)
    for negatives, seed in ((1, 0), (1, 1), (3, 0)):
        for lr in (1e-2, 1e-3):
            made, (loss,), _ = train(8, 1, 1, negatives, [np.ones(1, np.int32)] * 2, (2, 2), seed, lr, 0.5)
            expected, seen = rule(start, [(1, 1, 1)] + [(1, 1, 0)] * negatives, lr, 0.5)
            # Gradients are computed before any of them updates, so the rule holds up to lr^2.
            for a, b, before in zip(made, expected, start, strict=True):
                np.testing.assert_allclose(a, b, atol=4 * lr**2 * negatives)
                assert np.abs(a - before).max() > 0.1 * lr
            assert loss == pytest.approx(seen, abs=4 * lr * negatives)


def test_small_steps_go_down_the_gradient_of_the_loss_over_all_items():
    # With many negatives their sum is close to its expectation, n times a uniform draw from the catalogue.
    user, item = interactions(300, 12, 30, seed=3)
    sizes, lr, m = (12, 30), 1e-6, 400
    start = tables(*sizes)
    made, _, _ = train(8, 1, 1, m, (user, item), sizes, rate=lr, l2=0.0)
    p, q, bu, bi, b = (table.astype(np.float64) for table in start)
    s = 1 / (1 + np.exp(-(b + bu[:, None] + bi + p @ q.T)))
    chosen = np.zeros(sizes)
    np.add.at(chosen, (user, item), 1)
    drawn = np.repeat(chosen.sum(1, keepdims=True) * m / (sizes[1] - 1), sizes[1], 1)
    drawn[:, 0] = 0
    g = chosen * (1 - s) - drawn * s
    expected = g @ q, g.T @ p, g.sum(1), g.sum(0)
    for after, before, want in zip(made, start, expected, strict=False):
        step, want = (after.astype(np.float64) - before)[1:] / lr, want[1:]
        assert np.linalg.norm(step - want) < 0.1 * np.linalg.norm(want)


def test_loss_is_the_logistic_loss_of_the_samples():
    user, item = interactions()
    zero = LogisticTables(*(np.zeros_like(table) for table in tables()))
    fit = SampledLogistic(user, item, 90, 140, negatives=7, seed=0, threads=1)
    assert fit.samples == len(user) * 8
    assert fit.epoch(0, zero, 0.0, 0.0) == pytest.approx(fit.samples * math.log(2), rel=1e-6)
    sure = zero._replace(global_bias=np.full(1, -9, np.float32))
    expected = len(user) * math.log1p(math.exp(9)) + 7 * len(user) * math.log1p(math.exp(-9))
    assert fit.epoch(0, sure, 0.0, 0.0) == pytest.approx(expected, rel=1e-4)
    for bias in (-1e4, 1e4):  # the loss of a sample is bounded
        lost = fit.epoch(0, zero._replace(global_bias=np.full(1, bias, np.float32)), 0.0, 0.0)
        assert 10 * len(user) < lost < 17 * fit.samples


def test_it_learns_the_interactions():
    rng = np.random.default_rng(0)
    user = rng.integers(1, 201, 8000).astype(np.int32)
    item = (rng.integers(0, 150, 8000) * 2 + 1 + user % 2).astype(np.int32)  # even users have odd items
    fit = SampledLogistic(user, item, 201, 301, negatives=4, seed=0, threads=1)
    made, losses = tables(201, 301, 8, std=0.1), []
    for number in range(10):
        losses.append(fit.epoch(number, made, 0.1, 0.001))
    assert losses[-1] < 0.8 * losses[0]
    score = made.user_factors @ made.item_factors.T + made.item_bias
    own = (np.arange(301) - 1) % 2 == (np.arange(201) % 2)[:, None]
    assert (score[1:][own[1:]]).mean() > score[1:][~own[1:]].mean() + 2


# Samples ---------------------------------------------------------------------------------------------------------


def samples(cells, negatives, size, seed=0):
    """All samples of an epoch as the kernel draws them: user, item, label and cell of each."""
    drawn = draw_epoch(cells, negatives, size, np.random.default_rng(seed))
    found = []
    for stage in drawn.stages:
        for cell in stage:
            a, b = divmod(cell, GRID)
            order = np.arange(cells.starts[cell], cells.starts[cell + 1])
            negative_user = drawn.negative_user[drawn.cuts[a, b] : drawn.cuts[a, b + 1]]
            state, cursor, owner, ends = drawn.states[cell], np.zeros(2, np.int64), np.zeros(7, int), np.zeros(8, int)
            sample, sign = np.zeros(7 * size, int), np.zeros(7 * size, np.float32)
            candidates = cells.candidates[cells.ends[b] : cells.ends[b + 1]]
            while True:
                here, state = next_samples(
                    cells.user, cells.item, order, negative_user, candidates, size, cursor, np.uint64(state), owner,
                    ends, sample, sign,
                )  # fmt: skip
                if here == 0:
                    break
                users = np.repeat(owner[:here], np.diff(ends[: here + 1]))
                found += [np.stack([users, sample[: ends[here]], sign[: ends[here]] > 0, np.full(ends[here], cell)])]
    return np.concatenate(found, 1)


@pytest.mark.parametrize(("users", "items", "n"), [(90, 140, 1200), (2, 2, 3), (5, 40, 60), (700, 3, 900), (3, 700, 9)])
def test_an_epoch_has_every_interaction_once_with_its_negatives(users, items, n):
    user, item = interactions(n, users, items)
    for negatives, size in ((1, 1), (6, 3), (8, 8)):
        found = samples(make_cells(user, item, users, items, np.random.default_rng(0)), negatives, size)
        chosen, drawn = found[:, found[2] == 1], found[:, found[2] == 0]
        assert sorted(zip(*chosen[:2].tolist(), strict=True)) == sorted(zip(user.tolist(), item.tolist(), strict=True))
        counts = np.bincount(drawn[0].astype(int), minlength=users)
        assert np.array_equal(counts, negatives * np.bincount(user, minlength=users))
        assert drawn[1].min() >= 1 and drawn[1].max() < items


def test_cells_of_a_stage_have_no_user_and_no_item_in_common():
    cells = make_cells(*interactions(4000, 600, 700), 600, 700, np.random.default_rng(0))
    found = samples(cells, 8, 8).astype(int)
    for stage in draw_epoch(cells, 8, 8, np.random.default_rng(0)).stages:
        for side in (0, 1):
            indices = [set(found[side, found[3] == cell]) for cell in stage]
            assert sum(map(len, indices)) == len(set.union(*indices))
    assert len(set(found[3])) == GRID * GRID


@pytest.mark.parametrize("items", [6, 50, 303])
def test_negatives_are_uniform_over_the_catalogue_for_every_user(items):
    # Popularity must not matter: half of all interactions are with item 1. 303 - 1 items do not divide into groups.
    user, item = interactions(2000, 30, items)
    item[::2] = 1
    cells = make_cells(user, item, 30, items, np.random.default_rng(0))
    drawn = np.concatenate([samples(cells, 8, 4, seed) for seed in range(20)], 1)
    drawn = drawn[:, drawn[2] == 0].astype(int)
    counts = np.bincount(drawn[1], minlength=items)
    assert counts[0] == 0
    n, p = drawn.shape[1], 1 / (items - 1)
    chi2 = ((counts[1:] - n * p) ** 2 / (n * p)).sum()
    assert chi2 < items + 5 * math.sqrt(2 * items)
    of_one = np.bincount(drawn[1, drawn[0] == 7], minlength=items)[1:]
    n = of_one.sum()
    # Groups of 4 are drawn from one group of items: clustered draws have a larger variance.
    assert ((of_one - n * p) ** 2 / (n * p)).sum() < 2 * (items + 5 * math.sqrt(2 * items))


def test_negatives_differ_between_epochs():
    cells = make_cells(*interactions(), 90, 140, np.random.default_rng(0))
    one, two = (samples(cells, 4, 4, seed) for seed in (0, 1))
    assert np.array_equal(one, samples(cells, 4, 4, 0))
    assert one.shape == two.shape and not np.array_equal(one, two)


# Edges -----------------------------------------------------------------------------------------------------------


def test_index_0_is_neither_trained_nor_drawn():
    user, item = interactions()
    user[:100], item[50:150] = 0, 0
    made, _, fit = train(columns=(user, item))
    assert fit.samples == 4 * (len(user) - 150)
    for table in made[:4]:
        assert not table[0].any()


@pytest.mark.parametrize("sizes", [(2, 2), (2, 20), (30, 2), (1, 1), (40, 1)])
def test_tiny_tables_and_empty_columns(sizes):
    for n in (0, 1, 5):
        columns = [np.full(n, min(1, rows - 1), np.int32) for rows in sizes]
        made, losses, fit = train(8, 2, columns=columns, sizes=sizes)
        known = n if min(sizes) > 1 else 0
        assert fit.samples == 4 * known
        assert all(np.isfinite(table).all() for table in made)
        assert losses[0] == 0 if known == 0 else losses[0] > 0
        if known == 0:
            assert same_bits(made, tables(*sizes))


def test_negatives_are_divided_into_groups_of_equal_size():
    for negatives, size in ((1, 1), (16, 16), (17, 1), (20, 10), (32, 16), (100, 10)):
        fit = SampledLogistic(*interactions(), 90, 140, negatives=negatives, seed=0, threads=1)
        assert fit.size == size <= MAX_GROUP


def test_a_dim_is_compiled_once():
    assert kernel(8) is kernel(8)
    assert kernel(8) is not kernel(16)


@pytest.mark.parametrize("options", [{"negatives": 0}, {"threads": 0}])
def test_options_out_of_range_are_rejected(options):
    with pytest.raises(ConfigError, match="at least 1"):
        SampledLogistic(*interactions(), 90, 140, **{"negatives": 1, "seed": 0, "threads": 1, **options})


def test_columns_out_of_range_are_rejected():
    user, item = interactions()
    for columns, message in (
        ((user.astype(np.int64), item), "int32"),
        ((user[:-1], item), "int32"),
        ((user, item + 1), r"item indices must be in \[0, 140\)"),
        ((user - 2, item), "user indices"),
    ):
        with pytest.raises(DataError, match=message):
            SampledLogistic(*columns, 90, 140, negatives=1, seed=0, threads=1)


def test_tables_of_another_shape_or_type_are_rejected():
    fit, good = SampledLogistic(*interactions(), 90, 140, negatives=1, seed=0, threads=1), tables()
    for bad in (
        {"user_factors": good.user_factors[:-1]},
        {"item_factors": np.asfortranarray(good.item_factors)},
        {"item_factors": good.item_factors[:, :4]},
        {"user_factors": good.user_factors.astype(np.float64)},
        {"item_bias": good.item_bias[:, None]},
        {"global_bias": good.global_bias[0]},
        {"user_factors": good.user_factors[:, :0], "item_factors": good.item_factors[:, :0]},
    ):
        with pytest.raises(DataError, match=next(iter(bad))):
            fit.epoch(0, good._replace(**bad), 0.1, 0.0)
