"""The compiled sampled softmax: equal to autograd of the objective, and independent of the number of threads."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="compiled steps need the extra `fast`")

from cflightning.errors import ConfigError, DataError
from cflightning.kernels.sampled_softmax import SampledSoftmax, stratify, unit_vectors
from cflightning.kernels.softmax_step import BLOCK, GRID, exponentials
from cflightning.objectives.sampled_loss import pair_scores
from cflightning.objectives.softmax import softmax_loss

USERS, ITEMS = 40, 90


def interactions(n=700, users=USERS, items=ITEMS, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, users, n), rng.integers(1, items, n)


def tables(dim, users=USERS, items=ITEMS):
    return tuple(
        unit_vectors(np.random.default_rng(seed).standard_normal((size, dim), dtype=np.float32))
        for seed, size in ((1, users), (2, items))
    )


class PythonGenerator:
    """The generator of `kernels.prng` in integers of Python."""

    def __init__(self, seed):
        self.state = (seed * 0x9E3779B97F4A7C15) % 2**64 | 1

    def bounded(self, n):
        s = self.state
        s ^= (s << 13) % 2**64
        s ^= s >> 7
        s ^= (s << 17) % 2**64
        self.state = s
        return (((s * 0x2545F4914F6CDD1D) % 2**64 >> 32) * n) >> 32


def update(table, at, gradient, squares, rate):
    vector = table[at]
    gradient = gradient - (gradient * vector).sum() * vector
    squares[at] += (gradient**2).mean()
    vector = vector - rate * gradient / (math.sqrt(squares[at]) + 1e-6)
    table[at] = vector / np.linalg.norm(vector)


def reference_epoch(user, item, users, items, number, squares, negatives, temperature, seed, rate):
    """The rule of `sampled_softmax` in float64, with gradients by autograd of the objective."""
    rng = np.random.default_rng([seed, number])
    cells = stratify(user.astype(np.int32), item.astype(np.int32), len(users), len(items), rng)
    kernel_seed, loss = int(rng.integers(1 << 62)), 0.0
    for shift in rng.permutation(GRID):
        for a in range(GRID):
            cell = a * GRID + (a + shift) % GRID
            pool = cells.items[cells.groups[cell % GRID] : cells.groups[cell % GRID + 1]]
            generator = PythonGenerator(kernel_seed + int(cell) + 1)
            for low in range(cells.starts[cell], cells.starts[cell + 1], BLOCK):
                block = slice(low, min(low + BLOCK, cells.starts[cell + 1]))
                users_in, items_in = cells.user[block], cells.item[block]
                for j in range(min(negatives, len(pool))):
                    other = j + generator.bounded(len(pool) - j)
                    pool[[j, other]] = pool[[other, j]]
                drawn = pool[: min(negatives, len(pool))].copy()
                assert len(set(drawn.tolist())) == len(drawn) and 0 not in drawn
                p, q, others = (
                    torch.tensor(vectors, requires_grad=True)
                    for vectors in (users[users_in], items[items_in], items[drawn])
                )
                hits = torch.tensor(items_in[:, None] == drawn)
                cost = softmax_loss(*pair_scores(p, q, others, hits), temperature=temperature, inside=False)
                cost.backward()
                loss += cost.item()
                for b in range(len(users_in)):
                    update(users, users_in[b], p.grad[b].numpy(), squares[0], rate)
                    update(items, items_in[b], q.grad[b].numpy(), squares[1], rate)
                for j, n in enumerate(drawn):
                    update(items, n, others.grad[j].numpy(), squares[1], rate)
    return loss / len(user)


@pytest.mark.parametrize(
    ("n", "dim", "negatives"),
    [(700, 16, 8), (700, 5, 64), (12_000, 20, 6), (3, 1, 2)],
    ids=["plain", "all items of a group", "several blocks of a cell", "few"],
)
def test_epochs_equal_the_reference(n, dim, negatives):
    user, item = interactions(n)
    options = {"negatives": negatives, "temperature": 0.2, "seed": 3}
    p, q = tables(dim)
    reference = p.astype(float), q.astype(float)
    squares = np.zeros(USERS), np.zeros(ITEMS)
    step = SampledSoftmax(user, item, USERS, ITEMS, **options)
    for number in range(2 if n < 10_000 else 1):
        expected = reference_epoch(user, item, *reference, number, squares, **options, rate=0.05)
        assert step.epoch(number, p, q, 0.05) == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(p, reference[0], atol=2e-3 if dim == 1 else 5e-4)
        np.testing.assert_allclose(q, reference[1], atol=2e-3 if dim == 1 else 5e-4)
        np.testing.assert_allclose(step.squares[0], squares[0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(step.squares[1], squares[1], rtol=1e-3, atol=1e-6)


def trained(threads=1, seed=0, **options):
    user, item = interactions(5000, 300, 400)
    p, q = tables(24, 300, 400)
    step = SampledSoftmax(user, item, 300, 400, negatives=32, threads=threads, seed=seed, **options)
    losses = [step.epoch(number, p, q, 0.1) for number in range(2)]
    return p, q, *step.squares, np.array(losses)


@pytest.mark.parametrize("threads", [2, 3, 20])
def test_the_result_does_not_depend_on_the_number_of_threads(threads):
    for one, other in zip(trained(), trained(threads), strict=True):
        assert np.array_equal(one, other)


def test_draws_depend_on_the_seed():
    assert np.array_equal(trained()[0], trained()[0])
    assert not np.array_equal(trained()[0], trained(seed=1)[0])


def test_vectors_keep_length_one_and_index_0_stays_zero():
    p, q, *squares, _ = trained()
    for table, square in zip((p, q), squares, strict=True):
        np.testing.assert_allclose(np.linalg.norm(table[1:], axis=1), 1, atol=1e-5)
        assert not table[0].any() and square[0] == 0
        assert square[1:].all()


def test_training_resumes_from_tables_and_accumulators():
    user, item = interactions()
    whole, first = (SampledSoftmax(user, item, USERS, ITEMS, negatives=8) for _ in range(2))
    p, q = tables(8)
    u, v = p.copy(), q.copy()
    for number in range(4):
        whole.epoch(number, p, q, 0.1)
    for number in range(2):
        first.epoch(number, u, v, 0.1)
    second = SampledSoftmax(user, item, USERS, ITEMS, negatives=8)
    second.squares = first.squares
    for number in range(2, 4):
        second.epoch(number, u, v, 0.1)
    assert np.array_equal(p, u) and np.array_equal(q, v)


def test_it_learns_the_interactions():
    # One half of the users has interactions with one half of the items, the other half with the other.
    rng = np.random.default_rng(0)
    user = rng.integers(1, 201, 4000)
    item = rng.integers(0, 50, 4000) * 2 + user % 2 + 1
    p, q = tables(8, 201, 101)
    step = SampledSoftmax(user, item, 201, 101, negatives=12, temperature=0.2)
    losses = [step.epoch(number, p, q, 0.3) for number in range(6)]
    assert losses[-1] < 0.6 * losses[0]
    best = np.argsort(-(p[1:] @ q[1:].T), axis=1)[:, :20]
    assert (best % 2 == np.arange(1, 201)[:, None] % 2).mean() > 0.99


def test_users_without_interactions_are_unchanged():
    user, item = interactions()
    user[user == 7] = 8
    p, q = tables(8)
    before = p[7].copy()
    SampledSoftmax(user, item, USERS, ITEMS, negatives=8).epoch(0, p, q, 0.1)
    assert np.array_equal(p[7], before)
    p, q = tables(8)
    nothing = np.empty(0, np.int64)
    assert math.isnan(SampledSoftmax(nothing, nothing, USERS, ITEMS).epoch(0, p, q, 0.1))
    assert np.array_equal(p, tables(8)[0]) and np.array_equal(q, tables(8)[1])


def test_zero_vectors_get_a_direction_from_their_interactions():
    user, item = interactions()
    p, q = tables(8)
    p[5:9], q[5:9] = 0, 0
    p, q = unit_vectors(2 * p), unit_vectors(q)
    np.testing.assert_allclose(p, np.where(np.isin(np.arange(USERS), range(5, 9))[:, None], 0, tables(8)[0]), atol=1e-6)
    SampledSoftmax(user, item, USERS, ITEMS, negatives=8).epoch(0, p, q, 0.1)
    np.testing.assert_allclose(np.linalg.norm(p[1:], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(q[1:], axis=1), 1, atol=1e-5)
    p, q = np.zeros_like(p), np.zeros_like(q)  # without a gradient
    SampledSoftmax(user, item, USERS, ITEMS, negatives=8).epoch(0, p, q, 0.1)
    assert not p.any() and not q.any()
    assert unit_vectors(np.ones((3, 4), np.float32, order="F")).flags.c_contiguous


def test_cells_contain_every_interaction_once():
    user, item = interactions()
    cells = stratify(user.astype(np.int32), item.astype(np.int32), USERS, ITEMS, np.random.default_rng(0))
    assert sorted(zip(cells.user, cells.item, strict=True)) == sorted(zip(user, item, strict=True))
    assert sorted(cells.items) == list(range(1, ITEMS))
    assert np.ptp(np.diff(cells.groups)) <= 1
    users = [set(cells.user[cells.starts[a * GRID] : cells.starts[(a + 1) * GRID]]) for a in range(GRID)]
    assert sum(map(len, users)) == len(set.union(*users))
    for cell in range(GRID * GRID):
        group = cells.items[cells.groups[cell % GRID] : cells.groups[cell % GRID + 1]]
        assert np.isin(cells.item[cells.starts[cell] : cells.starts[cell + 1]], group).all()


def test_exponentials_are_accurate():
    n, low = 64, 16
    x = np.random.default_rng(0).uniform(-1, 1, 128).astype(np.float32)
    x[low : low + 3] = 1, -1, -1e4
    given = x.copy()
    powers = np.empty(n, np.float32)
    scale = np.float32(12.5 * math.log2(math.e))
    total = exponentials(x, low, n, scale, scale, powers.view(np.int32), np.empty(n, np.float32), powers)
    expected = np.exp(12.5 * (given.astype(float) - 1))
    # An exponent of up to 36 is rounded to 1.9e-6, and twice where no instruction fuses its product and its sum.
    np.testing.assert_allclose(x[low : low + n], expected[low : low + n], rtol=3e-6, atol=1e-36)
    assert total == pytest.approx(expected[low : low + n].sum(), rel=1e-5)
    assert np.array_equal(x[:low], given[:low]) and np.array_equal(x[low + n :], given[low + n :])


def test_arguments_out_of_range_are_rejected():
    user, item = interactions()
    for options, text in (
        ({"negatives": 1}, "negatives must be at least 2, got 1"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"temperature": 0.01}, "temperature must be at least 0.025, got 0.01"),
        ({"temperature": math.nan}, "temperature must be at least 0.025, got nan"),
    ):
        with pytest.raises(ConfigError, match=text):
            SampledSoftmax(user, item, USERS, ITEMS, **options)
    with pytest.raises(ConfigError, match="num_items must be more than 16, got 16"):
        SampledSoftmax(user[:0], item[:0], USERS, 16)
    with pytest.raises(DataError, match=r"two columns of one length, got \[700\] and \[699\]"):
        SampledSoftmax(user, item[1:], USERS, ITEMS)
    with pytest.raises(DataError, match="item must be at least 1 and below 80, got"):
        SampledSoftmax(user, item, USERS, 80)
    user[3] = 0
    with pytest.raises(DataError, match="user must be at least 1 and below 40, got 1 others"):
        SampledSoftmax(user, item, USERS, ITEMS)
    step = SampledSoftmax(*interactions(), USERS, ITEMS)
    p, q = tables(8)
    for wrong in (p.astype(float), p[1:], np.asfortranarray(p), p[:, 0]):
        with pytest.raises(DataError, match=r"must be contiguous float32 \[40, dim\], got float"):
            step.epoch(0, wrong, q, 0.1)
    with pytest.raises(DataError, match="of one dim, got 8 and 7"):
        step.epoch(0, p, q[:, 1:].copy(), 0.1)
