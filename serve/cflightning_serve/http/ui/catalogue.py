"""The catalogue as the page shows it: items with titles and counts, title search, and map coordinates."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import to_id_array
from cflightning_serve.http.ui.pca import PrincipalPlane
from cflightning_serve.http.ui.title_search import TitleIndex, are_films
from cflightning_serve.scorer import Scorer

MAP_ITEMS = 1000
"""Items on the map by default; more dots would cover each other."""
_DECIMALS = 4
"""Decimals of map coordinates."""


@dataclass(frozen=True)
class CatalogueItem:
    """An item of the catalogue; ``count`` is its number of ratings or interactions in training."""

    item: int | str
    title: str | None
    count: int | None


@dataclass(frozen=True)
class MapPoint(CatalogueItem):
    """An item on the map; coordinates in units of the item vectors."""

    x: float
    y: float


class CatalogueIndex:
    """The items of one bundle in order of popularity. The map is computed at its first use. Thread-safe.

    Args:
        scorer: scorer of the bundle.
        map_items: number of most popular items that the map is computed from.

    Raises:
        UnsupportedError: the bundle has no catalogue.
    """

    def __init__(self, scorer: Scorer, map_items: int = MAP_ITEMS) -> None:
        catalogue = scorer.catalogue
        ids, counts = catalogue.ids, catalogue.counts
        numbers: Sequence[int | None] = [None] * len(ids)
        if counts is not None:
            order = np.argsort(-counts, kind="stable")  # equal counts keep the order of the catalogue
            ids, numbers = ids[order], counts[order].tolist()
        self.items = list(map(CatalogueItem, ids.tolist(), scorer.titles(ids), numbers))
        self.is_of_films = are_films(item.title for item in self.items if item.title is not None)
        self._titles = TitleIndex(str(item.item) if item.title is None else item.title for item in self.items)
        self._map_items = map_items
        self._lock = threading.Lock()
        self._map: tuple[PrincipalPlane, list[MapPoint]] | None = None

    def search(self, query: str, limit: int) -> list[CatalogueItem]:
        """Find items by a part of their title, or of their id where they have no title.

        Args:
            query: text as typed; an empty one returns the most popular items.
            limit: maximal number of items.
        """
        return [self.items[position] for position in self._titles.search(query, limit)]

    def map_points(self, scorer: Scorer, items: Sequence[int | str] | None = None) -> list[MapPoint]:
        """Return map coordinates: the two principal components of the most popular items' vectors.

        Args:
            scorer: scorer of the same bundle.
            items: item ids; None for the most popular items.

        Returns:
            One point for each known item; unknown ones are left out.

        Raises:
            UnsupportedError: the bundle does not contain item vectors.
            InputError: ids of the wrong type.
        """
        with self._lock:
            if self._map is None:
                shown = self.items[: self._map_items]
                ids = to_id_array([item.item for item in shown], scorer.manifest.item_ids, "item")[0]
                vectors = scorer.factors(ids)
                plane = PrincipalPlane(vectors)
                self._map = plane, _points(plane, vectors, shown)
        plane, points = self._map
        if items is None:
            return points
        known = to_id_array(items, scorer.manifest.item_ids, "item")[0]
        known = known[scorer.knows_item(known)]
        described = [CatalogueItem(item, scorer.title(item), None) for item in known.tolist()]
        return _points(plane, scorer.factors(known), described)


class CatalogueCache:
    """Catalogue indices of the bundles in use, made at the first request and dropped with their scorer.

    Args:
        map_items: see :class:`CatalogueIndex`.
    """

    def __init__(self, map_items: int = MAP_ITEMS) -> None:
        self._map_items = map_items
        self._lock = threading.Lock()
        self._indices: WeakKeyDictionary[Scorer, CatalogueIndex] = WeakKeyDictionary()

    def get(self, scorer: Scorer) -> CatalogueIndex:
        """Return the catalogue index of a scorer's bundle.

        Raises:
            UnsupportedError: the bundle has no catalogue.
        """
        with self._lock:
            if scorer not in self._indices:
                self._indices[scorer] = CatalogueIndex(scorer, self._map_items)
            return self._indices[scorer]


def _points(plane: PrincipalPlane, vectors: npt.NDArray[np.floating], items: Sequence[CatalogueItem]) -> list[MapPoint]:
    coordinates = plane.project(vectors).round(_DECIMALS).tolist()
    return [MapPoint(item.item, item.title, item.count, x, y) for item, (x, y) in zip(items, coordinates, strict=True)]
