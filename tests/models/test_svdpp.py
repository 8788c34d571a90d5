"""SVD++ terms against the dense formulas, and against the solution to which their steps converge."""

import math

import numpy as np
import pytest
import torch

from cflightning.models.svdpp import SvdppTerm
from cflightning.utils.interactions import Interactions

USERS, ITEMS, DIM = 9, 7, 3


def pairs(n=25, seed=0):
    """Distinct pairs; index 0, user 5 and item 6 have none."""
    rng = np.random.default_rng(seed)
    known = [(user, item) for user in range(1, USERS) for item in range(1, ITEMS - 1) if user != 5]
    chosen = [known[at] for at in rng.choice(len(known), n, replace=False)]
    return (torch.tensor(column, dtype=torch.int32) for column in zip(*chosen, strict=True))


def make(kind=SvdppTerm, penalty=1.4, exponent=0.6):
    user, item = pairs()
    met = np.zeros((USERS, ITEMS))
    met[user, item] = 1
    return kind(*Interactions.from_pairs(user, item, USERS, ITEMS), DIM, exponent, penalty), met


def dense(met, penalty=1.4, exponent=0.6):
    """Matrix B of the term (mean = B y), precisions of the vectors and penalties of y, from the definition."""
    counts, others = met.sum(1), met.sum(0)
    weight = np.sqrt(np.maximum(counts, 1) - 1) / np.maximum(counts, 1)
    precision = np.maximum(counts, 1) * (np.maximum(counts, 1) / 50) ** -exponent
    return weight[:, None] * met, precision, penalty * others * (np.maximum(others, 1) / 50) ** -exponent


def test_a_user_with_one_rating_has_no_term():
    user, item = torch.tensor([1, 2, 2, 3, 3, 3]), torch.tensor([1, 1, 2, 1, 2, 3])
    term = SvdppTerm(*Interactions.from_pairs(user, item, 4, 4), DIM, 0.6)
    assert term.weight.squeeze(1).tolist() == pytest.approx([0, 0, 1 / 2, math.sqrt(2) / 3])
    table = torch.randn(4, DIM, generator=torch.Generator().manual_seed(0))
    alone = table[1].clone()
    for _ in range(3):
        term.step(table)
    assert torch.equal(table[1], alone)
    assert not term.mean[1].any()
    assert term.mean[2:].all()
    assert term.mean.isfinite().all()


def test_a_larger_penalty_gives_smaller_vectors():
    steps = {}
    for multiple in (1.0, 5.0, 1000.0):
        term, _ = make(penalty=2.0)
        other, _ = make(penalty=2.0 * multiple)
        for one in (term, other):
            if one is term:
                one.scale_penalty(7.0)  # the last multiple counts, relative to the initial penalty
                one.scale_penalty(multiple)
            table = torch.randn(USERS, DIM, generator=torch.Generator().manual_seed(0))
            for _ in range(20):
                one.step(table)
        torch.testing.assert_close(term.vectors, other.vectors)
        steps[multiple] = term.vectors.norm()
    assert steps[1.0] > 2 * steps[5.0] > 100 * steps[1000.0]


def test_a_step_is_steepest_descent_with_exact_line_search():
    term, met = make()
    matrix, precision, penalties = dense(met)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(USERS, DIM, generator=generator)
    before = table.clone().numpy()
    curvature = (matrix**2 * precision[:, None]).sum(0) + np.maximum(penalties, 1e-6)
    change = matrix.T @ (precision[:, None] * before) / curvature[:, None]

    def objective(y):
        return (precision[:, None] * (before - matrix @ y) ** 2).sum(0) + (penalties[:, None] * y**2).sum(0)

    term.step(table)
    length = term.vectors.numpy()[1] / change[1]
    np.testing.assert_allclose(term.vectors.numpy(), length * change, rtol=1e-4, atol=1e-6)
    assert (objective(length * change) < objective(0.98 * length * change)).all()
    assert (objective(length * change) < objective(1.02 * length * change)).all()
    np.testing.assert_allclose(term.mean.numpy(), matrix @ term.vectors.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table.numpy(), before + term.mean.numpy(), rtol=1e-4, atol=1e-6)
    assert not table[5].ne(torch.from_numpy(before)[5]).any()  # a user without pairs stays


def test_steps_converge_to_the_minimum_of_svdpp():
    # With rows whose own part never changes, y must become the solution of B' W (own) = penalties y.
    term, met = make()
    matrix, precision, penalties = dense(met)
    own = torch.randn(USERS, DIM, generator=torch.Generator().manual_seed(1))
    table = own.clone()
    for _ in range(300):
        term.step(table)
    expected = matrix.T @ (precision[:, None] * own.numpy()) / np.maximum(penalties, 1e-6)[:, None]
    np.testing.assert_allclose(term.vectors.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_vectors_are_first_pulled_towards_their_means_by_the_share():
    term, _ = make()
    table = torch.randn(USERS, DIM, generator=torch.Generator().manual_seed(2))
    term.step(table)
    mean, before = term.mean.clone(), table.clone()
    same, _ = make()
    same.vectors.copy_(term.vectors)
    same.mean.copy_(term.mean)
    share = torch.linspace(0, 0.5, USERS)
    pulled = before + share[:, None] * (mean - before)
    term.step(table, share)
    same.step(pulled)
    torch.testing.assert_close(table, pulled)
    torch.testing.assert_close(term.vectors, same.vectors)
