"""How choices and their negatives are dealt to cells that threads can take without meeting.

As in `layout`, users and items are dealt into `GRID` groups each, and `GRID` cells that share no user and no item are a
stage. A choice belongs to the cell of its user and its item, always the same. Its negatives are drawn from one group of
items, another one every epoch, and belong to the cell of the user and that group. Groups of items are taken as often as
they have items, and within one each item is as likely as the other: negatives are uniform over the catalogue, whatever
the choice is, and items that the user has chosen are among them (Rendle et al. 2020 leave them in, too).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cflightning.kernels.compiling import compiled
from cflightning.kernels.layout import I32, I64, U8, _below, _count, _groups, _xorshift

GRID = 16
"""Groups of users, and of items. At dim 128 and MovieLens 1M two of them fit a core's cache; with 8 they do not."""
GROUP = 16
"""Most negatives of one choice that are drawn from one group of items."""


class Cells(NamedTuple):
    """Choices sorted into cells, and what their negatives are drawn from.

    Attributes:
        user: int32 [n], rows.
        item: int32 [n], rows.
        starts: int64 [GRID * GRID + 1]; cell (a, b) is ``starts[a * GRID + b] : starts[a * GRID + b + 1]``.
        drawn: int32 [num_items - 1], all rows but 0, group by group.
        ends: int64 [GRID + 1]; group b is ``drawn[ends[b] : ends[b + 1]]``.
    """

    user: I32
    item: I32
    starts: I64
    drawn: I32
    ends: I64


class Deal(NamedTuple):
    """What an epoch leaves to chance.

    Attributes:
        asking: int32 [n * negatives / size], user of every group of negatives.
        cuts: int64 [GRID, GRID + 1]; those of cell (a, b) are ``asking[cuts[a, b] : cuts[a, b + 1]]``.
        states: uint64 [GRID * GRID], a generator for every cell.
        stages: int64 [GRID, GRID], the cells of every stage, those with most samples first.
    """

    asking: I32
    cuts: I64
    states: Any
    stages: I64


@compiled(nogil=True)
def shuffle(column: Any, state: Any) -> Any:
    """Fisher-Yates, in place; the generator's state after it."""
    for n in range(column.size - 1, 0, -1):
        state = _xorshift(state)
        m = _below(state, n + 1)
        column[n], column[m] = column[m], column[n]
    return state


def _sorted(group: U8) -> tuple[I64, I64]:
    """Rows by group, and where every group ends: uint8 [rows] -> int64 [rows], int64 [groups + 1]."""
    ends = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=GRID))])
    return np.argsort(group, kind="stable"), ends


def make_cells(user: I32, item: I32, num_users: int, num_items: int, rng: np.random.Generator) -> Cells:
    """Sort choices into cells.

    Args:
        user: int32 [n], rows.
        item: int32 [n], rows.
        num_users: rows of a user table.
        num_items: rows of an item table.
        rng: deals users and items into groups.
    """
    user_group = _groups(_count(user, num_users), GRID, rng)
    item_group = _groups(_count(item, num_items), GRID, rng)
    cell = user_group[user] * np.uint16(GRID) + item_group[item]  # 16 bits or fewer are sorted by counting
    order = np.argsort(cell, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=GRID * GRID))])
    rows, ends = _sorted(item_group[1:])
    return Cells(user[order], item[order], starts, (rows + 1).astype(np.int32), ends)


def deal(cells: Cells, negatives: int, size: int, rng: np.random.Generator) -> Deal:
    """Deal the negatives of an epoch to cells.

    Args:
        cells: with the choices.
        negatives: for each of them.
        size: negatives that stay together; a divisor of `negatives`.
        rng: of the epoch.
    """
    times = negatives // size
    asking = np.empty(len(cells.user) * times, np.int32)
    cuts = np.empty((GRID, GRID + 1), np.int64)
    share = cells.ends / max(cells.ends[-1], 1)
    for a in range(GRID):
        low, high = cells.starts[a * GRID], cells.starts[(a + 1) * GRID]
        part = asking[low * times : high * times]
        part[:] = np.tile(cells.user[low:high], times)
        shuffle(part, rng.integers(1, 1 << 62, dtype=np.uint64))
        # All cuts move by one random fraction, so that each part has its exact share on average.
        cuts[a] = low * times + np.minimum(np.floor(share * len(part) + rng.random()).astype(np.int64), len(part))
    samples = np.diff(cells.starts) + np.diff(cuts).reshape(-1) * size
    stages = np.arange(GRID) * GRID + (np.arange(GRID) + rng.permutation(GRID)[:, None]) % GRID
    # A large cell last would keep a thread waiting.
    stages = np.take_along_axis(stages, np.argsort(-samples[stages], axis=1, kind="stable"), 1)
    return Deal(asking, cuts, rng.integers(1, 1 << 62, GRID * GRID, np.uint64), stages)


@compiled(nogil=True)
def draw(
    user: Any, item: Any, order: Any, asked: Any, drawn: Any, size: Any, cursor: Any, state: Any, owner: Any,
    ends: Any, row: Any, sign: Any,
) -> Any:  # fmt: skip
    """The next groups of samples of a cell: choices, and negatives `size` at a time, in turn as their numbers allow.

    Args:
        user: int32 [n], of all choices.
        item: int32 [n], of all choices.
        order: int64 [choices], those of this cell in the order to come.
        asked: int32 [groups of negatives], their users.
        drawn: int32 [items], what negatives are drawn from.
        size: negatives of a group.
        cursor: int64 [2], choices and groups of negatives that were drawn before; goes on.
        state: uint64, of the generator.
        owner: int64 [window], takes the user of every group.
        ends: int64 [window + 1], takes where its samples end; ``ends[0]`` is 0.
        row: int64 [samples], takes the item of every sample.
        sign: float32 [samples], takes 1 for a choice and -1 for a negative.

    Returns:
        Groups that were drawn, at most `window`, and the generator's state after them.
    """
    total = order.size + asked.size
    here = min(total - cursor[0] - cursor[1], owner.size)
    k = np.int64(0)
    for v in range(here):
        a, b = cursor[0], cursor[1]
        if (a + 1) * total <= (a + b + 1) * order.size:
            cursor[0] = a + 1
            owner[v], row[k], sign[k] = user[order[a]], item[order[a]], 1
            k += 1
        else:
            cursor[1] = b + 1
            owner[v] = asked[b]
            for _ in range(size):
                state = _xorshift(state)
                row[k], sign[k] = drawn[_below(state, drawn.size)], -1
                k += 1
        ends[v + 1] = k
    return here, state
