"""An average of dot products is a dot product, and its compression is the closest one of its dim."""

import numpy as np
import pytest
import torch

from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.ensemble import average, compress
from cflightning.models.network import DotProductTables

USERS, ITEMS = 30, 20


def tables(dim, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = (USERS, dim), (ITEMS, dim), (USERS,), (ITEMS,), ()
    found = [torch.randn(shape, generator=generator) for shape in shapes]
    for table in found[:4]:
        table[0] = 0
    return DotProductTables(*found)


def logits(one):
    return (one.user_vectors @ one.item_vectors.T + one.user_bias[:, None] + one.item_bias + one.global_bias).numpy()


def test_logits_of_the_average_are_the_average_of_the_logits():
    several, weights = [tables(dim, seed) for seed, dim in enumerate((3, 5, 1))], [1.0, 2.5, 0.5]
    mean = average(several, weights)
    assert mean.user_vectors.shape == (USERS, 9)
    expected = np.average([logits(one) for one in several], axis=0, weights=weights)
    np.testing.assert_allclose(logits(mean), expected, atol=1e-5)


@pytest.mark.parametrize("dim", [1, 4, 7, 12])
def test_compression_is_the_truncated_svd_of_numpy(dim):
    given = average([tables(6, 1), tables(6, 2)], [1, 1])
    left, strength, right = np.linalg.svd(given.user_vectors.numpy() @ given.item_vectors.numpy().T)
    found = compress(given, dim)
    product = found.user_vectors @ found.item_vectors.T
    np.testing.assert_allclose(product, (left[:, :dim] * strength[:dim]) @ right[:dim], atol=1e-5)
    for side in found[:2]:  # sorted by strength, and of equal norm on both sides
        np.testing.assert_allclose(side.norm(dim=0) ** 2, strength[:dim], rtol=1e-5)
        assert not side[0].any()  # exactly
    for name in DotProductTables._fields[2:]:
        assert torch.equal(getattr(found, name), getattr(given, name))


def test_a_product_has_no_more_factors_than_items():
    found = compress(average([tables(15, 1), tables(15, 2)], [1, 1]), 30)
    assert found.user_vectors.shape[1] == ITEMS
    empty = DotProductTables(torch.zeros(5, 3), torch.zeros(4, 3), torch.zeros(5), torch.zeros(4), torch.tensor(0.0))
    assert all(torch.isfinite(table).all() for table in compress(empty, 2))


def test_one_row_and_one_factor():
    one = DotProductTables(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1), torch.zeros(1), torch.tensor(2.0))
    assert logits(compress(average([one], [3.0]), 1)) == [[2.0]]


@pytest.mark.parametrize("dim", [4, 6])
def test_a_network_with_set_tables_has_their_logits(dim):
    given = tables(4, 3)
    network = EmbeddingDot(USERS, ITEMS, dim, (1.0, 5.0), std=1.0)
    network.set_tables(given)
    users, items = torch.arange(USERS).repeat_interleave(ITEMS), torch.arange(ITEMS).repeat(USERS)
    with torch.no_grad():
        np.testing.assert_allclose(network.logit(users, items).view(USERS, ITEMS), logits(given), atol=1e-5)
    assert all(parameter.requires_grad for parameter in network.parameters())
