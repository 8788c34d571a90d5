"""Networks: their common contract, and known answers of each."""

import numpy as np
import pytest
import torch

from cflightning.models.embedding_dot import EmbeddingDot, LogitsAndNorms
from cflightning.models.embedding_mlp import EmbeddingMLP
from cflightning.models.network import RatingScale
from cflightning.testing import NetworkContract


class TestEmbeddingDot(NetworkContract):
    def make(self, num_users, num_items, **kwargs):
        return EmbeddingDot(num_users, num_items, dim=4, **kwargs)


class TestEmbeddingMLP(NetworkContract):
    def make(self, num_users, num_items, **kwargs):
        return EmbeddingMLP(num_users, num_items, dim=4, hidden=(6, 5), **kwargs)


def test_embedding_dot_is_the_formula_of_the_book():
    torch.manual_seed(0)
    network = EmbeddingDot(5, 6, dim=3, rating_range=(0.5, 5.5), mean_rating=3.0, std=1.0)
    with torch.no_grad():
        network.user_bias.weight[1:] = torch.randn(4, 1)
        network.item_bias.weight[1:] = torch.randn(5, 1)
    users, items = np.array([1, 4, 0, 3]), np.array([5, 1, 2, 0])
    p, q = network.user_factors.weight.detach().numpy(), network.item_factors.weight.detach().numpy()
    b, c = network.user_bias.weight.detach().numpy()[:, 0], network.item_bias.weight.detach().numpy()[:, 0]
    logit = (p[users] * q[items]).sum(1) + b[users] + c[items] + network.global_bias.item()
    expected = 0.5 + (5.5 - 0.5) / (1 + np.exp(-logit))
    for mode in (network.train(), network.eval()):
        actual = mode(torch.from_numpy(users), torch.from_numpy(items)).detach().numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert network.global_bias.item() == pytest.approx(0.0, abs=1e-6)  # 3 is the middle of 0.5 to 5.5


def test_the_hand_written_gradient_equals_finite_differences():
    torch.manual_seed(0)
    shapes = (5, 3), (6, 3), (5, 1), (6, 1)
    tables = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    users, items = torch.tensor([1, 4, 1, 3, 1]), torch.tensor([5, 1, 5, 2, 3])  # a pair and a user twice
    rows = users, items, users, items
    shares = torch.rand(5, dtype=torch.float64), 0.1
    for means in ([None] * 4, [torch.randn(shape, dtype=torch.float64) for shape in shapes]):
        at = [mean if mean is None else mean[row] for mean, row in zip(means, rows, strict=True)]
        assert torch.autograd.gradcheck(lambda *t, at=at: LogitsAndNorms.apply(*t, users, items, *shares, *at), tables)
        p, q, b, c = tables
        logits, norms, others = LogitsAndNorms.apply(*tables, users, items, *shares, *at)
        torch.testing.assert_close(logits, (p[users] * q[items]).sum(1) + b[users, 0] + c[items, 0])
        zero = [torch.zeros_like(table) if mean is None else mean for mean, table in zip(means, tables, strict=True)]
        p, q, b, c = (table - mean for table, mean in zip(tables, zero, strict=True))
        torch.testing.assert_close(norms, p[users].square().sum(1) + shares[0] * b[users, 0] ** 2)
        torch.testing.assert_close(others, q[items].square().sum(1) + 0.1 * c[items, 0] ** 2)


def test_a_network_without_svdpp_terms_refuses_prior_means():
    network = EmbeddingMLP(5, 6, dim=3)
    with pytest.raises(NotImplementedError, match="EmbeddingMLP has no prior means"):
        network.scores_and_norms(torch.tensor([1]), torch.tensor([1]), {"user_factors": torch.zeros(5, 3)})


def test_mlp_is_a_perceptron_of_the_concatenation():
    torch.manual_seed(0)
    network = EmbeddingMLP(5, 6, dim=3, hidden=(4,), std=1.0)
    users, items = torch.tensor([1, 4]), torch.tensor([5, 0])
    x = torch.cat([network.user_factors.weight[users], network.item_factors.weight[items]], 1)
    hidden = torch.relu(x @ network.first.weight.T + network.first.bias)
    last = network.rest[-1]
    torch.testing.assert_close(network(users, items), (hidden @ last.weight.T + last.bias)[:, 0])


def test_without_a_range_the_score_is_the_logit():
    scale = RatingScale(None)
    x = torch.tensor([-1e6, 0.0, 1e6])
    assert scale.eval()(x).tolist() == x.tolist()
    assert scale.inverse(3.3) == 3.3


def test_scale_without_sigmoid_clips_outside_training_only():
    scale = RatingScale((1, 5), sigmoid=False)
    x = torch.tensor([-2.0, 3.0, 9.0])
    assert scale.train()(x).tolist() == [-2, 3, 9]
    assert scale.eval()(x).tolist() == [1, 3, 5]


def test_margin_lets_the_ends_be_reached():
    scale = RatingScale((1, 5), margin=0.125)
    assert (scale.low, scale.high) == (0.5, 5.5)
    x = torch.tensor([-50.0, 0.0, 50.0])
    assert scale.train()(x).tolist() == [0.5, 3.0, 5.5]
    assert scale.eval()(x).tolist() == [1.0, 3.0, 5.0]


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_inverse_inverts_the_scale(margin):
    scale = RatingScale((-10, 10), margin=margin)
    for rating in (-9.9, 0.0, 7.3):
        assert float(scale(torch.tensor(scale.inverse(rating)))) == pytest.approx(rating, abs=1e-4)
    assert np.isfinite([scale.inverse(-10), scale.inverse(10), scale.inverse(99)]).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: EmbeddingDot(0, 5),
        lambda: EmbeddingDot(5, 5, dim=0),
        lambda: EmbeddingMLP(5, 5, hidden=()),
        lambda: RatingScale((5, 1)),
        lambda: RatingScale((1, 1)),
        lambda: RatingScale((1, 5), margin=-1),
    ],
)
def test_invalid_sizes_and_ranges_are_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()


def test_a_network_of_unknown_ids_alone_predicts_the_mean():
    network = EmbeddingDot(1, 1, dim=2, rating_range=(1, 5), mean_rating=4.0).eval()
    assert network(torch.tensor([0]), torch.tensor([0])).item() == pytest.approx(4.0, abs=1e-5)
