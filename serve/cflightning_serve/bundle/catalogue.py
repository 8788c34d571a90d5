"""The catalogue of a bundle: ids, training rows and categories of the items, and which of them a question allows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.files import AGAIN, decompress, parse_json
from cflightning_serve.bundle.ids import IdArray, to_id_array
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.manifest import IdType, Manifest
from cflightning_serve.errors import BundleError, InputError, UnsupportedError

_SHOWN = 8
"""Categories that a message names."""
_STEP = 10_000
"""Ids that are looked at in one go."""


@dataclass(frozen=True)
class Catalogue:
    """What is known of the items beside their factors, in the order of the catalogue: that of equal scores."""

    kind: IdType
    ids: IdArray
    """int64 [items] or object [items] of str."""
    counts: npt.NDArray[np.int64] | None
    """int64 [items], training rows of each item; None where the bundle does not say."""
    categories: Mapping[str, npt.NDArray[np.int64]]
    """Category -> int64 [n], places of its items in ``ids``."""
    index: Mapping[str, int] | None = field(default=None, repr=False, compare=False)
    """String id -> place, where it was made beforehand."""

    def indices(self, items: object, what: str = "item") -> npt.NDArray[np.int64]:
        """Where items stand in ``ids``: int64 [n], -1 for those that are unknown.

        Raises:
            InputError: an id is of the wrong type.
        """
        given = to_id_array(items, self.kind, what)[0]
        if not len(given) or not len(self.ids):
            return np.full(len(given), -1)
        if self.kind == "string":
            return np.fromiter((self._place.get(one, -1) for one in given), np.int64, len(given))
        order = self._order
        place = order[np.minimum(np.searchsorted(self.ids, given, sorter=order), len(order) - 1)]
        return np.where(self.ids[place] == given, place, -1)

    def allowed(
        self,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        categories: str | Iterable[str] | None = None,
        min_count: int | None = None,
    ) -> npt.NDArray[np.bool_] | None:
        """Which items may be recommended: bool [items], or None where nothing is asked.

        Args:
            allow: ids, only these; unknown ones are fine.
            deny: ids, none of these; unknown ones are fine.
            categories: one or several, only items of any of them.
            min_count: only items with at least so many training rows.

        Raises:
            InputError: an id of the wrong type, an unknown category, or ``min_count`` no integer from 0.
            UnsupportedError: ``min_count`` of a bundle that does not know the counts.
        """
        if allow is None and deny is None and categories is None and min_count is None:
            return None
        mask = np.full(len(self.ids), allow is None)
        if allow is not None:
            mask[self._given("allow", allow)] = True
        if deny is not None:
            mask[self._given("deny", deny)] = False
        if categories is not None:
            mask &= self._of_any([categories] if isinstance(categories, str) else categories)
        if min_count is not None:
            mask &= self._rated_often(min_count)
        return mask

    @cached_property
    def _place(self) -> Mapping[str, int]:
        """Index of each string id, made at its first use."""
        return _index(self.ids) if self.index is None else self.index

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return np.argsort(self.ids, kind="stable")

    def _given(self, name: str, ids: Iterable[Any]) -> npt.NDArray[np.int64]:
        if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
            raise InputError(f"{name}: must be a list of item ids, got {ids!r}")
        plain = ids if isinstance(ids, (list, tuple)) or hasattr(ids, "__array__") else list(ids)
        places = self.indices(plain, f"{name}: item")
        return places[places >= 0]

    def _of_any(self, names: Iterable[str]) -> npt.NDArray[np.bool_]:
        mask = np.zeros(len(self.ids), bool)
        for name in names if isinstance(names, Iterable) else [names]:
            if not isinstance(name, str) or name not in self.categories:
                raise InputError(f"categories: must be known, got {name!r}; {self._some_categories()}")
            mask[self.categories[name]] = True
        return mask

    def _some_categories(self) -> str:
        if not self.categories:
            return "the bundle has none"
        known = sorted(self.categories)
        return f"there are {', '.join(known[:_SHOWN])}{', ...' if len(known) > _SHOWN else ''}"

    def _rated_often(self, least: int) -> npt.NDArray[np.bool_]:
        if isinstance(least, bool) or not isinstance(least, (int, np.integer)) or least < 0:
            raise InputError(f"min_count: must be an integer from 0, got {least!r}")
        if self.counts is None:
            raise UnsupportedError(
                "min_count: the bundle does not say how often items were rated; train and export again"
            )
        return self.counts >= least


def read_catalogue(manifest: Manifest, contents: LoadedFiles, cancellation: Cancellation | None = None) -> Catalogue:
    """Read the catalogue of a bundle.

    Args:
        manifest: of the bundle.
        contents: its files.
        cancellation: gives up the reading, which then makes room for other threads.

    Raises:
        BundleError: the file cannot be read, or holds something else.
        UnsupportedError: the bundle has none.
    """
    if manifest.catalogue is None:
        raise UnsupportedError(f"{manifest.folder}: has no catalogue, which an older version wrote; export it again")
    path = contents.path(manifest.catalogue)
    raw = parse_json(
        path, decompress(path, contents.read(manifest.catalogue)), None if cancellation is None else cancellation.check
    )
    items = manifest.num_items - 1

    def check(holds: bool, must: str) -> None:
        if not holds:
            raise BundleError(f"{path}: {must}; {AGAIN}")

    check(type(raw) is dict and {"item", "count", "categories"} <= raw.keys(), "must have item, count and categories")
    ids, counts, categories = raw["item"], raw["count"], raw["categories"]
    type_ = int if manifest.item_ids == "int64" else str
    check(_is_list_of(ids, type_, items), f"item must be {items:,} ids of type {manifest.item_ids}")
    check(counts is None or (_is_list_of(counts, int, items) and min(counts, default=0) >= 0),
          f"count must be null or {items:,} integers from 0")  # fmt: skip
    check(type(categories) is dict, "categories must be an object")
    pause = None if cancellation is None else cancellation.check
    try:
        tables = {name: _places(places, items) for name, places in categories.items()}
        for name, table in tables.items():
            check(table is not None, f"categories -> {name[:60]!r} must be places in item")
        return Catalogue(
            manifest.item_ids,
            np.array(ids, np.int64 if type_ is int else object),
            None if counts is None else np.array(counts, np.int64),
            {name: table for name, table in tables.items() if table is not None},
            None if pause is None or type_ is int else _index(ids, pause),
        )
    except OverflowError as error:
        raise BundleError(f"{path}: ids and counts must fit into 64 bits; {AGAIN}") from error


def _is_list_of(values: object, type_: type, length: int | None = None) -> bool:
    return type(values) is list and length in (None, len(values)) and set(map(type, values)) <= {type_}


def _places(places: object, items: int) -> npt.NDArray[np.int64] | None:
    """Places in the catalogue as an array; None where they are none."""
    if not _is_list_of(places, int):
        return None
    table = np.array(places, np.int64)
    return table if ((table >= 0) & (table < items)).all() else None


def _index(ids: Sequence[str] | IdArray, pause: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Id -> place, made in steps with a pause after each."""
    index: dict[str, int] = {}
    for begin in range(0, len(ids), _STEP):
        index.update(zip(ids[begin : begin + _STEP], range(begin, len(ids)), strict=False))
        pause()
    return index
