"""The catalogue as the page shows it: which items there are, what they are called, where they lie on a map."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import to_id_array
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.errors import InputError
from cflightning_serve.http.ui.pca import Plane
from cflightning_serve.http.ui.title_search import Titles, are_films
from cflightning_serve.scorer import Scorer

MAPPED = 1000
"""Items on the map: more dots would cover each other."""
_DIGITS = 4
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


@dataclass(frozen=True)
class Item:
    """One item of the catalogue."""

    item: int | str
    title: str | None
    count: int | None
    """Ratings or choices in training."""


@dataclass(frozen=True)
class Place(Item):
    """One item on the map; x and y in units of the item vectors."""

    x: float
    y: float


class Catalogued:
    """The items of one bundle, the most rated first. Nothing is computed before it is asked for, and nothing twice.

    Safe to share between threads.

    Args:
        scorer: the bundle's.

    Raises:
        UnsupportedError: the bundle has no catalogue.
    """

    def __init__(self, scorer: Scorer) -> None:
        catalogue = scorer.catalogue
        ids, counts = catalogue.ids, catalogue.counts
        numbers: Sequence[int | None] = [None] * len(ids)
        if counts is not None:
            order = np.argsort(-counts, kind="stable")  # equals as the catalogue has them
            ids, numbers = ids[order], counts[order].tolist()
        self.items = list(map(Item, ids.tolist(), scorer.titles(ids), numbers))
        self.films = are_films(one.title for one in self.items if one.title is not None)
        self._titles = Titles(str(one.item) if one.title is None else one.title for one in self.items)
        self._lock = threading.Lock()
        self._map: tuple[Plane, list[Place]] | None = None

    def find(self, query: str, limit: int) -> list[Item]:
        """Find items by a part of their title, or of their id where they have none.

        Args:
            query: as typed; an empty one finds the most rated items.
            limit: how many at most.
        """
        return [self.items[position] for position in self._titles.find(query, limit)]

    def places(self, scorer: Scorer, items: Sequence[int | str] | None = None) -> list[Place]:
        """Place items on the plane of the two principal components of the most rated items' vectors.

        Args:
            scorer: the same bundle's.
            items: known item ids; the most rated ones where None.

        Returns:
            A place for each known item; unknown ones are left out.

        Raises:
            UnsupportedError: the bundle does not give the items' vectors away.
            InputError: ids of the wrong type.
        """
        with self._lock:
            if self._map is None:
                self._map = _map(scorer, self.items[:MAPPED])
        plane, places = self._map
        if items is None:
            return places
        known = to_id_array(items, scorer.manifest.item_ids, "item")[0]
        known = known[scorer.knows_item(known)]
        return _placed(plane, scorer.factors(known), [Item(one, scorer.title(one), None) for one in known.tolist()])


class Latest:
    """The catalogues of the bundles in use: each is read when it is first asked for, and forgotten with its scorer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakKeyDictionary[Scorer, Catalogued] = WeakKeyDictionary()

    def of(self, scorer: Scorer) -> Catalogued:
        """Return the catalogue of a scorer's bundle.

        Raises:
            UnsupportedError: the bundle has none.
        """
        with self._lock:
            if scorer not in self._known:
                self._known[scorer] = Catalogued(scorer)
            return self._known[scorer]


def parse_ids(texts: Sequence[str], kind: IdType) -> list[int | str]:
    """Turn ids out of a URL into ids as the bundle has them.

    Raises:
        InputError: the bundle's ids are integers and one of these is none.
    """
    if kind == "string":
        return list(texts)
    for text in texts:
        if not _INTEGER.fullmatch(text):
            raise InputError(f"item: ids are integers in this bundle, got {text[:60]!r}")
    return [int(text) for text in texts]


def _map(scorer: Scorer, items: Sequence[Item]) -> tuple[Plane, list[Place]]:
    ids, _ = to_id_array([one.item for one in items], scorer.manifest.item_ids, "item")
    vectors = scorer.factors(ids)
    plane = Plane(vectors)
    return plane, _placed(plane, vectors, items)


def _placed(plane: Plane, vectors: npt.NDArray[np.floating[Any]], items: Sequence[Item]) -> list[Place]:
    points = plane.project(vectors).round(_DIGITS).tolist()
    return [Place(one.item, one.title, one.count, x, y) for one, (x, y) in zip(items, points, strict=True)]
