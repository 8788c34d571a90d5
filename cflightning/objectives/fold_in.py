"""Vectors of users whom training has not seen, from the items that are known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cflightning.models.network import FoldedTables
from cflightning.objectives.rankers import Alternating, Spectral, default_weight
from cflightning.solvers import logistic, svd
from cflightning.solvers.ials import Ials
from cflightning.solvers.interactions import Side


@torch.inference_mode(False)  # threads of solvers do not know that they are in it
@torch.no_grad()
def vectors_of_new_users(
    objective: str, settings: Mapping[str, Any], tables: FoldedTables, given: Side, counts: Tensor, threads: int = 1
) -> Tensor:
    """What the tables' maker would make of new users, with the items as they are.

    - ials: a user's rows of the last sweep, solved exactly.
    - svd: the projection, exact as well.
    - all others: cross-entropy of a user's items and of the catalogue, see `solvers.logistic`. With it bpr and softmax
      rank better for new users than with a least-squares solve or with means of item vectors.

    Args:
        objective: that has trained the tables.
        settings: of that; those that are missing are the usual ones.
        tables: of which the items' are looked at.
        given: items of every user, row 0 not among them.
        counts: int64 [num_items], training rows of each.
        threads: of the solvers of ials and svd, where any number gives the same bits. Cross-entropy is solved on the
            threads of torch, whose number may change the last bits.

    Returns:
        float32 [users, dim], on the CPU; zeros for a user without items.
    """
    items, bias = (table.detach().cpu().float() for table in (tables.item_vectors, tables.item_bias))
    if objective == "ials":
        found = {**Alternating.defaults, "weight": default_weight(len(items)), **settings}
        nobody = torch.empty(0, dtype=torch.int32)
        solver = Ials(nobody, nobody, 1, len(items), **found, threads=threads)
        return solver.fold_in(items, torch.split(given.rows, given.counts.tolist()))
    if objective == "svd":
        found = {**Spectral.defaults, **settings}
        powers = {name: float(found[name]) for name in ("item_power", "score_power")}
        return svd.fold_in(items, given, counts, **powers, threads=threads)
    return logistic.fold_in(items, bias, given)
