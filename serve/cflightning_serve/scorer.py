"""``Scorer``: the answers of one bundle."""

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from cflightning_serve.errors import InputError, UnknownIdError
from cflightning_serve.graphs import Graphs
from cflightning_serve.inputs import IdArray, ManyIds, OneId, as_array, exclusions, positive_integer
from cflightning_serve.manifest import IdType, Manifest
from cflightning_serve.titles import read_titles

_BLOCK = 1 << 23
"""Numbers that one call of a graph may hold in a table (32 MiB); longer questions are asked in blocks."""
_WHOLE = (slice(None),)


class TopK(NamedTuple):
    """The best items for a user, or the nearest items of an item, best first."""

    items: IdArray
    """int64 [k'] or object [k'] of str, raw ids; k' is smaller than k where the catalogue has no more."""
    scores: npt.NDArray[np.float32]
    """float32 [k'], descending: cosines for similar items; for recommendations what ``manifest.units["recommend"]``
    says, rating units or scores without a unit ("choice"), of which only the order means something."""


class Scorer:
    """Answers questions from one bundle. Made by :meth:`load`; safe to share between threads.

    Args:
        manifest: the bundle's manifest, its files checked.
        threads: threads of onnxruntime inside one call. 1 is right for a server, which has
            threads or processes of its own.
    """

    def __init__(self, manifest: Manifest, *, threads: int = 1) -> None:
        self._manifest = manifest
        self._graphs = Graphs(manifest, positive_integer("threads", threads))
        self._graphs.open("score")
        self._titles: dict[str, str] | None = None
        self._titles_lock = threading.Lock()
        self._no_rows = np.empty(0, np.int64)
        self._no_items = _blank(manifest.item_ids, 0)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, verify: bool = True, threads: int = 1, eager: bool = False
    ) -> "Scorer":
        """Open the bundle in the folder ``path``.

        Args:
            path: folder of the bundle.
            verify: compare the digest of every file. False skips only that (about a second per GB); names, lengths
                and the manifest's own digest are always checked.
            threads: threads of onnxruntime inside one call, at least 1.
            eager: open every graph and read the titles now rather than when first asked, so that the folder may be
                replaced or removed while this scorer goes on.

        Raises:
            BundleError: the bundle is damaged, incomplete, edited by hand, newer than this reader, or not a bundle.
            InputError: ``threads`` is no integer from 1.
        """
        manifest = Manifest.read(path)
        manifest.verify(digests=verify)
        scorer = cls(manifest, threads=threads)
        if eager:
            scorer._read_titles()
            scorer.graphs.open_all()
        return scorer

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._manifest

    @property
    def graphs(self) -> Graphs:
        """The graphs themselves, for questions in raw tensors as ``BUNDLE.md`` has them."""
        return self._graphs

    @overload
    def score(self, users: OneId, items: OneId) -> float: ...  # type: ignore[overload-overlap]  # a str is also a sequence
    @overload
    def score(self, users: OneId | ManyIds, items: OneId | ManyIds) -> npt.NDArray[np.float32]: ...
    def score(self, users: OneId | ManyIds, items: OneId | ManyIds) -> float | npt.NDArray[np.float32]:
        """Predict the rating of each (user, item) pair, or how soon the user would choose the item.

        Which of them, ``manifest.units["score"]`` says. An unknown user gets what all users give the item on average,
        an unknown item what the user gives on average, or, where choices are predicted, a score that says nothing.

        Args:
            users: one user id, or ids [n].
            items: one item id, or ids [n]. One id against an array stands for every pair of it.

        Returns:
            A float for one user and one item, otherwise float32 [n]; in rating units, or without a unit ("choice").

        Raises:
            InputError: ids of the wrong type, or two arrays of unequal length.
        """
        user, one_user = as_array(users, self._manifest.user_ids, "user")
        item, one_item = as_array(items, self._manifest.item_ids, "item")
        if one_user and not one_item:
            user = user.repeat(len(item))
        elif one_item and not one_user:
            item = item.repeat(len(user))
        elif len(user) != len(item):
            raise InputError(
                f"score: users and items must pair up, got {len(user)} users and {len(item)} items; "
                "give arrays of equal length, or one id against an array"
            )
        scores: npt.NDArray[np.float32] = self._pairs("score", user, item)
        return float(scores[0]) if one_user and one_item else scores

    @overload
    def recommend(  # type: ignore[overload-overlap]  # a str is also a sequence
        self, users: OneId, k: int = 10, exclude: Iterable[OneId] | None = None
    ) -> TopK: ...
    @overload
    def recommend(
        self, users: ManyIds, k: int = 10, exclude: Sequence[Iterable[OneId]] | None = None
    ) -> list[TopK]: ...
    def recommend(
        self,
        users: OneId | ManyIds,
        k: int = 10,
        exclude: Iterable[OneId] | Sequence[Iterable[OneId]] | None = None,
    ) -> TopK | list[TopK]:
        """Find the ``k`` items of the catalogue with the highest scores.

        The scores are those of :meth:`score` where both have the same unit. A bundle that scores in ratings and
        recommends by choices has factors of their own for these: ask ``score`` what the user would rate the items.
        An unknown user gets the items that users like most, or would choose first, on average.

        Args:
            users: one user id, or ids [n].
            k: how many items, at least 1; fewer come back where the catalogue, exclusions taken off, has no more.
            exclude: items to leave out, such as those the user has rated. For one user: item ids. For an array of
                users: one iterable of item ids for each, in the same order. Unknown items and repeats are fine.

        Returns:
            One ``TopK`` for one user, a list of n for an array; equal scores stand in the order of the catalogue.

        Raises:
            InputError: ids of the wrong type, ``k`` no integer from 1, or ``exclude`` not as described.
        """
        user, one = as_array(users, self._manifest.user_ids, "user")
        count = self._k_array(k)
        excluded = None if exclude is None else exclusions(exclude, self._manifest.item_ids, len(user), one)
        answers: list[TopK] = []
        for block in _blocks(len(user), self._manifest.num_items):
            rows, items = self._no_rows, self._no_items
            if excluded is not None:
                parts = excluded[block]
                rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
                items = np.concatenate(parts)
            feeds = {"user": user[block], "k": count, "exclude_user": rows, "exclude_item": items}
            best, scores = self._graphs.run("recommend", ("item", "score"), feeds)
            answers.extend(map(_without_fillers, best, scores))
        return answers[0] if one else answers

    @overload
    def similar_items(self, items: OneId, k: int = 10) -> TopK: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def similar_items(self, items: ManyIds, k: int = 10) -> list[TopK]: ...
    def similar_items(self, items: OneId | ManyIds, k: int = 10) -> TopK | list[TopK]:
        """Find the ``k`` items whose factors point most nearly the same way; the item itself is left out.

        Args:
            items: one item id, or ids [n].
            k: how many, at least 1; fewer come back where the catalogue has no more.

        Returns:
            One ``TopK`` with cosines as scores for one item, a list of n for an array.

        Raises:
            UnknownIdError: an item was not seen in training, so that it has no factors.
            InputError: ids of the wrong type, or ``k`` no integer from 1.
        """
        item, one = as_array(items, self._manifest.item_ids, "item")
        count = self._k_array(k)
        answers: list[TopK] = []
        unknown: list[Any] = []
        for block in _blocks(len(item), self._manifest.num_items):
            similar, cosines, known = self._graphs.run(
                "similar", ("similar", "similarity", "known"), {"item": item[block], "k": count}
            )
            unknown += item[block][~known].tolist()
            answers.extend(map(_without_fillers, similar, cosines))
        if unknown:
            got = f"{len(unknown)} of {len(item)} were not seen in training: {', '.join(map(repr, unknown[:3]))}"
            raise UnknownIdError(
                f"similar_items: items must be known, "
                f"{f'{unknown[0]!r} was not seen in training' if one else got}; ask knows_item first"
            )
        return answers[0] if one else answers

    @overload
    def knows_user(self, users: OneId) -> bool: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def knows_user(self, users: ManyIds) -> npt.NDArray[np.bool_]: ...
    def knows_user(self, users: OneId | ManyIds) -> bool | npt.NDArray[np.bool_]:
        """Say whether a user was seen in training: a bool for one id, bool [n] for ids [n].

        Raises:
            InputError: ids of the wrong type.
        """
        user, one = as_array(users, self._manifest.user_ids, "user")
        known = self._pairs("known", user, _blank(self._manifest.item_ids, len(user)))[:, 0]
        return bool(known[0]) if one else known

    @overload
    def knows_item(self, items: OneId) -> bool: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def knows_item(self, items: ManyIds) -> npt.NDArray[np.bool_]: ...
    def knows_item(self, items: OneId | ManyIds) -> bool | npt.NDArray[np.bool_]:
        """Say whether an item was seen in training: a bool for one id, bool [n] for ids [n].

        Raises:
            InputError: ids of the wrong type.
        """
        item, one = as_array(items, self._manifest.item_ids, "item")
        known = self._pairs("known", _blank(self._manifest.user_ids, len(item)), item)[:, 1]
        return bool(known[0]) if one else known

    def title(self, item: OneId) -> str | None:
        """Return the title of one item, or None where the bundle has none for it.

        Raises:
            InputError: an id of the wrong type, or not one id.
            BundleError: the file of titles is damaged.
        """
        titles = self.titles(item)
        if len(titles) != 1:
            raise InputError(f"title: must be asked for one item, got {len(titles)}; ask titles for more")
        return titles[0]

    def titles(self, items: OneId | ManyIds) -> list[str | None]:
        """Return the title of each item, None where the bundle has none for it.

        Raises:
            InputError: ids of the wrong type.
            BundleError: the file of titles is damaged.
        """
        item, _ = as_array(items, self._manifest.item_ids, "item")
        table = self._read_titles()
        return [table.get(str(one)) for one in item]

    def _read_titles(self) -> dict[str, str]:
        with self._titles_lock:
            if self._titles is None:
                self._titles = read_titles(self._manifest)
            return self._titles

    def _pairs(self, output: str, user: IdArray, item: IdArray) -> npt.NDArray[Any]:
        """Ask the score graph for one output, [n, ...], in blocks that keep the gathered factors small."""
        parts = [
            self._graphs.run("score", (output,), {"user": user[block], "item": item[block]})[0]
            for block in _blocks(len(user), 2 * self._manifest.dim)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _k_array(self, k: int) -> npt.NDArray[np.int64]:
        """Turn k into int64 [1], no more than the catalogue could fill."""
        return np.array([min(positive_integer("k", k), self._manifest.num_items)])


def _blank(kind: IdType, count: int) -> IdArray:
    """Make ids that may or may not be known, for a side of a question that does not matter."""
    return np.zeros(count, np.int64) if kind == "int64" else np.full(count, "", object)


def _blocks(count: int, width: int) -> Sequence[slice]:
    """Cut ``count`` rows of ``width`` numbers each into slices that stay below ``_BLOCK``; at least one slice."""
    step = max(1, _BLOCK // max(1, width))
    if count <= step:
        return _WHOLE
    return [slice(start, start + step) for start in range(0, count, step)]


def _without_fillers(items: IdArray, scores: npt.NDArray[np.float32]) -> TopK:
    if len(scores) and scores[-1] == -np.inf:  # they stand last
        kept = int(np.count_nonzero(scores > -np.inf))
        return TopK(items[:kept], scores[:kept])
    return TopK(items, scores)
