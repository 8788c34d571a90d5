"""Which items belong to which user: what is relevant, and what was seen in training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.errors import DataError


class ItemLists(NamedTuple):
    """A set of items for every user, as the rows of a sparse matrix; see :func:`item_lists`.

    Attributes:
        items: int32 [pairs], item rows; user by user, ascending within each, none twice, none of them row 0.
        offsets: int64 [users + 1]; those of user u are ``items[offsets[u] : offsets[u + 1]]``.
        num_items: rows of the item table, the unknown row included.
    """

    items: Tensor
    offsets: Tensor
    num_items: int

    def __repr__(self) -> str:
        return f"ItemLists({self.users:,} users, {len(self.items):,} pairs, {self.num_items:,} item rows)"

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> Tensor:
        """Items of each user: int64 [users]."""
        return self.offsets.diff()

    def take(self, user: Tensor) -> ItemLists:
        """The lists of some users, in the order given: int64 [n], rows from 0 -> lists of n users."""
        counts = self.counts[user]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = torch.repeat_interleave(self.offsets[user] - offsets[:-1], counts)
        at = torch.arange(len(shift), device=shift.device) + shift
        return ItemLists(self.items[at], offsets, self.num_items)

    def pairs(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Pairs of the users from `begin` to `end`: int64 [pairs] twice, users counted from `begin`, and item rows."""
        offsets = self.offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        users = torch.arange(end - begin, device=offsets.device)
        owner = torch.repeat_interleave(users, offsets.diff(), output_size=last - first)
        return owner, self.items[first:last].long()

    def to(self, device: torch.device | str) -> ItemLists:
        """The same on a device."""
        return ItemLists(self.items.to(device), self.offsets.to(device), self.num_items)


def item_lists(user: Tensor, item: Tensor, num_users: int, num_items: int) -> ItemLists:
    """Lists from pairs in any order.

    A pair that is there twice counts once. Pairs with row 0 are left out: who is not in the vocabulary cannot be
    recommended. Whoever wants such items to count as missed adds them to the number of relevant items.

    Args:
        user: integers [pairs], from 0 and below `num_users`.
        item: integers [pairs], rows.
        num_users: how many users there are, those without items included.
        num_items: rows of the item table, the unknown row included.

    Raises:
        DataError: the columns differ in length, or a number is out of range.
    """
    if user.shape != item.shape or user.dim() != 1:
        raise DataError(f"item_lists: must be two columns of one length, got {[*user.shape]} and {[*item.shape]}")
    for name, column, size in (("user", user, num_users), ("item", item, num_items)):
        if bad := int(((column < 0) | (column >= size)).sum()):
            raise DataError(f"item_lists: {name} must be at least 0 and below {size}, got {bad} others")
    known = item > 0
    pairs = torch.unique(user[known].long() * num_items + item[known].long())
    counts = torch.bincount(pairs // max(num_items, 1), minlength=num_users)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return ItemLists((pairs % max(num_items, 1)).int(), offsets, num_items)
