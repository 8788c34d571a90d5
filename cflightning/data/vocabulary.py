"""Ids (as the user of the library knows them) to rows (of the tables) and back. Row 0 is the unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from cflightning.data.table import Id
from cflightning.errors import CheckpointError, DataError


@dataclass(frozen=True)
class Ids:
    """The known ids of one side, sorted; id number ``j`` has row ``j + 1``.

    Attributes:
        values: int64 [n], or object [n] holding str; distinct and ascending.
    """

    values: np.ndarray

    @classmethod
    def learn(cls, column: Any) -> Ids:
        """The distinct ids of a column (int64 or strings)."""
        values = pd.unique(pd.Series(column))
        integers = values.dtype == np.int64
        return cls(np.sort(np.asarray(values, dtype=np.int64 if integers else object)))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def kind(self) -> str:
        """`int64` or `string`."""
        return "int64" if self.values.dtype == np.int64 else "string"

    @property
    def num_rows(self) -> int:
        """Rows of a table of these ids: one more, for the unknown."""
        return len(self.values) + 1

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.values) if self.kind == "int64" else pd.Index(self.values, dtype=object)

    def rows(self, column: Any) -> np.ndarray:
        """Rows of ids; 0 for those that are not known.

        Integers are compared with strings by how they are written (42 is "42", not "042"): whether a text file's ids
        are all plain integers can differ from file to file.

        Args:
            column: ids [n].

        Returns:
            int64 [n].

        Raises:
            DataError: integers where strings are known, or the other way round, and none is the same.
        """
        series = pd.Series(column)
        integers = pd.api.types.is_integer_dtype(series.dtype)
        if not len(series) or not len(self) or integers == (self.kind == "int64"):
            index = self._index
            values = series.to_numpy(dtype=np.int64 if integers else object)
        else:
            index = pd.Index(self.values.astype(str), dtype=object)
            values = series.astype(str).to_numpy(dtype=object)
        rows: np.ndarray = index.get_indexer(pd.Index(values)).astype(np.int64) + 1
        if index is not self._index and not rows.any():
            raise DataError(
                f"ids: must be of the type seen in training ({self.kind}), got {'integers' if integers else 'strings'} "
                f"such as {series.iloc[0]!r}, none of them known: mixed id types; write both tables the same way"
            )
        return rows

    def state(self) -> torch.Tensor | list[str]:
        """Plain data for a checkpoint: an int64 tensor, or a list of strings."""
        return torch.from_numpy(self.values.copy()) if self.kind == "int64" else self.values.tolist()

    @classmethod
    def from_state(cls, state: torch.Tensor | Iterable[Id]) -> Ids:
        """Back from `state`, or from any list of ids in order."""
        if isinstance(state, torch.Tensor):
            if state.dtype != torch.int64:
                raise ValueError(f"ids must be int64, got {state.dtype}")
            return cls(state.numpy())
        values = list(state)
        integers = bool(values) and all(isinstance(value, int) for value in values)
        if not integers and not all(isinstance(value, str) for value in values):
            raise ValueError("ids must be integers or strings")
        return cls(np.array(values, dtype=np.int64 if integers else object))


@dataclass(frozen=True)
class Vocabulary:
    """Known users, known items, and the titles of items where known."""

    users: Ids
    items: Ids
    titles: dict[Id, str] = field(default_factory=dict)

    @classmethod
    def learn(cls, frame: pd.DataFrame, titles: dict[Id, str] | None = None) -> Vocabulary:
        """From the training part of a table; titles of other items are dropped."""
        items = Ids.learn(frame["item"])
        known = set(items.values.tolist())
        return cls(Ids.learn(frame["user"]), items, {key: text for key, text in (titles or {}).items() if key in known})

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

    def __post_init__(self) -> None:
        for ids in (self.users, self.items):
            if ids.values.ndim != 1 or (ids.values[1:] <= ids.values[:-1]).any():
                raise ValueError("ids must be distinct and in ascending order")
