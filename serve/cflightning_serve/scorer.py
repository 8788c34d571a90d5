"""``Scorer``: the answers of one bundle."""

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.catalogue import Catalogue, read_catalogue
from cflightning_serve.bundle.ids import IdArray, RawId, RawIds, check_positive_integer, exclusions, to_id_array
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.manifest import IdType, Manifest
from cflightning_serve.bundle.release import release_in_steps
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.bundle.titles import read_titles
from cflightning_serve.bundle.trust import Trust
from cflightning_serve.errors import InputError, UnknownIdError
from cflightning_serve.inference import explain as explaining
from cflightning_serve.inference import fold_in as folding
from cflightning_serve.inference.bulk import Lists, recommend_in_bulk
from cflightning_serve.inference.chunks import blocks
from cflightning_serve.inference.explain import Explanation
from cflightning_serve.inference.fold_in import FoldIn, FoldInItem, Ratings
from cflightning_serve.inference.mmr import check_diversity
from cflightning_serve.inference.recommend import recommend_top_k, seen_question
from cflightning_serve.inference.results import TopK, drop_fillers


class Scorer:
    """Answers questions from one bundle. Made by :meth:`load`; safe to share between threads.

    Args:
        manifest: the bundle's manifest.
        contents: the bundle's files.
        threads: threads of onnxruntime inside one call. 1 is right for a server, which has
            threads or processes of its own.
    """

    def __init__(self, manifest: Manifest, contents: LoadedFiles, *, threads: int = 1) -> None:
        self._manifest = manifest
        self._contents = contents
        self._graphs = GraphSessions(manifest, contents, check_positive_integer("threads", threads))
        self._titles: dict[str, str] | None = None
        self._catalogue: Catalogue | None = None
        self._knows_seen = seen_question(manifest) is not None
        self._reading = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: bool = True,
        threads: int = 1,
        eager: bool = False,
        mapped: bool = False,
        digest: str | None = None,
        trusted_key: str | os.PathLike[str] | None = None,
        trust: Trust | None = None,
        cancellation: Cancellation | None = None,
    ) -> "Scorer":
        """Open the bundle in the folder ``path``; nothing is read from the folder once it is open, unless ``mapped``.

        Args:
            path: folder of the bundle.
            verify: compare the digest of every file. False skips only that (about a second per GB); names, lengths
                and the manifest's own digest are always checked.
            threads: threads of onnxruntime inside one call, at least 1.
            eager: open every graph, read titles and catalogue now rather than when first asked.
            mapped: map the tables from the folder instead of keeping a copy in memory, so that processes share them.
                Nobody may then change the files in place: that changes the answers, or ends the process.
            digest: SHA-256 that the file ``manifest.json`` must have, hex.
            trusted_key: PEM file of the Ed25519 public key that must have signed the manifest (``manifest.json.sig``).
            trust: both of these, where they have been read before.
            cancellation: gives up the load.

        Raises:
            BundleError: the bundle is damaged, incomplete, edited by hand, newer than this reader, not the one that is
                trusted, or not a bundle.
            InputError: ``threads`` is no integer from 1, or the digest or the key is none.
        """
        check_positive_integer("threads", threads)
        manifest = Manifest.read(path, trust or Trust.of(digest, trusted_key))
        contents = LoadedFiles.load(manifest, verify=verify, mapped=mapped, cancellation=cancellation)
        scorer = cls(manifest, contents, threads=threads)
        scorer.graphs.open("score", cancellation)
        if eager:
            scorer._titles = read_titles(manifest, contents, cancellation)
            if manifest.catalogue is not None:
                scorer._catalogue = read_catalogue(manifest, contents, cancellation)
            scorer.graphs.open_all(cancellation)
        return scorer

    def __repr__(self) -> str:
        said = self._manifest
        sizes = f"{said.num_users - 1:,} users, {said.num_items - 1:,} items"
        units = " and ".join(f"{unit}s" for unit in sorted(set(said.units.values())))
        return f"Scorer({str(said.folder)[-80:]!r}, {said.model}, {sizes}, {units})"

    def release_in_steps(self) -> None:
        """Have the bundle freed step by step, in a thread, once nobody uses this scorer; else all threads wait for it.

        Of a bundle that has been loaded eagerly.
        """
        self._graphs.release_in_steps()
        release_in_steps(self, self._titles or {}, 10_000)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._manifest

    @property
    def graphs(self) -> GraphSessions:
        """The graphs themselves, for questions in raw tensors as ``BUNDLE.md`` has them."""
        return self._graphs

    @overload
    def score(self, users: RawId, items: RawId) -> float: ...  # type: ignore[overload-overlap]  # a str is also a sequence
    @overload
    def score(self, users: RawId | RawIds, items: RawId | RawIds) -> npt.NDArray[np.float32]: ...
    def score(self, users: RawId | RawIds, items: RawId | RawIds) -> float | npt.NDArray[np.float32]:
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
        user, one_user = to_id_array(users, self._manifest.user_ids, "user")
        item, one_item = to_id_array(items, self._manifest.item_ids, "item")
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
        self,
        users: RawId,
        k: int = 10,
        exclude: Iterable[RawId] | None = None,
        *,
        exclude_seen: bool | None = None,
        allow: Iterable[RawId] | None = None,
        deny: Iterable[RawId] | None = None,
        categories: str | Iterable[str] | None = None,
        min_count: int | None = None,
        diversity: float = 0.0,
    ) -> TopK: ...
    @overload
    def recommend(
        self,
        users: RawIds,
        k: int = 10,
        exclude: Sequence[Iterable[RawId]] | None = None,
        *,
        exclude_seen: bool | None = None,
        allow: Iterable[RawId] | None = None,
        deny: Iterable[RawId] | None = None,
        categories: str | Iterable[str] | None = None,
        min_count: int | None = None,
        diversity: float = 0.0,
    ) -> list[TopK]: ...
    def recommend(
        self,
        users: RawId | RawIds,
        k: int = 10,
        exclude: Iterable[RawId] | Sequence[Iterable[RawId]] | None = None,
        *,
        exclude_seen: bool | None = None,
        allow: Iterable[RawId] | None = None,
        deny: Iterable[RawId] | None = None,
        categories: str | Iterable[str] | None = None,
        min_count: int | None = None,
        diversity: float = 0.0,
    ) -> TopK | list[TopK]:
        """Find the ``k`` items of the catalogue with the highest scores.

        The scores are those of :meth:`score` where both have the same unit. A bundle that scores in ratings and
        recommends by choices has factors of its own for these: ask ``score`` what the user would rate the items.
        An unknown user gets the items that users like most, or would choose first, on average.

        Args:
            users: one user id, or ids [n].
            k: how many items, at least 1; fewer come back where the catalogue, exclusions taken off, has no more.
            exclude: items to leave out, such as those the user has rated. For one user: item ids. For an array of
                users: one iterable of item ids for each, in the same order. Unknown items and repeats are fine.
            exclude_seen: whether to leave out every item of which the table had a row of the user, whether it trained
                or tested; None for yes where the bundle knows them.
            allow: only these items, for every user. Unknown items are fine, here and in ``deny``.
            deny: none of these, for every user.
            categories: one category or several: only items of any of them.
            min_count: only items with at least so many training rows.
            diversity: from 0, the highest scores, to 1, items as different from each other as can be. Above 0 the list
                is chosen from the best max(100, 5 k) by maximal marginal relevance, and its scores need not descend.

        Returns:
            One ``TopK`` for one user, a list of n for an array; equal scores stand in the order of the catalogue.

        Raises:
            InputError: ids of the wrong type, ``k`` no integer from 1, ``exclude`` not as described, a category that
                the bundle does not know, or another option out of its range.
            UnsupportedError: the bundle was written without what an option takes.
        """
        user, one = to_id_array(users, self._manifest.user_ids, "user")
        excluded = None if exclude is None else exclusions(exclude, self._manifest.item_ids, len(user), one)
        if allow is None and deny is None and categories is None and min_count is None:
            allowed = None
        else:
            allowed = self.catalogue.allowed(allow, deny, categories, min_count)
        answers = recommend_top_k(
            self._manifest,
            self._graphs,
            user,
            check_positive_integer("k", k),
            excluded=excluded,
            exclude_seen=self._seen(exclude_seen),
            allowed=allowed,
            diversity=check_diversity(diversity),
        )
        return answers[0] if one else answers

    def lists(self, users: RawIds, k: int = 10, *, exclude_seen: bool | None = None) -> Lists:
        """Find the ``k`` best items of many users, as :meth:`recommend` does, in less time and as three arrays.

        Args:
            users: ids [n].
            k: how many items for each, at least 1.
            exclude_seen: as in :meth:`recommend`.

        Raises:
            InputError: ids of the wrong type, or ``k`` no integer from 1.
            UnsupportedError: the bundle does not know what users have seen.
        """
        user, _ = to_id_array(users, self._manifest.user_ids, "user")
        seen = self._seen(exclude_seen)
        return recommend_in_bulk(
            self._manifest,
            self._graphs,
            lambda: self.catalogue,
            user,
            check_positive_integer("k", k),
            exclude_seen=seen,
        )

    def users(self, begin: int = 0, end: int | None = None) -> IdArray:
        """Return the ids of the known users, or those from place ``begin`` to before ``end``, in a fixed order.

        Raises:
            UnsupportedError: the bundle was written without them.
        """
        places = {"begin": np.array([begin]), "end": np.array([self._manifest.num_users if end is None else end])}
        user: IdArray = self._graphs.run("users", ("user",), places)[0]
        return user

    def history(self, user: RawId) -> tuple[IdArray, npt.NDArray[np.float32]]:
        """Return what one user rated or chose in training; nothing for an unknown user.

        Returns:
            Item ids [m] in the order of the catalogue, and float32 [m]: ratings, or of choices what each counts.

        Raises:
            InputError: an id of the wrong type, or not one id.
            UnsupportedError: the bundle was written without the history.
        """
        asked, one = to_id_array(user, self._manifest.user_ids, "user")
        if not one:
            raise InputError(f"history: must be asked for one user, got an array of {len(asked)}")
        items, ratings = self._graphs.run("history", ("item", "rating"), {"user": asked})
        return items, ratings

    def factors(self, items: RawId | RawIds) -> npt.NDArray[np.float32]:
        """Return the vectors of items that recommendations rest on: float32 [dim] of one, [n, dim] of ids [n].

        An unknown item has the zero vector.

        Raises:
            InputError: ids of the wrong type.
            UnsupportedError: the bundle was written without them.
        """
        item, one = to_id_array(items, self._manifest.item_ids, "item")
        vectors: npt.NDArray[np.float32] = self._graphs.run("factors", ("vector",), {"item": item})[0]
        return vectors[0] if one else vectors

    @property
    def catalogue(self) -> Catalogue:
        """Ids of all items, their counts and categories, read when first asked for.

        Raises:
            BundleError: the file is damaged.
            UnsupportedError: the bundle was written without one.
        """
        with self._reading:
            if self._catalogue is None:
                self._catalogue = read_catalogue(self._manifest, self._contents)
            return self._catalogue

    @overload
    def similar_items(self, items: RawId, k: int = 10) -> TopK: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def similar_items(self, items: RawIds, k: int = 10) -> list[TopK]: ...
    def similar_items(self, items: RawId | RawIds, k: int = 10) -> TopK | list[TopK]:
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
        item, one = to_id_array(items, self._manifest.item_ids, "item")
        count = self._k_array(k)
        answers: list[TopK] = []
        unknown: list[Any] = []
        for block in blocks(len(item), self._manifest.num_items):
            similar, cosines, known = self._graphs.run(
                "similar", ("similar", "similarity", "known"), {"item": item[block], "k": count}
            )
            unknown += item[block][~known].tolist()
            answers.extend(map(drop_fillers, similar, cosines))
        if unknown:
            got = f"{len(unknown)} of {len(item)} were not seen in training: {', '.join(map(repr, unknown[:3]))}"
            raise UnknownIdError(
                f"similar_items: items must be known, "
                f"{f'{unknown[0]!r} was not seen in training' if one else got}; ask knows_item first"
            )
        return answers[0] if one else answers

    def fold_in(
        self,
        items: RawIds,
        ratings: Ratings | None = None,
        k: int = 10,
        *,
        exclude: RawIds | None = None,
        score: RawIds | None = None,
    ) -> FoldIn:
        """Recommend to somebody who was not there in training, by what they rated or like.

        A bundle that recommends by choices takes the given items as chosen. Where it predicts ratings as well, a choice
        counts by its rating: twice its share of the rating range, so hardly at all for the lowest.

        Args:
            items: item ids [n] that the user has rated; n may be 0. Unknown ones have no say.
            ratings: numbers [n], rating units; None where the items are known to be liked, and no more. Where nothing
                but choices is predicted: weights above 0, None for 1.
            k: how many items, at least 1; fewer come back where the catalogue has no more.
            exclude: item ids to leave out beside the given ones, which never come back.
            score: item ids [s] to predict the user's scores of.

        Raises:
            InputError: ids or ratings of the wrong type or number, ratings out of range, or ``k`` no integer from 1.
            UnsupportedError: the bundle takes no new users.
        """
        return folding.fold_in(self._graphs, self._manifest, items, ratings, k, exclude, score)

    def fold_in_item(self, users: RawIds, ratings: Ratings | None = None, *, score: RawIds | None = None) -> FoldInItem:
        """Make the vector of an item that was not there in training, by the users who rated it.

        Args:
            users: user ids [n] who have rated it; unknown ones have no say.
            ratings: numbers [n], rating units; None where they are known to like it, and no more.
            score: user ids [s] to predict the scores by.

        Raises:
            InputError: ids or ratings of the wrong type or number, or ratings out of range.
            UnsupportedError: the bundle takes no new items.
        """
        return folding.fold_in_item(self._graphs, self._manifest, users, ratings, score)

    def explain(
        self, user: RawId | None, item: RawId, *, items: RawIds | None = None, ratings: Ratings | None = None
    ) -> Explanation:
        """Say what each rated item adds to the score of an item.

        Args:
            user: a user id, whose trained vector is explained; None for somebody known by ``items`` alone.
            item: item id to be explained.
            items: item ids [n] that the user has rated; None for the user's history, where the bundle holds it.
            ratings: as for :meth:`fold_in`.

        Raises:
            UnknownIdError: the user or the item was not seen in training.
            InputError: ids or ratings of the wrong type or number, or neither ``user`` nor ``items``.
            UnsupportedError: the bundle gives no reasons, or holds no history.
        """
        if user is not None:
            explaining.refuse_unknown("user", user, bool(np.all(self.knows_user(user))))
        explaining.refuse_unknown("item", item, bool(np.all(self.knows_item(item))))
        if items is None:
            if user is None or ratings is not None:
                raise InputError("explain: needs a user, or the items that somebody has rated; got neither")
            asked, _ = to_id_array(user, self._manifest.user_ids, "user")
            items, ratings = self._graphs.run("history", ("item", "rating"), {"user": asked})
        return explaining.explain(self._graphs, self._manifest, user, item, items, ratings)

    @overload
    def knows_user(self, users: RawId) -> bool: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def knows_user(self, users: RawIds) -> npt.NDArray[np.bool_]: ...
    def knows_user(self, users: RawId | RawIds) -> bool | npt.NDArray[np.bool_]:
        """Say whether a user was seen in training: a bool for one id, bool [n] for ids [n].

        Raises:
            InputError: ids of the wrong type.
        """
        user, one = to_id_array(users, self._manifest.user_ids, "user")
        known = self._pairs("known", user, _blank(self._manifest.item_ids, len(user)))[:, 0]
        return bool(known[0]) if one else known

    @overload
    def knows_item(self, items: RawId) -> bool: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def knows_item(self, items: RawIds) -> npt.NDArray[np.bool_]: ...
    def knows_item(self, items: RawId | RawIds) -> bool | npt.NDArray[np.bool_]:
        """Say whether an item was seen in training: a bool for one id, bool [n] for ids [n].

        Raises:
            InputError: ids of the wrong type.
        """
        item, one = to_id_array(items, self._manifest.item_ids, "item")
        known = self._pairs("known", _blank(self._manifest.user_ids, len(item)), item)[:, 1]
        return bool(known[0]) if one else known

    def title(self, item: RawId) -> str | None:
        """Return the title of one item, or None where the bundle has none for it.

        Raises:
            InputError: an id of the wrong type, or not one id.
            BundleError: the file of titles is damaged.
        """
        titles = self.titles(item)
        if len(titles) != 1:
            raise InputError(f"title: must be asked for one item, got {len(titles)}; ask titles for more")
        return titles[0]

    def titles(self, items: RawId | RawIds) -> list[str | None]:
        """Return the title of each item, None where the bundle has none for it.

        Raises:
            InputError: ids of the wrong type.
            BundleError: the file of titles is damaged.
        """
        item, _ = to_id_array(items, self._manifest.item_ids, "item")
        table = self._read_titles()
        return [table.get(str(one)) for one in item]

    def _seen(self, exclude_seen: bool | None) -> bool:
        return self._knows_seen if exclude_seen is None else exclude_seen

    def _read_titles(self) -> dict[str, str]:
        with self._reading:
            if self._titles is None:
                self._titles = read_titles(self._manifest, self._contents)
            return self._titles

    def _pairs(self, output: str, user: IdArray, item: IdArray) -> npt.NDArray[Any]:
        """Ask the score graph for one output, [n, ...], in blocks that keep the gathered factors small."""
        parts = [
            self._graphs.run("score", (output,), {"user": user[block], "item": item[block]})[0]
            for block in blocks(len(user), 2 * self._manifest.dim)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _k_array(self, k: int) -> npt.NDArray[np.int64]:
        """Turn k into int64 [1], no more than the catalogue could fill."""
        return np.array([min(check_positive_integer("k", k), self._manifest.num_items)])


def _blank(kind: IdType, count: int) -> IdArray:
    """Make ids that may or may not be known, for a side of a question that does not matter."""
    return np.zeros(count, np.int64) if kind == "int64" else np.full(count, "", object)
