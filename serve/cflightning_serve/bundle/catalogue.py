"""The catalogue of a bundle: ids, rating counts and categories of its items, and filters by them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, as_collection, is_iterable_of_ids, to_id_array
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.errors import InputError, UnsupportedError

MAX_NAMED_CATEGORIES = 8
"""Number of known categories that a message names."""


@dataclass(frozen=True)
class Catalogue:
    """Metadata of the known items, in catalogue order: the order of items with equal scores."""

    id_type: IdType
    ids: IdArray
    """int64 [items], or object [items] of str."""
    counts: npt.NDArray[np.int64] | None
    """int64 [items], training rows of each item; None if the bundle does not have them."""
    categories: Mapping[str, npt.NDArray[np.int64]]
    """Category -> int64 [n], indices of its items in ``ids``."""
    index_by_id: Mapping[str, int] | None = field(default=None, repr=False, compare=False)
    """String id -> index, if built in advance."""

    def indices(self, items: object, name: str = "item") -> npt.NDArray[np.int64]:
        """Return the indices of items in ``ids``: int64 [n], -1 for unknown items.

        Raises:
            InputError: an id has the wrong type.
        """
        requested = to_id_array(items, self.id_type, name)[0]
        if not len(requested) or not len(self.ids):
            return np.full(len(requested), -1)
        if self.id_type == "string":
            index_by_id = self._index_by_id
            return np.fromiter((index_by_id.get(item, -1) for item in requested), np.int64, len(requested))
        order = self._order
        index = order[np.minimum(np.searchsorted(self.ids, requested, sorter=order), len(order) - 1)]
        return np.where(self.ids[index] == requested, index, -1)

    def allowed(
        self,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] | None = None,
        categories: str | Iterable[str] | None = None,
        min_count: int | None = None,
    ) -> npt.NDArray[np.bool_] | None:
        """Return a mask of the items that pass all filters: bool [items], or None if there are no filters.

        Args:
            allow: item ids; only these pass. Unknown ids are ignored.
            deny: item ids; none of these pass. Unknown ids are ignored.
            categories: one category or several; only items of any of them pass.
            min_count: only items with at least this many training rows pass.

        Raises:
            InputError: an id has the wrong type, a category is unknown, or ``min_count`` is not an integer from 0.
            UnsupportedError: ``min_count``, but the bundle has no counts.
        """
        if allow is None and deny is None and categories is None and min_count is None:
            return None
        mask = np.full(len(self.ids), allow is None)
        if allow is not None:
            mask[self._known_indices("allow", allow)] = True
        if deny is not None:
            mask[self._known_indices("deny", deny)] = False
        if categories is not None:
            mask &= self._in_categories([categories] if isinstance(categories, str) else categories)
        if min_count is not None:
            mask &= self._with_count(min_count)
        return mask

    @cached_property
    def _index_by_id(self) -> Mapping[str, int]:
        return dict(zip(self.ids, range(len(self.ids)), strict=True)) if self.index_by_id is None else self.index_by_id

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return np.argsort(self.ids, kind="stable")

    def _known_indices(self, option: str, ids: Iterable[object]) -> npt.NDArray[np.int64]:
        if not is_iterable_of_ids(ids):
            raise InputError(f"{option}: must be a list of item ids, got {ids!r}")
        indices = self.indices(as_collection(ids), f"{option}: item")
        return indices[indices >= 0]

    def _in_categories(self, names: Iterable[str]) -> npt.NDArray[np.bool_]:
        mask = np.zeros(len(self.ids), bool)
        for name in names if isinstance(names, Iterable) else [names]:
            if not isinstance(name, str) or name not in self.categories:
                known = sorted(self.categories)
                more = ", ..." if len(known) > MAX_NAMED_CATEGORIES else ""
                known_names = (
                    f"known are {', '.join(known[:MAX_NAMED_CATEGORIES])}{more}" if known else "there are none"
                )
                raise InputError(f"categories: must be known, got {name!r}; {known_names}")
            mask[self.categories[name]] = True
        return mask

    def _with_count(self, min_count: object) -> npt.NDArray[np.bool_]:
        if isinstance(min_count, bool) or not isinstance(min_count, (int, np.integer)) or min_count < 0:
            raise InputError(f"min_count: must be an integer from 0, got {min_count!r}")
        if self.counts is None:
            raise UnsupportedError("min_count: the bundle has no rating counts of items; train and export again")
        return self.counts >= min_count
