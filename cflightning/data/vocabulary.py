"""What a model knows: its users and items, by the rows of its tables. Row 0 is the unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cflightning.data.ids import Id, Ids
from cflightning.data.table import RatingTable
from cflightning.errors import CheckpointError


@dataclass(frozen=True)
class Vocabulary:
    """Known users, known items, and the titles of items where known."""

    users: Ids
    items: Ids
    titles: dict[Id, str] = field(default_factory=dict)

    @classmethod
    def learn(cls, table: RatingTable, rows: Any) -> Vocabulary:
        """From the training part of a table (row numbers or a mask); titles of other items are dropped."""
        items = table.item.take(rows).present()
        known = set(items.values.tolist()) if table.titles else set()
        titles = {key: text for key, text in table.titles.items() if key in known}
        return cls(table.user.take(rows).present(), items, titles)

    def state(self) -> dict[str, Any]:
        """Plain types only, so that ``torch.load(weights_only=True)`` reads it."""
        return {"users": self.users.state(), "items": self.items.state(), "titles": dict(self.titles)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Vocabulary:
        """Back from `state`.

        Raises:
            CheckpointError: something else.
        """
        try:
            return cls(Ids.from_state(state["users"]), Ids.from_state(state["items"]), dict(state["titles"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"checkpoint: the vocabulary cannot be read ({error!r}); was it edited?") from error
