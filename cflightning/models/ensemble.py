"""Averages of dot-product networks as one dot product, compressed to the strongest factors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cflightning.models.network import DotProductTables
from cflightning.utils.torch_threads import one_thread


def average(tables: Sequence[DotProductTables], weights: Sequence[float]) -> DotProductTables:
    """Return tables whose logits are the weighted mean of the logits of all, by concatenation.

    Args:
        tables: At least one, of the same users and items; dims may differ.
        weights: Positive, one for each; they need not add up to 1.

    Returns:
        Tables whose dim is the sum of all dims.
    """
    shares = [weight / sum(weights) for weight in weights]

    def factors(name: str) -> Tensor:
        parts = (getattr(member, name) * share**0.5 for member, share in zip(tables, shares, strict=True))
        return torch.cat([*parts], dim=1)

    def mean(name: str) -> Tensor:
        return sum(
            (getattr(member, name) * share for member, share in zip(tables, shares, strict=True)),
            start=torch.tensor(0.0),
        )

    return DotProductTables(
        factors("user_vectors"), factors("item_vectors"), mean("user_bias"), mean("item_bias"), mean("global_bias")
    )


def compress(tables: DotProductTables, dim: int) -> DotProductTables:
    """Return the closest tables of a smaller dim, by the squared difference of all products (Eckart & Young 1936).

    This is the singular value decomposition of the product of both tables, computed from the QR decompositions of the
    tables (Chan 1982) without a matrix of the size of users times items.

    Args:
        tables: Tables to be compressed.
        dim: Dim of the result.

    Returns:
        Tables whose factors are sorted by strength, with equal norms for users and items; fewer than `dim` if the rank
        is lower. Biases and zero rows stay as they are. The bits do not depend on the number of torch's threads.
    """
    with one_thread():
        return _compress(tables, dim)


def _compress(tables: DotProductTables, dim: int) -> DotProductTables:
    users, items = tables.user_vectors, tables.item_vectors
    user_basis, user_core = torch.linalg.qr(users)
    item_basis, item_core = torch.linalg.qr(items)
    # In double precision: the cores are small, and strong factors would drown the weak ones.
    left, strength, right = torch.linalg.svd(user_core.double() @ item_core.double().mT, full_matrices=False)
    root = strength[:dim].sqrt()
    vectors = []
    for basis, side, table in ((user_basis, left, users), (item_basis, right.mT, items)):
        compressed = basis @ (side[:, :dim] * root).to(basis)
        vectors.append(compressed * (table != 0).any(1, keepdim=True))  # zero rows stay zero in spite of rounding
    return DotProductTables(vectors[0], vectors[1], *tables[2:])
