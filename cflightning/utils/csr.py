"""Sparse matrices in compressed-row form, the one representation of interactions.

scipy's `csr_array` is not used: it holds numpy arrays, so it cannot lie on a GPU; it copies the indices if their type
differs from that of the offsets, which compiled kernels need in 64 bits; and it would be a dependency for this alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from cflightning.errors import DataError


class Csr(NamedTuple):
    """A sparse matrix; its rows are users and its columns items, or the other way round.

    Attributes:
        indices: int32 [n], column indices, row by row.
        offsets: int64 [num_rows + 1]; those of row r are ``indices[offsets[r] : offsets[r + 1]]``.
        num_columns: number of columns, the unknown index 0 included.
        values: float32 [n]; None if all are 1.
    """

    indices: Tensor
    offsets: Tensor
    num_columns: int
    values: Tensor | None = None

    def __repr__(self) -> str:
        return f"Csr({self.num_rows:,} x {self.num_columns:,}, {len(self.indices):,} entries)"

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> Tensor:
        """Number of entries of each row: int64 [num_rows]."""
        return self.offsets.diff()

    def part(self, begin: int, end: int) -> Csr:
        """Return the rows from `begin` to `end`, or to the last, without a copy of their entries."""
        offsets = self.offsets[begin : end + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        values = None if self.values is None else self.values[entries]
        return Csr(self.indices[entries], offsets - offsets[0], self.num_columns, values)

    def dense_columns(self) -> Tensor:
        """Return the transpose as a dense table: float32 [num_columns, num_rows]; repeated entries are added."""
        table = torch.zeros(self.num_columns, self.num_rows)
        row = torch.repeat_interleave(torch.arange(self.num_rows), self.counts)
        values = torch.ones(len(row)) if self.values is None else self.values
        table.view(-1).index_add_(0, self.indices.long() * self.num_rows + row, values)
        return table

    def take(self, rows: Tensor) -> Csr:
        """Return some rows in the order given: integers [m] -> m rows."""
        rows = rows.long()
        counts = self.counts[rows]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = torch.repeat_interleave(self.offsets[rows] - offsets[:-1], counts)
        at = torch.arange(len(shift), device=shift.device) + shift
        values = None if self.values is None else self.values[at]
        return Csr(self.indices[at], offsets, self.num_columns, values)

    def pairs(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the entries of the rows from `begin` to `end`: rows counted from `begin`, and columns; int64 [n]."""
        offsets = self.offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        rows = torch.arange(end - begin, device=offsets.device)
        row = torch.repeat_interleave(rows, offsets.diff(), output_size=last - first)
        return row, self.indices[first:last].long()

    def sums(self, table: Tensor) -> Tensor:
        """Sum the vectors of each row's columns, values aside: float32 [num_columns, dim] -> [num_rows, dim]."""
        return embedding_bag(self.indices, table, self.offsets[:-1].int(), mode="sum")

    def to(self, device: torch.device | str) -> Csr:
        """Move the matrix to a device."""
        values = None if self.values is None else self.values.to(device)
        return Csr(self.indices.to(device), self.offsets.to(device), self.num_columns, values)


def csr_from_pairs(row: Tensor, column: Tensor, num_rows: int, num_columns: int, values: Tensor | None = None) -> Csr:
    """Make a matrix of pairs in any order; pairs that occur twice are two entries.

    Args:
        row: integers [n], below `num_rows`.
        column: integers [n], below `num_columns`.
        num_rows: number of rows.
        num_columns: number of columns.
        values: float32 [n]; None for 1.

    Returns:
        The matrix; the entries of a row are in the order of the pairs.
    """
    if row.is_cpu:  # numpy sorts 16 bits at a time by counting, in a sixth of the time of a comparison sort
        keys = row.numpy().astype(np.uint16 if num_rows <= 1 << 16 else np.int32)
        order = torch.from_numpy(np.argsort(keys, kind="stable"))
    else:
        order = torch.sort(row, stable=True).indices
    offsets = torch.zeros(num_rows + 1, dtype=torch.int64, device=row.device)
    torch.cumsum(torch.bincount(row, minlength=num_rows), 0, out=offsets[1:])
    return Csr(column[order].int(), offsets, num_columns, None if values is None else values[order].float())


def item_sets(user: Tensor, item: Tensor, num_users: int, num_items: int) -> Csr:
    """Make the matrix of each user's set of items from pairs in any order.

    A pair that occurs twice counts once. Pairs with item index 0 are left out: items outside the vocabulary cannot be
    recommended. A metric that counts them as misses has to add them to the number of relevant items.

    Args:
        user: integers [n], from 0 and below `num_users`.
        item: integers [n], item indices.
        num_users: number of users, those without items included.
        num_items: size of the item table, the unknown index included.

    Returns:
        The matrix; the items of a user are in ascending order.

    Raises:
        DataError: the columns differ in length, or a number is out of range.
    """
    if user.shape != item.shape or user.dim() != 1:
        raise DataError(f"item_sets: must be two columns of one length, got {[*user.shape]} and {[*item.shape]}")
    for name, column, size in (("user", user, num_users), ("item", item, num_items)):
        if bad := int(((column < 0) | (column >= size)).sum()):
            raise DataError(f"item_sets: {name} must be at least 0 and below {size}, got {bad} others")
    known = item > 0
    pairs = torch.unique(user[known].long() * num_items + item[known].long())
    counts = torch.bincount(pairs // max(num_items, 1), minlength=num_users)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Csr((pairs % max(num_items, 1)).int(), offsets, num_items)
