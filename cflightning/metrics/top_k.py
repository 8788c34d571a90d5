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
from cflightning.utils.csr import Csr

SCORES = 1 << 23
"""Scores at a time on a CPU, 32 MB."""
TILE_SCORES = 1 << 18
"""Scores of a tile, whose maxima are searched while it is in the cache."""
MIN_USERS, MAX_USERS = 64, 1024
"""Limits of the users at a time."""
CHUNK_ITEMS = 8
"""Consecutive items that share a maximum."""
GROUP_BLOCKS = 64
"""Blocks of users whose seen items are sorted together."""


class TopK(NamedTuple):
    """The best items of some users, best first; of equal scores, the lower index first.

    Attributes:
        item: int64 [users, k], indices; 0 if there are no more items.
        score: float [users, k]; -inf if there are no more items.
    """

    item: Tensor
    score: Tensor


def rank_all(
    users: Tensor,
    items: Tensor,
    item_bias: Tensor | None = None,
    seen: Csr | None = None,
    k: int = 20,
    block: int | None = None,
    *,
    tile_scores: int = TILE_SCORES,
    group_blocks: int = GROUP_BLOCKS,
) -> Iterator[TopK]:
    """Yield the best items by ``<p_u, q_i> + b_i``, a block of users at a time; ``torch.cat`` makes one table of them.

    Terms that are equal for all items of a user (user bias, global bias) and increasing functions of the score do not
    change the order and are left out. Index 0, for unknown items, is never among the best, nor are seen items or items
    with a score of -inf.

    Args:
        users: float [users, dim], their vectors.
        items: float [num_items, dim], their vectors, index 0 for unknown items.
        item_bias: float [num_items], or None.
        seen: Items to leave out, of the same users; None for none.
        k: Items for each user; it can exceed the number of items.
        block: Users at a time; None for a number that suits the device.
        tile_scores: Scores of a tile on a CPU.
        group_blocks: Blocks whose seen items are sorted together.

    Yields:
        The best items of one block, in the order of the users.

    Raises:
        ConfigError: `k` or `block` is below 1.
        DataError: The shapes do not match.
        TrainingError: A score is NaN.
    """
    num_items = len(items)
    if block is None:
        fitting = SCORES // max(num_items, 1) // 32 * 32
        block = min(max(fitting, MIN_USERS), MAX_USERS) if users.is_cpu else MAX_USERS
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
    scores = _allocate_scores(num_items, block, k, items)
    flat, rows = scores.view(-1), len(scores)
    maxima = scores.new_empty(rows // CHUNK_ITEMS, block) if rows > CHUNK_ITEMS * k else None
    tile = max(tile_scores // block // CHUNK_ITEMS, 1) * CHUNK_ITEMS if users.is_cpu else rows
    edges = [*range(0, num_items, tile), rows]
    tiles = [(a, items[a:b], scores[a : min(b, num_items)], scores[a:b]) for a, b in pairwise(edges)]
    nothing = torch.empty(0, dtype=torch.int64, device=scores.device)
    hidden = repeat(nothing) if seen is None else _seen_cells(seen, block, tile, group_blocks)
    for begin in range(0, len(users), block):
        vectors = users[begin : begin + block]
        count = len(vectors)
        if count < block:  # a full block in any case, so that every product is computed in the same way
            vectors = torch.cat([vectors, vectors[-1:].expand(block - count, -1)])
        if item_bias is not None:
            vectors = torch.cat([vectors, vectors.new_ones(block, 1)], 1)
        for (first, tile_items, products, padded), cells in zip(tiles, hidden, strict=False):
            # Items x users: both the products and the search that follows are faster this way round.
            torch.mm(tile_items, vectors.T, out=products)
            flat.index_fill_(0, cells, -math.inf)
            if first == 0:
                scores[0] = -math.inf
            if maxima is not None:
                _chunk_maxima(padded, maxima[first // CHUNK_ITEMS : (first + len(padded)) // CHUNK_ITEMS])
        yield _top_k(scores, maxima, count, k)


def rank_scores(scores: Tensor, seen: Csr | None = None, k: int = 20) -> TopK:
    """Return the best items by given scores, for networks that are not a dot product.

    Args:
        scores: float [users, num_items], column 0 for unknown items.
        seen: Items to leave out, of the same users; None for none.
        k: Items for each user; it can exceed the number of items.

    Raises:
        ConfigError: `k` is below 1.
        DataError: The shapes do not match.
        TrainingError: A score is NaN.
    """
    users, num_items = scores.shape
    _check(k, num_items, users, seen)
    transposed = _allocate_scores(num_items, users, k, scores)
    transposed[:num_items] = scores.detach().T
    transposed[0] = -math.inf
    if seen is not None:
        user, item = seen.pairs(0, users)
        transposed[item, user] = -math.inf
    return _top_k(transposed, None, users, k)


def _top_k(scores: Tensor, maxima: Tensor | None, users: int, k: int) -> TopK:
    """Find the best of scores that are stored item by item: float [rows, at least users], -inf for items to leave out.

    Among chunks of consecutive items, only the k with the highest maxima (of equal maxima, the first) can hold one of
    the k best items: each of them has an item that precedes all items of any other chunk. The k best chunks are found
    in the same way among chunks of chunks, and the best items among those of k chunks. So every score is read once, to
    find maxima, at the speed of the memory; ``torch.topk`` over the catalogue takes twice as long as all of this.
    """
    score, item = (column[:users] for column in _best(scores, k, maxima))
    if bad := int(score[:, 0].isnan().sum()):  # maxima keep NaN, which precedes all numbers: it would be the first
        raise TrainingError(
            f"ranking: scores must be numbers, got NaN for {bad} of {users} users; did training diverge?"
        )
    missing = 0, k - item.shape[1]
    return TopK(pad(item.masked_fill_(score == -math.inf, 0), missing), pad(score, missing, value=-math.inf))


def _best(scores: Tensor, k: int, maxima: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return scores and indices of the k best, or of all if they are fewer; of equal scores, the lower index first."""
    items, users = scores.shape
    if items <= CHUNK_ITEMS * k:
        return _sort(scores.T, torch.arange(items, device=scores.device).expand(users, items), k)
    _, chunk = _best(_chunk_maxima(scores) if maxima is None else maxima, k)
    index = (chunk[:, :, None] * CHUNK_ITEMS + torch.arange(CHUNK_ITEMS, device=chunk.device)).flatten(1)
    return _sort(scores.T.gather(1, index), index, k)


def _chunk_maxima(scores: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the maxima of chunks, float [rows, users] -> float [rows / CHUNK_ITEMS, users]; NaN if a chunk has one."""
    rows, users = scores.shape
    return torch.amax(scores.view(rows // CHUNK_ITEMS, CHUNK_ITEMS, users), 1, out=out)


def _sort(score: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of a few candidates: [users, candidates] each -> [users, k] each."""
    top, position = score.topk(min(k + 1, score.shape[1]))
    if bool((top[:, 1:] == top[:, :-1]).any()):  # topk returns equal scores in any order
        index, ascending = index.sort(1)
        top, position = score.gather(1, ascending).sort(dim=1, descending=True, stable=True)
    return top[:, :k], index.gather(1, position[:, :k])


def _check(k: int, num_items: int, users: int, seen: Csr | None) -> None:
    if k < 1:
        raise ConfigError(f"ranking: k must be at least 1, got {k}")
    if num_items < 1:
        raise DataError("ranking: items must include index 0 for unknown items, got none")
    if seen is not None and (seen.num_rows, seen.num_columns) != (users, num_items):
        raise DataError(
            f"ranking: seen items must be of {users} users and {num_items} items, "
            f"got {seen.num_rows} and {seen.num_columns}"
        )


def _allocate_scores(num_items: int, users: int, k: int, like: Tensor) -> Tensor:
    """Allocate scores, float [rows, users] of -inf, with rows for complete chunks of chunks."""
    unit = 1
    while -(-num_items // unit) > CHUNK_ITEMS * k:
        unit *= CHUNK_ITEMS
    return like.new_full((num_items + -num_items % unit, users), -math.inf)


def _seen_cells(seen: Csr, block: int, tile: int, group_blocks: int) -> Iterator[Tensor]:
    """Yield the cells of seen items in a table [items, block], for each block of users and tile of items: int64 [n]."""
    tiles = -(-seen.num_columns // tile)
    for begin in range(0, seen.num_rows, block * group_blocks):
        user, item = seen.pairs(begin, min(begin + block * group_blocks, seen.num_rows))
        part, order = (user // block * tiles + item // tile).sort()
        cell = (item * block + user % block)[order]
        blocks = min(group_blocks, -(-(seen.num_rows - begin) // block))
        yield from torch.split(cell, torch.bincount(part, minlength=blocks * tiles).tolist())
