"""User and item ids: the distinct ones, and columns of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from cflightning.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Id: TypeAlias = int | str
IdValues: TypeAlias = "np.ndarray | Sequence[Id] | pd.Series"
"""Ids as integers or strings."""


@dataclass(frozen=True, repr=False)
class Ids:
    """The distinct ids of users or items; ``values[j]`` has index ``j + 1`` in an embedding, unknown ids have 0.

    Attributes:
        values: int64 [n], or object [n] holding str; distinct and ascending.
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or (self.values[1:] <= self.values[:-1]).any():
            raise ValueError("ids must be distinct and in ascending order")

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Ids({len(self):,} of type {self.kind}{_first(self.values)})"

    @property
    def kind(self) -> str:
        """`int64` or `string`."""
        return "int64" if self.values.dtype == np.int64 else "string"

    @property
    def num_embeddings(self) -> int:
        """Size of an embedding of these ids: one more, for the unknown id."""
        return len(self.values) + 1

    @cached_property
    def _index_of_text(self) -> dict[str, int]:
        return {str(value): index for index, value in enumerate(self.values.tolist(), start=1)}

    def indices(self, column: IdValues) -> np.ndarray:
        """Return the indices of ids: int64 [n]; 0 for unknown ids.

        Integers equal strings by their canonical notation (42 is "42", not "042"), since one text file of a data set
        may have integer ids only and another not.

        Args:
            column: Ids [n].

        Raises:
            DataError: Integers where strings are known, or the other way round, and none is known.
        """
        ids = np.asarray(column)
        integers = ids.dtype.kind in "iu"
        if not len(ids) or not len(self):
            return np.zeros(len(ids), dtype=np.int64)
        if integers and self.kind == "int64":
            wanted = ids.astype(np.int64)
            position = np.minimum(np.searchsorted(self.values, wanted), len(self) - 1)
            indices: np.ndarray = np.where(self.values[position] == wanted, position + 1, 0)
            return indices
        texts = map(str, ids.tolist()) if integers else ids.tolist()
        indices = np.fromiter((self._index_of_text.get(text, 0) for text in texts), dtype=np.int64, count=len(ids))
        if integers != (self.kind == "int64") and not indices.any():
            raise DataError(
                f"ids: must be of the type seen in training ({self.kind}), got {'integers' if integers else 'strings'} "
                f"such as {ids.tolist()[0]!r}, none of them known: mixed id types; write both tables the same way"
            )
        return indices

    def indices_of(self, column: IdColumn) -> np.ndarray:
        """Return the indices of a column's ids: int32 [n]; each distinct id is looked up once."""
        indices: np.ndarray = self.indices(column.ids.values).astype(np.int32)[column.codes]
        return indices

    def state(self) -> torch.Tensor | list[str]:
        """Return plain data for a checkpoint: an int64 tensor, or a list of strings."""
        return torch.from_numpy(self.values.copy()) if self.kind == "int64" else self.values.tolist()

    @classmethod
    def from_state(cls, state: torch.Tensor | Iterable[Id]) -> Ids:
        """Make ids of a state, or of ids in ascending order."""
        if isinstance(state, torch.Tensor):
            if state.dtype != torch.int64:
                raise ValueError(f"ids must be int64, got {state.dtype}")
            return cls(state.numpy())
        values = list(state)
        integers = bool(values) and all(isinstance(value, int) for value in values)
        if not integers and not all(isinstance(value, str) for value in values):
            raise ValueError("ids must be integers or strings")
        return cls(np.array(values, dtype=np.int64 if integers else object))


@dataclass(frozen=True, repr=False)
class IdColumn:
    """A column of ids as codes of the distinct ids, four bytes a row.

    Attributes:
        ids: The distinct ids; in a part of a table some may not occur.
        codes: int32 [n]; row ``j`` has the id ``ids.values[codes[j]]``.
    """

    ids: Ids
    codes: np.ndarray

    @classmethod
    def encode(cls, column: IdValues) -> IdColumn:
        """Make a column of ids [n]."""
        import pandas as pd  # not at the top: reading a file does not need its half second

        codes, values = pd.factorize(pd.Series(column))
        return cls.from_codes(codes, np.asarray(values, dtype=np.int64 if values.dtype == np.int64 else object))

    @classmethod
    def from_codes(cls, codes: np.ndarray, values: np.ndarray) -> IdColumn:
        """Make a column of codes of distinct ids that are in any order."""
        order = np.argsort(values, kind="stable")
        new_codes = np.empty(len(order), np.int32)
        new_codes[order] = np.arange(len(order), dtype=np.int32)
        return cls(Ids(values[order]), new_codes[codes])

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"IdColumn({len(self):,} rows{_first(self.ids.values[self.codes[:4]])}; {self.ids!r})"

    @property
    def values(self) -> np.ndarray:
        """The id of each row: int64 [n], or object [n] holding str."""
        values: np.ndarray = self.ids.values[self.codes]
        return values

    def take(self, rows: np.ndarray | slice) -> IdColumn:
        """Return some of the rows (positions, a slice or a mask), over the same distinct ids."""
        return IdColumn(self.ids, self.codes[rows])

    def present(self) -> Ids:
        """Return the ids that occur."""
        return Ids(self.ids.values[np.bincount(self.codes, minlength=len(self.ids)) > 0])

    def append(self, other: IdColumn) -> IdColumn:
        """Return the rows of both columns; if one has integers and the other strings, all become strings.

        Raises:
            DataError: One column has integers and the other strings, and none are equal as text.
        """
        values = [self.ids.values, other.ids.values]
        if self.ids.kind != other.ids.kind:
            self.ids.indices(values[1])  # raises
            values = [part.astype(str).astype(object) for part in values]
        distinct, new_codes = np.unique(np.concatenate(values), return_inverse=True)
        codes = np.concatenate([self.codes, other.codes + np.int32(len(self.ids))])
        return IdColumn(Ids(distinct), new_codes.astype(np.int32)[codes])


def _first(values: np.ndarray) -> str:
    """Return the first few ids, for a repr."""
    shown = [text if len(text := repr(value)) <= 30 else f"{text[:29]}…" for value in values[:3].tolist()]
    return (": " if shown else "") + ", ".join(shown) + (", …" if len(values) > 3 else "")
