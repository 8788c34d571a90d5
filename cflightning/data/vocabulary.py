"""Vocabulary: the mapping between ids and indices of embeddings, in which index 0 is the unknown id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cflightning.data.ids import Id, Ids
from cflightning.data.table import RatingTable
from cflightning.errors import CheckpointError


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """The users and items of the training part, with titles, categories and counts of the items.

    Attributes:
        users: User ids.
        items: Item ids.
        titles: Item id -> title, where known.
        categories: Category, such as a genre -> positions of its items in ``items.values``, int64 [n], ascending.
        counts: int64 [items], training rows of each item; None for checkpoints without.
    """

    users: Ids
    items: Ids
    titles: dict[Id, str] = field(default_factory=dict)
    categories: dict[str, np.ndarray] = field(default_factory=dict)
    counts: np.ndarray | None = None

    def __repr__(self) -> str:
        return (
            f"Vocabulary({len(self.users):,} users, {len(self.items):,} items, {len(self.titles):,} titles, "
            f"{len(self.categories):,} categories)"
        )

    @classmethod
    def learn(cls, table: RatingTable, rows: np.ndarray | slice) -> Vocabulary:
        """Make the vocabulary of some rows of a table (positions, a slice or a mask)."""
        item = table.item.take(rows)
        counts = np.bincount(item.codes, minlength=len(item.ids))
        items = Ids(item.ids.values[counts > 0])
        described = items.values.tolist() if table.titles or table.categories else []
        titles = {key: table.titles[key] for key in described if key in table.titles}
        positions: dict[str, list[int]] = {}
        for position, key in enumerate(described):
            for category in table.categories.get(key, ()):
                positions.setdefault(category, []).append(position)
        categories = {name: np.array(positions[name], np.int64) for name in sorted(positions)}
        return cls(table.user.take(rows).present(), items, titles, categories, counts[counts > 0].astype(np.int64))

    def state(self) -> dict[str, object]:
        """Return plain types, which ``torch.load(weights_only=True)`` reads."""
        return {
            "users": self.users.state(),
            "items": self.items.state(),
            "titles": dict(self.titles),
            "categories": {name: torch.from_numpy(positions) for name, positions in self.categories.items()},
            "counts": None if self.counts is None else torch.from_numpy(self.counts),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Vocabulary:
        """Make a vocabulary of a state; those of older versions have neither categories nor counts.

        Raises:
            CheckpointError: The state was not written by `state`.
        """
        try:
            items = Ids.from_state(state["items"])
            categories = {
                str(name): _check_positions(positions, len(items))
                for name, positions in state.get("categories", {}).items()
            }
            counts = state.get("counts")
            if counts is not None and (counts.dtype != torch.int64 or counts.shape != (len(items),)):
                raise ValueError(f"counts must be int64 [{len(items)}]")
            return cls(
                Ids.from_state(state["users"]),
                items,
                dict(state["titles"]),
                categories,
                None if counts is None else counts.numpy(),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"checkpoint: the vocabulary cannot be read ({error!r}); was it edited?") from error


def _check_positions(state: torch.Tensor, items: int) -> np.ndarray:
    """Return the positions of the items of a category: int64 [n]."""
    positions: np.ndarray = state.numpy()
    if positions.dtype != np.int64 or ((positions < 0) | (positions >= items)).any():
        raise ValueError(f"positions of items must be int64 below {items}")
    return positions
