"""Ranking losses: their values against plain loops, their gradients against differences, and their edge cases."""

import math
from functools import partial

import pytest
import torch

from cflightning.errors import ConfigError
from cflightning.objectives.bce import bce_loss
from cflightning.objectives.bpr import bpr_loss
from cflightning.objectives.ccl import ccl_loss
from cflightning.objectives.softmax import softmax_loss


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def slow_bce(s, others):
    return -math.log(sigmoid(s)) - sum(math.log(1 - sigmoid(x)) for x in others)


def slow_bpr(s, others):
    return sum(-math.log(sigmoid(s - x)) for x in others) / len(others)


def slow_softmax(s, others, t=1.0, q=None, inside=True):
    terms = [math.exp(x / t) / (1 if q is None else len(others) * q[j]) for j, x in enumerate(others)]
    return math.log(sum(terms) + inside * math.exp(s / t)) - s / t


def slow_ccl(s, others, margin=0.0, weight=1.0):
    return 1 - s + weight * sum(max(0, x - margin) for x in others) / len(others)


Q = torch.tensor([0.1, 0.2, 0.05, 0.3], dtype=torch.float64)
CASES = {
    "bce": (bce_loss, slow_bce),
    "bpr": (bpr_loss, slow_bpr),
    "softmax": (softmax_loss, slow_softmax),
    "outside": (
        partial(softmax_loss, temperature=0.2, inside=False),
        partial(slow_softmax, t=0.2, inside=False),
    ),
    "corrected": (
        partial(softmax_loss, temperature=0.5, log_q=Q.log()),
        partial(slow_softmax, t=0.5, q=Q.tolist()),
    ),
    "ccl": (partial(ccl_loss, margin=0.3, weight=7.0), partial(slow_ccl, margin=0.3, weight=7.0)),
}


def scores(batch=5, m=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, generator=generator, dtype=dtype), torch.randn(batch, m, generator=generator, dtype=dtype)


@pytest.mark.parametrize("name", CASES)
def test_losses_equal_a_plain_loop_and_add_up_over_a_batch(name):
    objective, slow = CASES[name]
    positive, negatives = scores()
    expected = sum(slow(s, row) for s, row in zip(positive.tolist(), negatives.tolist(), strict=True))
    assert objective(positive, negatives).item() == pytest.approx(expected)
    # A batch is the sum of its rows, whatever rows it has.
    parts = [objective(positive[part], negatives[part]) for part in torch.arange(5).split(2)]
    torch.testing.assert_close(sum(parts), objective(positive, negatives))


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_finite_differences(name):
    positive, negatives = (score.requires_grad_() for score in scores())
    assert torch.autograd.gradcheck(CASES[name][0], (positive, negatives))


@pytest.mark.parametrize("name", CASES)
def test_a_negative_with_score_minus_infinity_takes_no_part(name):
    objective, _ = CASES[name]
    positive, negatives = (score.requires_grad_() for score in scores())
    hidden = torch.zeros(5, 4, dtype=torch.bool)
    hidden[0, 1] = hidden[2, 0] = hidden[2, 3] = True
    loss = objective(positive, negatives.masked_fill(hidden, -math.inf))
    loss.backward()
    assert loss.isfinite()
    assert positive.grad.isfinite().all() and positive.grad.all()
    assert negatives.grad.isfinite().all() and not negatives.grad[hidden].any()
    positive, negatives = positive.detach(), negatives.detach()
    far = negatives.masked_fill(hidden, -60.0)  # as good as nothing in float64
    torch.testing.assert_close(loss.detach(), objective(positive, far))


@pytest.mark.parametrize("name", CASES)
def test_large_scores_stay_finite(name):
    objective, _ = CASES[name]
    positive = torch.tensor([200.0, -200.0], requires_grad=True)
    negatives = torch.tensor([[-200.0] * 4, [200.0] * 4], requires_grad=True)
    loss = objective(positive, negatives)
    loss.backward()
    assert loss.isfinite() and positive.grad.isfinite().all() and negatives.grad.isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_the_loss_of_an_empty_batch_is_zero(name):
    positive, negatives = torch.zeros(0, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    loss = CASES[name][0](positive, negatives)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("objective", [bce_loss, bpr_loss, softmax_loss, ccl_loss])
def test_losses_without_negatives_are_finite(objective):
    assert objective(torch.tensor([0.5]), torch.empty(1, 0)).isfinite()


def test_bpr_and_softmax_with_one_negative_are_the_logistic_loss_of_the_difference():
    s, x = torch.tensor([0.4]), torch.tensor([[-0.3]])
    assert bpr_loss(s, x).item() == pytest.approx(-math.log(sigmoid(0.7)))
    assert softmax_loss(s, x).item() == pytest.approx(
        bpr_loss(s, x).item()
    )  # a softmax over two is a logistic difference


def test_the_corrected_softmax_of_popular_samples_is_unbiased():
    # With the correction, the mean of the denominators over many draws is that of all items.
    generator = torch.Generator().manual_seed(0)
    q = torch.tensor([0.5, 0.3, 0.15, 0.05])
    item_scores = torch.tensor([0.1, -0.4, 1.2, 0.9])
    drawn = torch.multinomial(q.expand(4000, 4), 50, replacement=True, generator=generator)
    positive = torch.zeros(4000)
    losses = torch.stack(
        [softmax_loss(positive[:1], item_scores[row][None], log_q=q.log()[row], inside=False) for row in drawn]
    )
    assert losses.exp().mean().item() == pytest.approx(item_scores.exp().sum().item(), rel=0.01)


def test_values_out_of_range_are_refused():
    positive, negatives = scores()
    for temperature in (0, -1, math.nan):
        with pytest.raises(ConfigError, match="temperature must be above 0, got"):
            softmax_loss(positive, negatives, temperature=temperature)
    with pytest.raises(ConfigError, match="margin must be -1 to 1 and weight at least 0, got 2 and 1"):
        ccl_loss(positive, negatives, margin=2, weight=1)
    with pytest.raises(ConfigError, match="got 0 and -1"):
        ccl_loss(positive, negatives, margin=0, weight=-1)
