"""Scores of a batch from shared and from own negative samples, cosines, and dropout."""

import math

import pytest
import torch

from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.ccl import CclSettings, SampledCcl
from cflightning.objectives.sampled_loss import dropout_entries, pair_scores
from cflightning.objectives.settings import TableSize
from cflightning.objectives.solver import InteractionColumns


def vectors(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def test_scores_are_dot_products():
    users, items, negatives = vectors(3, 5), vectors(3, 5) + 1, vectors(3, 4, 5)
    positive, scores = pair_scores(users, items, negatives)
    for b in range(3):
        assert positive[b].item() == pytest.approx((users[b] * items[b]).sum().item())
        for j in range(4):
            assert scores[b, j].item() == pytest.approx((users[b] * negatives[b, j]).sum().item())
    shared = pair_scores(users, items, negatives[0])
    own = pair_scores(users, items, negatives[:1].expand(3, -1, -1))
    torch.testing.assert_close(shared, own)


def test_accidental_hits_get_minus_infinity():
    hit = torch.tensor([[True, False], [False, False]])
    positive, scores = pair_scores(vectors(2, 3), vectors(2, 3), vectors(2, 3), hit)
    assert (scores == -math.inf).tolist() == hit.tolist()
    assert positive.isfinite().all()


def test_vectors_of_a_cosine_loss_have_length_one_and_zeros_stay():
    network, none = EmbeddingDot(5, 3, 4), torch.empty(0, dtype=torch.int32)
    loss = SampledCcl(CclSettings(), InteractionColumns(none, none), TableSize(0, 5, 3))
    users, items = loss.tables(network)
    lengths = network.user_factors.weight.norm(dim=1, keepdim=True)
    assert lengths[0] == 0
    assert users.norm(dim=1).tolist() == pytest.approx([0, 1, 1, 1, 1])
    assert items.norm(dim=1).tolist() == pytest.approx([0, 1, 1])
    torch.testing.assert_close(users * lengths, network.user_factors.weight)
    users.sum().backward()
    assert network.user_factors.weight.grad.isfinite().all()


def test_dropout_keeps_the_mean():
    torch.manual_seed(7)
    ones = torch.ones(200, 50)
    dropped = dropout_entries(ones, 0.2)
    assert dropped.unique().tolist() == pytest.approx([0, 1.25])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert dropout_entries(ones, 0.0) is ones


def test_an_empty_batch_has_empty_scores():
    positive, scores = pair_scores(vectors(0, 3), vectors(0, 3), vectors(4, 3))
    assert positive.shape == (0,) and scores.shape == (0, 4)


def test_a_dropout_share_out_of_range_is_refused():
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ConfigError, match="at least 0 and below 1, got"):
            dropout_entries(torch.ones(2, 2), share)
