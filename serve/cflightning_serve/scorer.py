"""``Scorer``: inference from one bundle."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, RawId, RawIds
from cflightning_serve.bundle.opened_bundle import OpenedBundle
from cflightning_serve.inference import bulk, explain, fold_in, history, recommend, score, similar, user_search
from cflightning_serve.inference.bulk import TopKLists
from cflightning_serve.inference.explain import Explanation
from cflightning_serve.inference.fold_in import FoldIn, FoldInItem, Ratings
from cflightning_serve.inference.results import TopK, TopKUsers


class Scorer(OpenedBundle):
    """Scores, recommendations and similar items from one bundle. Created by :meth:`load`; threads may share it.

    Every method raises ``InputError`` if an argument is invalid, such as ids of the wrong type or ``k`` below 1;
    ``UnsupportedError`` if the bundle lacks the required graph or file; and ``BundleError`` if a graph or file that is
    opened at its first use is damaged.
    """

    @overload
    def score(self, users: RawId, items: RawId) -> float: ...  # type: ignore[overload-overlap]  # a str is also a sequence
    @overload
    def score(self, users: RawId | RawIds, items: RawId | RawIds) -> npt.NDArray[np.float32]: ...
    def score(self, users: RawId | RawIds, items: RawId | RawIds) -> float | npt.NDArray[np.float32]:
        """Predict the score of each (user, item) pair: a rating, or a preference without a unit.

        ``manifest.units["score"]`` is the unit. An unknown user is scored as the average user, an unknown item as the
        average item; without a unit, the score of an unknown item has no meaning.

        Args:
            users: one user id, or ids [n].
            items: one item id, or ids [n]. One id is paired with every id of an array.

        Returns:
            A float for one user and one item, otherwise float32 [n]; in rating units, or without a unit ("choice").

        Raises:
            InputError: two arrays of unequal length.
        """
        return score.score_pairs(self._graphs, users, items)

    @overload
    def recommend(  # type: ignore[overload-overlap]  # a str is also a sequence
        self, users: RawId, k: int = 10, exclude: Iterable[RawId] | None = None, *, exclude_seen: bool | None = None,
        allow: Iterable[RawId] | None = None, deny: Iterable[RawId] | None = None,
        categories: str | Iterable[str] | None = None, min_count: int | None = None, diversity: float = 0.0,
    ) -> TopK: ...  # fmt: skip
    @overload
    def recommend(
        self, users: RawIds, k: int = 10, exclude: Sequence[Iterable[RawId]] | None = None, *,
        exclude_seen: bool | None = None, allow: Iterable[RawId] | None = None, deny: Iterable[RawId] | None = None,
        categories: str | Iterable[str] | None = None, min_count: int | None = None, diversity: float = 0.0,
    ) -> list[TopK]: ...  # fmt: skip
    def recommend(
        self, users: RawId | RawIds, k: int = 10, exclude: Iterable[RawId] | Sequence[Iterable[RawId]] | None = None, *,
        exclude_seen: bool | None = None, allow: Iterable[RawId] | None = None, deny: Iterable[RawId] | None = None,
        categories: str | Iterable[str] | None = None, min_count: int | None = None, diversity: float = 0.0,
    ) -> TopK | list[TopK]:  # fmt: skip
        """Recommend the ``k`` items of the catalogue with the highest scores.

        The scores are those of :meth:`score` if both have the same unit; otherwise the two have separate factors, and
        ``score`` predicts the ratings of recommended items. Unknown users get the items for the average user.

        Args:
            users: one user id, or ids [n].
            k: number of items, at least 1; fewer are returned if the catalogue has no more after exclusions.
            exclude: items to leave out. For one user: item ids. For an array of users: one iterable of item ids for
                each user, in the same order. Unknown and repeated items are allowed.
            exclude_seen: whether to leave out the seen items, those of any row of the user, whether in the training,
                validation or test part; None for yes if the bundle has them.
            allow: only these items, for every user. Unknown items are allowed, here and in ``deny``.
            deny: none of these items, for every user.
            categories: one category or several: only items of any of them.
            min_count: only items with at least this many training rows.
            diversity: from 0 (highest scores) to 1 (least similar items). Above 0 the list is selected from the best
                max(100, 5 k) items by maximal marginal relevance, and its scores need not descend.

        Returns:
            One ``TopK`` for one user, a list of n for an array; items with equal scores are in catalogue order.

        Raises:
            InputError: ``exclude`` of another form, an unknown category, or another option out of its range.
            UnsupportedError: the bundle lacks the data that an option needs.
        """
        has_filters = not (allow is None and deny is None and categories is None and min_count is None)
        allowed = self.catalogue.allowed(allow, deny, categories, min_count) if has_filters else None
        return recommend.recommend(
            self._graphs, users, k, exclude, exclude_seen=exclude_seen, allowed=allowed, diversity=diversity
        )

    def recommend_many(self, users: RawIds, k: int = 10, *, exclude_seen: bool | None = None) -> TopKLists:
        """Recommend ``k`` items to each of many users, as :meth:`recommend`, but faster and as three arrays.

        Args:
            users: ids [n].
            k: number of items for each user, at least 1.
            exclude_seen: as in :meth:`recommend`.
        """
        return bulk.recommend_in_bulk(self._graphs, lambda: self.catalogue, users, k, exclude_seen=exclude_seen)

    def users(self, begin: int = 0, end: int | None = None) -> IdArray:
        """Return the ids of the known users, from index ``begin`` up to ``end`` (exclusive), in a fixed order."""
        return history.user_ids(self._graphs, begin, end)

    def history(self, user: RawId) -> tuple[IdArray, npt.NDArray[np.float32]]:
        """Return a user's training rows: item ids [m] in catalogue order, and ratings or weights, float32 [m].

        An unknown user has none.
        """
        return history.user_history(self._graphs, user)

    def factors(self, items: RawId | RawIds) -> npt.NDArray[np.float32]:
        """Return item vectors: float32 [dim] for one id, [n, dim] for ids [n]; zero for unknown items."""
        return similar.item_factors(self._graphs, items)

    @overload
    def similar_items(self, items: RawId, k: int = 10) -> TopK: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def similar_items(self, items: RawIds, k: int = 10) -> list[TopK]: ...
    def similar_items(self, items: RawId | RawIds, k: int = 10) -> TopK | list[TopK]:
        """Return the ``k`` items with the largest cosine similarity of factors, without the item itself.

        Args:
            items: one item id, or ids [n].
            k: number of items, at least 1; fewer are returned if the catalogue has no more.

        Returns:
            One ``TopK`` with cosines as scores for one item, a list of n for an array.

        Raises:
            UnknownIdError: an item was not seen in training, so it has no factors.
        """
        return similar.similar_items(self._graphs, items, k)

    @overload
    def similar_users(self, users: RawId, k: int = 10) -> TopKUsers: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def similar_users(self, users: RawIds, k: int = 10) -> list[TopKUsers]: ...
    def similar_users(self, users: RawId | RawIds, k: int = 10) -> TopKUsers | list[TopKUsers]:
        """Return the ``k`` users with the largest cosine similarity of factors, without the user themselves.

        Args:
            users: one user id, or ids [n].
            k: number of users, at least 1; fewer are returned if there are no more.

        Returns:
            One ``TopKUsers`` with cosines as scores for one user, a list of n for an array; users with equal cosines
            are in the order of :meth:`users`.

        Raises:
            UnknownIdError: a user was not seen in training, so they have no factors.
        """
        return user_search.similar_users(self._graphs, users, k)

    @overload
    def audience(  # type: ignore[overload-overlap]  # as above
        self, items: RawId, k: int = 10, *, exclude_seen: bool | None = None
    ) -> TopKUsers: ...
    @overload
    def audience(self, items: RawIds, k: int = 10, *, exclude_seen: bool | None = None) -> list[TopKUsers]: ...
    def audience(
        self, items: RawId | RawIds, k: int = 10, *, exclude_seen: bool | None = None
    ) -> TopKUsers | list[TopKUsers]:
        """Return the ``k`` users for whom an item has the highest scores, those of :meth:`recommend`.

        Args:
            items: one item id, or ids [n].
            k: number of users, at least 1; fewer are returned if there are no more.
            exclude_seen: whether to leave out the users who have seen the item; None for yes if the bundle has the
                seen items.

        Returns:
            One ``TopKUsers`` for one item, a list of n for an array; users with equal scores are in the order of
            :meth:`users`.

        Raises:
            UnknownIdError: an item was not seen in training.
        """
        return user_search.audience(self._graphs, lambda: self.catalogue, items, k, exclude_seen=exclude_seen)

    def fold_in(
        self, items: RawIds, ratings: Ratings | None = None, k: int = 10, *, exclude: RawIds | None = None,
        score: RawIds | None = None,
    ) -> FoldIn:  # fmt: skip
        """Recommend to a user that training has not seen, from ratings or liked items.

        A bundle that recommends without a unit takes the given items as interactions. If it also predicts ratings, the
        weight of an interaction is twice the relative position of its rating in the rating range.

        Args:
            items: ids [n] of the items that the user has rated; n may be 0. Unknown items have no effect.
            ratings: numbers [n], rating units; None if the items are only known to be liked. If the bundle predicts
                interactions only: weights above 0, None for 1.
            k: number of items, at least 1; fewer are returned if the catalogue has no more.
            exclude: item ids to leave out beside the given ones, which are never recommended.
            score: item ids [s] whose scores are predicted.
        """
        return fold_in.fold_in(self._graphs, items, ratings, k, exclude, score)

    def fold_in_item(self, users: RawIds, ratings: Ratings | None = None, *, score: RawIds | None = None) -> FoldInItem:
        """Compute the vector of an item that training has not seen, from the ratings of its users.

        Args:
            users: ids [n] of the users who have rated it; unknown users have no effect.
            ratings: numbers [n], rating units; None if the users are only known to like it.
            score: user ids [s] whose scores of the item are predicted.
        """
        return fold_in.fold_in_item(self._graphs, users, ratings, score)

    def explain(
        self, user: RawId | None, item: RawId, *, items: RawIds | None = None, ratings: Ratings | None = None
    ) -> Explanation:
        """Compute the contribution of each rated item to the score of an item.

        Args:
            user: a user id, whose trained vector is explained; None for a new user with ``items``.
            item: id of the item to explain.
            items: ids [n] of the items that the user has rated; None for the user's history, if the bundle has it.
            ratings: as for :meth:`fold_in`.

        Raises:
            UnknownIdError: the user or the item was not seen in training.
            InputError: neither ``user`` nor ``items``.
        """
        return explain.explain(self._graphs, user, item, items, ratings)

    @overload
    def knows_user(self, users: RawId) -> bool: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def knows_user(self, users: RawIds) -> npt.NDArray[np.bool_]: ...
    def knows_user(self, users: RawId | RawIds) -> bool | npt.NDArray[np.bool_]:
        """Return whether users were seen in training: a bool for one id, bool [n] for ids [n]."""
        return score.known_users(self._graphs, users)

    @overload
    def knows_item(self, items: RawId) -> bool: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def knows_item(self, items: RawIds) -> npt.NDArray[np.bool_]: ...
    def knows_item(self, items: RawId | RawIds) -> bool | npt.NDArray[np.bool_]:
        """Return whether items were seen in training: a bool for one id, bool [n] for ids [n]."""
        return score.known_items(self._graphs, items)
