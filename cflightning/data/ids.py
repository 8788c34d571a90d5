"""Ids, as the user of the library knows them: the distinct ones, and columns of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch

from cflightning.errors import DataError

Id: TypeAlias = int | str


@dataclass(frozen=True, repr=False)
class Ids:
    """The known ids of one side, sorted; id number ``j`` has row ``j + 1``.

    Attributes:
        values: int64 [n], or object [n] holding str; distinct and ascending.
    """

    values: np.ndarray

    @classmethod
    def learn(cls, column: Any) -> Ids:
        """The distinct ids of a column (int64 or strings)."""
        return IdColumn.encode(column).ids

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
    def num_rows(self) -> int:
        """Rows of a table of these ids: one more, for the unknown."""
        return len(self.values) + 1

    @cached_property
    def _index(self) -> dict[str, int]:
        """Row by how the id is written."""
        return {str(value): row for row, value in enumerate(self.values.tolist(), start=1)}

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
        given = np.asarray(column)
        integers = given.dtype.kind in "iu"
        if not len(given) or not len(self):
            return np.zeros(len(given), dtype=np.int64)
        if integers and self.kind == "int64":
            wanted = given.astype(np.int64)
            place = np.minimum(np.searchsorted(self.values, wanted), len(self) - 1)
            rows: np.ndarray = np.where(self.values[place] == wanted, place + 1, 0)
            return rows
        written = map(str, given.tolist()) if integers else given.tolist()
        rows = np.fromiter((self._index.get(value, 0) for value in written), dtype=np.int64, count=len(given))
        if integers != (self.kind == "int64") and not rows.any():
            raise DataError(
                f"ids: must be of the type seen in training ({self.kind}), got {'integers' if integers else 'strings'} "
                f"such as {given.tolist()[0]!r}, none of them known: mixed id types; write both tables the same way"
            )
        return rows

    def rows_of(self, column: IdColumn) -> np.ndarray:
        """Rows of a column's ids, as `rows`: looked up once for each distinct id -> int32 [n]."""
        rows: np.ndarray = self.rows(column.ids.values).astype(np.int32)[column.codes]
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


@dataclass(frozen=True, repr=False)
class IdColumn:
    """A column of ids, held as numbers into the distinct ones: four bytes a row whatever the ids look like.

    Attributes:
        ids: the distinct ids; in a part of a table some may occur nowhere.
        codes: int32 [n]; row ``j`` holds the id ``ids.values[codes[j]]``.
    """

    ids: Ids
    codes: np.ndarray

    @classmethod
    def encode(cls, column: Any) -> IdColumn:
        """From ids as they are: [n], int64 or strings."""
        import pandas as pd  # not at the top: a run that reads a file does without its half second

        codes, values = pd.factorize(pd.Series(column))
        return cls.from_codes(codes, np.asarray(values, dtype=np.int64 if values.dtype == np.int64 else object))

    @classmethod
    def from_codes(cls, codes: np.ndarray, values: np.ndarray) -> IdColumn:
        """From numbers into distinct ids that are in any order."""
        order = np.argsort(values, kind="stable")
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        return cls(Ids(values[order]), place[codes])

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"IdColumn({len(self):,} rows{_first(self.ids.values[self.codes[:4]])}; {self.ids!r})"

    @property
    def values(self) -> np.ndarray:
        """The ids themselves: int64 [n], or object [n] holding str."""
        values: np.ndarray = self.ids.values[self.codes]
        return values

    def take(self, rows: Any) -> IdColumn:
        """Some of the rows (numbers or a mask), over the same distinct ids."""
        return IdColumn(self.ids, self.codes[rows])

    def present(self) -> Ids:
        """The ids that occur."""
        return Ids(self.ids.values[np.bincount(self.codes, minlength=len(self.ids)) > 0])

    def append(self, other: IdColumn) -> IdColumn:
        """Both, one after the other; where one holds integers and the other strings, both are written as strings.

        Raises:
            DataError: integers and strings of which none are written the same.
        """
        values = [self.ids.values, other.ids.values]
        if self.ids.kind != other.ids.kind:
            self.ids.rows(values[1])  # raises
            values = [part.astype(str).astype(object) for part in values]
        distinct, place = np.unique(np.concatenate(values), return_inverse=True)
        codes = np.concatenate([self.codes, other.codes + np.int32(len(self.ids))])
        return IdColumn(Ids(distinct), place.astype(np.int32)[codes])


def _first(values: np.ndarray) -> str:
    """Return the first few ids, for a repr."""
    shown = [text if len(text := repr(value)) <= 30 else f"{text[:29]}…" for value in values[:3].tolist()]
    return (": " if shown else "") + ", ".join(shown) + (", …" if len(values) > 3 else "")
