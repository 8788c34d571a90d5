"""Ensembles of dot-product models: the average is one dot product, of concatenated tables, compressed by an SVD."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cflightning.models.network import FoldedTables
from cflightning.utils.torch_threads import one_thread


def average(tables: Sequence[FoldedTables], weights: Sequence[float]) -> FoldedTables:
    """Return tables whose logits are the weighted mean of all logits.

    Args:
        tables: one or more tables of the same users and items; dims may differ.
        weights: positive weight of each; their sum is arbitrary.

    Returns:
        Tables with the sum of all dims.
    """
    shares = [weight / sum(weights) for weight in weights]

    def factors(name: str) -> Tensor:
        parts = (getattr(one, name) * share**0.5 for one, share in zip(tables, shares, strict=True))
        return torch.cat([*parts], dim=1)

    def mean(name: str) -> Tensor:
        return sum(
            (getattr(one, name) * share for one, share in zip(tables, shares, strict=True)), start=torch.tensor(0.0)
        )

    return FoldedTables(
        factors("user_vectors"), factors("item_vectors"), mean("user_bias"), mean("item_bias"), mean("global_bias")
    )


def compress(tables: FoldedTables, dim: int) -> FoldedTables:
    """Return the closest tables of a smaller dim, by the squared difference of all products (Eckart & Young 1936).

    The SVD of the product of two tables is computed from QR decompositions of the tables (Chan 1982), without a matrix
    of users times items.

    Args:
        tables: tables to compress.
        dim: latent factors of the result.

    Returns:
        Tables whose factors are sorted by singular value, with equal norms for users and items; fewer than `dim` if the
        product has a lower rank. Biases and zero vectors are unchanged. Results do not depend on the number of threads.
    """
    with one_thread():
        return _compress(tables, dim)


def _compress(tables: FoldedTables, dim: int) -> FoldedTables:
    users, items = tables.user_vectors, tables.item_vectors
    user_basis, user_core = torch.linalg.qr(users)
    item_basis, item_core = torch.linalg.qr(items)
    # Double precision for the small core: strong factors would mask the weak ones.
    left, strength, right = torch.linalg.svd(user_core.double() @ item_core.double().mT, full_matrices=False)
    root = strength[:dim].sqrt()
    vectors = []
    for basis, side, table in ((user_basis, left, users), (item_basis, right.mT, items)):
        found = basis @ (side[:, :dim] * root).to(basis)
        vectors.append(found * (table != 0).any(1, keepdim=True))  # zero vectors stay exactly zero
    return FoldedTables(vectors[0], vectors[1], *tables[2:])
