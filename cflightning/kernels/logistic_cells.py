"""Stratification of interactions and their negatives for the sampled logistic loss.

An interaction always belongs to the cell of its user and its item, see `stratification`. Its negatives are drawn from
one group of items, another one every epoch, and belong to the cell of the user and that group. A group of items is
chosen in proportion to its size, and within it every item is equally likely: negatives are uniform over the catalogue,
independent of the interaction, and may be accidental hits (which Rendle et al. 2020 keep too).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cflightning.kernels import F32, I32, I64, U64
from cflightning.kernels.compiling import compiled
from cflightning.kernels.prng import bounded, next_state, shuffle
from cflightning.kernels.stratification import balanced_groups, count_indices, gather_cells, stage_cells

GRID = 16
"""Groups of users, and of items. At dim 128 and MovieLens 1M two of them fit a core's cache; with 8 they do not."""
MAX_GROUP = 16
"""Maximum number of negatives of one interaction that are drawn from one group of items."""


class LogisticCells(NamedTuple):
    """Interactions by cell, and the items that negatives are drawn from.

    Attributes:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        starts: int64 [GRID * GRID + 1]; cell (a, b) is ``starts[a * GRID + b] : starts[a * GRID + b + 1]``.
        candidates: int32 [num_items - 1], all item indices but 0, group by group.
        ends: int64 [GRID + 1]; group b is ``candidates[ends[b] : ends[b + 1]]``.
    """

    user: I32
    item: I32
    starts: I64
    candidates: I32
    ends: I64


class EpochDraw(NamedTuple):
    """The random part of an epoch.

    Attributes:
        negative_user: int32 [n * negatives / size], user of every group of negatives.
        cuts: int64 [GRID, GRID + 1]; cell (a, b) has ``negative_user[cuts[a, b] : cuts[a, b + 1]]``.
        states: uint64 [GRID * GRID], a generator state for every cell.
        stages: int64 [GRID, GRID], the cells of every stage, those with most samples first.
    """

    negative_user: I32
    cuts: I64
    states: U64
    stages: I64


def make_cells(user: I32, item: I32, num_users: int, num_items: int, rng: np.random.Generator) -> LogisticCells:
    """Sort interactions by cell.

    Args:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        num_users: Size of the user table.
        num_items: Size of the item table.
        rng: Generator of the groups of users and items.
    """
    user_group = balanced_groups(count_indices(user, num_users), GRID, rng)
    item_group = balanced_groups(count_indices(item, num_items), GRID, rng)
    columns = gather_cells(user, item, np.arange(user.size), user_group, item_group, GRID)
    candidates = np.argsort(item_group[1:], kind="stable") + 1
    ends = np.concatenate([[0], np.cumsum(np.bincount(item_group[1:], minlength=GRID))])
    return LogisticCells(*columns, candidates.astype(np.int32), ends)


def draw_epoch(cells: LogisticCells, negatives: int, size: int, rng: np.random.Generator) -> EpochDraw:
    """Distribute the negatives of an epoch over the cells.

    Args:
        cells: The interactions.
        negatives: Number of negatives of each interaction.
        size: Number of negatives that stay together; a divisor of `negatives`.
        rng: Generator of the epoch.
    """
    times = negatives // size
    negative_user = np.empty(len(cells.user) * times, np.int32)
    cuts = np.empty((GRID, GRID + 1), np.int64)
    share = cells.ends / max(cells.ends[-1], 1)
    for a in range(GRID):
        low, high = cells.starts[a * GRID], cells.starts[(a + 1) * GRID]
        part = negative_user[low * times : high * times]
        part[:] = np.tile(cells.user[low:high], times)
        shuffle(part, rng.integers(1, 1 << 62, dtype=np.uint64))
        # All cuts move by one random fraction, so that each part has its exact share on average.
        cuts[a] = low * times + np.minimum(np.floor(share * len(part) + rng.random()).astype(np.int64), len(part))
    samples = np.diff(cells.starts) + np.diff(cuts).reshape(-1) * size
    stages = np.stack([stage_cells(GRID, shift) for shift in rng.permutation(GRID)])
    # A large cell at the end of a stage would delay it.
    stages = np.take_along_axis(stages, np.argsort(-samples[stages], axis=1, kind="stable"), 1)
    return EpochDraw(negative_user, cuts, rng.integers(1, 1 << 62, GRID * GRID, np.uint64), stages)


@compiled(nogil=True)
def next_samples(
    user: I32, item: I32, order: I64, negative_user: I32, candidates: I32, size: int, cursor: I64, state: np.uint64,
    owner: I64, ends: I64, sample: I64, sign: F32,
) -> tuple[int, np.uint64]:  # fmt: skip
    """Draw the next groups of samples of a cell: interactions and groups of negatives in proportion to their numbers.

    Args:
        user: int32 [n], users of all interactions.
        item: int32 [n], items of all interactions.
        order: int64 [interactions], those of this cell in their order.
        negative_user: int32 [groups of negatives], users of this cell's negatives.
        candidates: int32 [items], items that negatives are drawn from.
        size: Negatives of a group.
        cursor: int64 [2], numbers of interactions and of groups of negatives drawn before; updated.
        state: uint64, state of the generator.
        owner: int64 [window], output: user of every group.
        ends: int64 [window + 1], output: end of every group's samples; ``ends[0]`` is 0.
        sample: int64 [samples], output: item of every sample.
        sign: float32 [samples], output: 1 for an interaction and -1 for a negative.

    Returns:
        Number of groups, at most `window`, and the state after them.
    """
    total = order.size + negative_user.size
    here = min(total - cursor[0] - cursor[1], owner.size)
    k = np.int64(0)
    for v in range(here):
        a, b = cursor[0], cursor[1]
        if (a + 1) * total <= (a + b + 1) * order.size:
            cursor[0] = a + 1
            owner[v], sample[k], sign[k] = user[order[a]], item[order[a]], 1
            k += 1
        else:
            cursor[1] = b + 1
            owner[v] = negative_user[b]
            for _ in range(size):
                state = next_state(state)
                sample[k], sign[k] = candidates[bounded(state, candidates.size)], -1
                k += 1
        ends[v + 1] = k
    return here, state
