"""The best items of the whole catalogue for every user: exact, in little more time than their scores take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, repeat
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from cflightning.errors import ConfigError, DataError, TrainingError
from cflightning.metrics.item_lists import ItemLists

SCORES = 1 << 23
"""Scores at a time on a CPU, 32 MB of them."""
TILE = 1 << 18
"""Of these, as many as are searched while they are still in its cache."""
USERS = 64, 1024
"""Least and most users at a time."""
CHUNK = 8
"""Items whose maximum is looked at first."""
GROUP = 64
"""Blocks whose seen items are sorted at a time."""


class Ranked(NamedTuple):
    """The best items of some users, the best first; of equal scores, the lower row first.

    Attributes:
        item: int64 [users, k], rows; row 0 where there are no more items.
        score: float [users, k]; -inf where there are no more items.
    """

    item: Tensor
    score: Tensor


def rank_all(
    users: Tensor,
    items: Tensor,
    item_bias: Tensor | None = None,
    seen: ItemLists | None = None,
    k: int = 20,
    block: int | None = None,
) -> Iterator[Ranked]:
    """The best items by ``<p_u, q_i> + b_i``, a block of users at a time; ``torch.cat`` makes one table of them.

    What moves all scores of a user alike (user bias, global bias, a rising scale) changes no order and is left out.
    Row 0 of the items, the unknown row, is never among the best, nor is an item that the user has seen, nor one with a
    score of -inf.

    Args:
        users: float [users, dim], their vectors.
        items: float [num_items, dim], their vectors; the unknown row included.
        item_bias: float [num_items], or None.
        seen: items to leave out, of the same users; None for none.
        k: items for each user; more than there are is fine.
        block: users at a time; None for what suits the device.

    Yields:
        The best of one block, in the order of the users.

    Raises:
        ConfigError: `k` or `block` is below 1.
        DataError: shapes do not fit together.
        TrainingError: a score is not a number.
    """
    num_items = len(items)
    if block is None:
        least, most = USERS
        block = min(max(SCORES // max(num_items, 1) // 32 * 32, least), most) if users.is_cpu else most
    _check(k, num_items, len(users), seen)
    if block < 1:
        raise ConfigError(f"rank_all: block must be at least 1, got {block}")
    if users.dim() != 2 or items.dim() != 2 or users.shape[1] != items.shape[1]:
        raise DataError(f"rank_all: vectors must be of one dim, got {[*users.shape]} and {[*items.shape]}")
    if item_bias is not None and item_bias.shape != items.shape[:1]:
        raise DataError(f"rank_all: item_bias must be [{num_items}], got {[*item_bias.shape]}")
    users, items = users.detach(), items.detach()
    if item_bias is not None:  # one more factor costs nothing beside 64; adding a column afterwards is another pass
        items = torch.cat([items, item_bias.detach().to(items.dtype)[:, None]], 1)
    scores = _room(num_items, block, k, items)
    flat, rows = scores.view(-1), len(scores)
    maxima = scores.new_empty(rows // CHUNK, block) if rows > CHUNK * k else None
    tile = max(TILE // block // CHUNK, 1) * CHUNK if users.is_cpu else rows
    edges = [*range(0, num_items, tile), rows]
    tiles = [(a, items[a:b], scores[a : min(b, num_items)], scores[a:b]) for a, b in pairwise(edges)]
    nothing = torch.empty(0, dtype=torch.int64, device=scores.device)
    hidden = repeat(nothing) if seen is None else _hidden(seen, block, tile)
    for begin in range(0, len(users), block):
        part = users[begin : begin + block]
        here = len(part)
        if here < block:  # a full block, whatever the number of users: so every product is computed the same way
            part = torch.cat([part, part[-1:].expand(block - here, -1)])
        if item_bias is not None:
            part = torch.cat([part, part.new_ones(block, 1)], 1)
        for (at, vectors, out, filled), gone in zip(tiles, hidden, strict=False):
            # Items x users: the products themselves are faster this way round, and so is the search that follows.
            torch.mm(vectors, part.T, out=out)
            flat.index_fill_(0, gone, -math.inf)
            if at == 0:
                scores[0] = -math.inf
            if maxima is not None:
                _maxima(filled, maxima[at // CHUNK : (at + len(filled)) // CHUNK])
        yield _ranked(scores, maxima, here, k)


def rank_scores(scores: Tensor, seen: ItemLists | None = None, k: int = 20) -> Ranked:
    """The best items by given scores, for networks that are no dot product.

    Args:
        scores: float [users, num_items], column 0 being that of the unknown row.
        seen: items to leave out, of the same users; None for none.
        k: items for each user; more than there are is fine.

    Raises:
        ConfigError: `k` is below 1.
        DataError: shapes do not fit together.
        TrainingError: a score is not a number.
    """
    users, num_items = scores.shape
    _check(k, num_items, users, seen)
    turned = _room(num_items, users, k, scores)
    turned[:num_items] = scores.detach().T
    turned[0] = -math.inf
    if seen is not None:
        user, item = seen.pairs(0, users)
        turned[item, user] = -math.inf
    return _ranked(turned, None, users, k)


def _ranked(scores: Tensor, maxima: Tensor | None, users: int, k: int) -> Ranked:
    """The best of scores that lie item by item: float [rows, at least users], -inf for what is left out.

    Among chunks of consecutive items, only the k with the highest maxima (of equal maxima, the first) can have a place:
    each of them has an item that goes before all of any other's. The k best chunks are found in the same way among
    chunks of chunks, and then the best items among those of k chunks. So every score is read once, to find maxima, and
    that keeps up with the memory; ``torch.topk`` over the catalogue takes twice as long as all of this.
    """
    score, item = (column[:users] for column in _best(scores, k, maxima))
    if bad := int(score[:, 0].isnan().sum()):  # maxima keep NaN, and it goes before all numbers: it is here if anywhere
        raise TrainingError(
            f"ranking: scores must be numbers, got NaN for {bad} of {users} users; did training diverge?"
        )
    missing = 0, k - item.shape[1]
    return Ranked(pad(item.masked_fill_(score == -math.inf, 0), missing), pad(score, missing, value=-math.inf))


def _best(scores: Tensor, k: int, maxima: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scores and rows of the k best, or of all if they are fewer; of equal scores, the lower row first."""
    items, users = scores.shape
    if items <= CHUNK * k:
        return _sorted(scores.T, torch.arange(items, device=scores.device).expand(users, items), k)
    _, chunk = _best(_maxima(scores) if maxima is None else maxima, k)
    row = (chunk[:, :, None] * CHUNK + torch.arange(CHUNK, device=chunk.device)).flatten(1)
    return _sorted(scores.T.gather(1, row), row, k)


def _maxima(scores: Tensor, out: Tensor | None = None) -> Tensor:
    """Maxima of chunks: float [rows, users] -> float [rows / CHUNK, users]; NaN where a chunk has one."""
    rows, users = scores.shape
    return torch.amax(scores.view(rows // CHUNK, CHUNK, users), 1, out=out)


def _sorted(score: Tensor, row: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of a few: [users, few] twice -> [users, k] twice."""
    top, at = score.topk(min(k + 1, score.shape[1]))
    if bool((top[:, 1:] == top[:, :-1]).any()):  # of equal scores topk takes any, in any order
        row, ascending = row.sort(1)
        top, at = score.gather(1, ascending).sort(dim=1, descending=True, stable=True)
    return top[:, :k], row.gather(1, at[:, :k])


def _check(k: int, num_items: int, users: int, seen: ItemLists | None) -> None:
    if k < 1:
        raise ConfigError(f"ranking: k must be at least 1, got {k}")
    if num_items < 1:
        raise DataError("ranking: items must have their unknown row, got none")
    if seen is not None and (seen.users, seen.num_items) != (users, num_items):
        raise DataError(
            f"ranking: seen items must be of {users} users and {num_items} items, got {seen.users} and {seen.num_items}"
        )


def _room(num_items: int, users: int, k: int, like: Tensor) -> Tensor:
    """Room for scores: float [rows, users], -inf throughout, with rows for whole chunks of chunks."""
    unit = 1
    while -(-num_items // unit) > CHUNK * k:
        unit *= CHUNK
    return like.new_full((num_items + -num_items % unit, users), -math.inf)


def _hidden(seen: ItemLists, block: int, tile: int) -> Iterator[Tensor]:
    """Where seen items lie in a table [items, block], for each block of users and each tile of items: int64 [n]."""
    tiles = -(-seen.num_items // tile)
    for begin in range(0, seen.users, block * GROUP):
        user, item = seen.pairs(begin, min(begin + block * GROUP, seen.users))
        part, order = (user // block * tiles + item // tile).sort()
        at = (item * block + user % block)[order]
        blocks = min(GROUP, -(-(seen.users - begin) // block))
        yield from torch.split(at, torch.bincount(part, minlength=blocks * tiles).tolist())
