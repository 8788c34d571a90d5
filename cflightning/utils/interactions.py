"""Interactions by user and by item: the pair of matrices from which solvers, smoothing and SVD++ terms start."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cflightning.errors import DataError
from cflightning.utils.csr import Csr, csr_from_pairs


class Interactions(NamedTuple):
    """The same interactions by user and by item.

    Attributes:
        by_user: The items of every user, [num_users, num_items].
        by_item: The users of every item, [num_items, num_users].
    """

    by_user: Csr
    by_item: Csr

    @classmethod
    def from_pairs(
        cls, user: Tensor, item: Tensor, num_users: int, num_items: int, values: Tensor | None = None
    ) -> Interactions:
        """Group all pairs, those with index 0 included; arguments as for `make_interactions`, but unchecked."""
        return cls(
            csr_from_pairs(user, item, num_users, num_items, values),
            csr_from_pairs(item, user, num_items, num_users, values),
        )


def make_interactions(
    user: Tensor, item: Tensor, num_users: int, num_items: int, values: Tensor | None = None
) -> Interactions:
    """Group the interactions of known users and items, after a check.

    Pairs with index 0 are left out. A pair that occurs twice counts twice.

    Args:
        user: integers [n], user indices.
        item: integers [n], item indices.
        num_users: Size of the user table, the unknown index included.
        num_items: Size of the item table, the unknown index included.
        values: float32 [n], value of each pair; None for 1.

    Raises:
        DataError: The columns differ in length, or a number is out of range.
    """
    if user.shape != item.shape or user.dim() != 1 or (values is not None and values.shape != user.shape):
        shapes = " and ".join(str([*column.shape]) for column in (user, item, values) if column is not None)
        raise DataError(f"interactions: must be columns of one length, got {shapes}")
    for name, column, size in (("user", user, num_users), ("item", item, num_items)):
        if bad := int(((column < 0) | (column >= size)).sum()):
            raise DataError(f"interactions: {name} must be at least 0 and below {size}, got {bad} others")
    known = (user > 0) & (item > 0)
    if not bool(known.all()):
        user, item = user[known], item[known]
        values = None if values is None else values[known]
    return Interactions.from_pairs(user, item, num_users, num_items, values)
