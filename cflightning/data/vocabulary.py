"""What a model knows: its users and items, by the rows of its tables. Row 0 is the unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cflightning.data.ids import Id, Ids
from cflightning.data.table import RatingTable
from cflightning.errors import CheckpointError


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """Known users, known items, and what is known of the items.

    Attributes:
        users: of the rows of user tables.
        items: of the rows of item tables.
        titles: item id -> title, where known.
        categories: category, such as a genre -> int64 [n], ascending, the numbers of its items among ``items.values``.
        counts: int64 [items], training rows of each item; None of a checkpoint that does not say.
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
    def learn(cls, table: RatingTable, rows: Any) -> Vocabulary:
        """From the training part of a table (row numbers or a mask); what is said of other items is dropped."""
        item = table.item.take(rows)
        counts = np.bincount(item.codes, minlength=len(item.ids))
        items = Ids(item.ids.values[counts > 0])
        known = items.values.tolist() if table.titles or table.categories else []
        titles = {key: table.titles[key] for key in known if key in table.titles}
        numbers: dict[str, list[int]] = {}
        for number, key in enumerate(known):
            for category in table.categories.get(key, ()):
                numbers.setdefault(category, []).append(number)
        categories = {name: np.array(numbers[name], np.int64) for name in sorted(numbers)}
        return cls(table.user.take(rows).present(), items, titles, categories, counts[counts > 0].astype(np.int64))

    def state(self) -> dict[str, Any]:
        """Plain types only, so that ``torch.load(weights_only=True)`` reads it."""
        return {
            "users": self.users.state(),
            "items": self.items.state(),
            "titles": dict(self.titles),
            "categories": {name: torch.from_numpy(numbers) for name, numbers in self.categories.items()},
            "counts": None if self.counts is None else torch.from_numpy(self.counts),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Vocabulary:
        """Back from `state`; checkpoints of older versions have neither categories nor counts.

        Raises:
            CheckpointError: something else.
        """
        try:
            items = Ids.from_state(state["items"])
            categories = {str(name): _numbers(of, len(items)) for name, of in state.get("categories", {}).items()}
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


def _numbers(state: torch.Tensor, items: int) -> np.ndarray:
    """Numbers of items of one category: int64 [n]."""
    numbers: np.ndarray = state.numpy()
    if numbers.dtype != np.int64 or ((numbers < 0) | (numbers >= items)).any():
        raise ValueError(f"numbers of items must be int64 below {items}")
    return numbers
