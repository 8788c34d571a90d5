"""Graphs ``fold_in``, ``fold_in_choice`` and ``fold_in_item``: users and items that training has not seen."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, RawIds, SupportsArray, check_positive_integer, to_id_list
from cflightning_serve.bundle.manifest import IdType, Manifest
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.errors import InputError
from cflightning_serve.inference.results import drop_fillers

MIN_WEIGHT = 1e-6
"""Weight of an interaction with the lowest rating; the graph takes weights above 0."""
WEIGHT_LIMITS = (1e-6, 1e6)
"""Smallest and largest weight of an interaction where the bundle predicts interactions only."""

_LIKED: npt.NDArray[np.float32] = np.full(1024, np.nan, np.float32)
_NO_IDS: dict[IdType, IdArray] = {"int64": np.empty(0, np.int64), "string": np.empty(0, object)}
for _constant in (_LIKED, *_NO_IDS.values()):  # a new array costs 2 to 4 us of a call of 80
    _constant.flags.writeable = False

Ratings: TypeAlias = Sequence[float] | SupportsArray
"""One number for each id, in one dimension: list, tuple, numpy array, pandas Series."""


class FoldIn(NamedTuple):
    """Vector, recommendations and scores of a new user."""

    items: IdArray
    """int64 [k'] or object [k'] of str, raw ids, best first, without the given items."""
    scores: npt.NDArray[np.float32]
    """float32 [k'], descending, in the unit ``manifest.units["recommend"]``."""
    vector: npt.NDArray[np.float32]
    """float32 [dim + 1], factors and then bias, to be multiplied with the item factors of recommendations."""
    requested_scores: npt.NDArray[np.float32]
    """float32 [s], scores of the items in ``score``, in the unit ``manifest.units["score"]``."""
    known: npt.NDArray[np.bool_]
    """bool [n], whether each given item was seen in training; the others have no effect."""


class FoldInItem(NamedTuple):
    """Vector and scores of a new item."""

    vector: npt.NDArray[np.float32]
    """float32 [dim + 1], factors and then bias."""
    requested_scores: npt.NDArray[np.float32]
    """float32 [s], predicted ratings by the users in ``score``, in rating units."""
    known: npt.NDArray[np.bool_]
    """bool [n], whether each given user was seen in training; the others have no effect."""


def fold_in(
    graphs: GraphSessions,
    items: RawIds,
    ratings: Ratings | None,
    k: int,
    exclude: RawIds | None,
    score: RawIds | None,
) -> FoldIn:
    """Implement :meth:`cflightning_serve.Scorer.fold_in`."""
    manifest = graphs.manifest
    item = to_id_list(items, manifest.item_ids, "item")
    rating = to_rating_array(ratings, len(item), manifest)
    inputs = {
        "item": item,
        "rating": rating,
        "k": np.array([min(check_positive_integer("k", k), manifest.num_items)]),
        "exclude_item": _to_optional_ids(exclude, manifest.item_ids, "excluded item"),
        "score_item": _to_optional_ids(score, manifest.item_ids, "scored item"),
    }
    outputs = ("best", "score", "vector", "asked", "known")
    if has_mixed_units(manifest):
        weights = rating if ratings is None else ratings_to_weights(rating, manifest)
        best, scores, vector, requested, known = graphs.run("fold_in_choice", outputs, inputs | {"rating": weights})
        if len(inputs["score_item"]):
            [requested] = graphs.run("fold_in", ("asked",), inputs)
    else:
        best, scores, vector, requested, known = graphs.run("fold_in", outputs, inputs)
    return FoldIn(*drop_fillers(best, scores), vector, requested, known)


def fold_in_item(graphs: GraphSessions, users: RawIds, ratings: Ratings | None, score: RawIds | None) -> FoldInItem:
    """Implement :meth:`cflightning_serve.Scorer.fold_in_item`."""
    manifest = graphs.manifest
    user = to_id_list(users, manifest.user_ids, "user")
    inputs = {
        "user": user,
        "rating": to_rating_array(ratings, len(user), manifest),
        "score_user": _to_optional_ids(score, manifest.user_ids, "scored user"),
    }
    return FoldInItem(*graphs.run("fold_in_item", ("vector", "asked", "known"), inputs))


def has_mixed_units(manifest: Manifest) -> bool:
    """Return whether the bundle predicts ratings, but recommends by interactions."""
    return manifest.units["score"] != manifest.units["recommend"]


def ratings_to_weights(rating: npt.NDArray[np.float32], manifest: Manifest) -> npt.NDArray[np.float32]:
    """Convert ratings to weights of interactions: float32 [n]; NaN is kept.

    A weight is twice the relative position in the rating range: 1 in the middle, the weight of every interaction in
    training, and almost 0 for the lowest rating. On validation rows of MovieLens 1M these weights recommend 7 % more
    items that are then rated 4 or 5, and fewer that are rated 1 or 2.
    """
    if manifest.rating_range is None:
        return rating
    low, high = manifest.rating_range
    width = high - low
    if width <= 0:
        return np.full(len(rating), np.nan, np.float32)
    weights: npt.NDArray[np.float32] = np.maximum(2 * (rating - np.float32(low)) / np.float32(width), MIN_WEIGHT)
    return weights.astype(np.float32)


def to_rating_array(ratings: Ratings | None, count: int, manifest: Manifest) -> npt.NDArray[np.float32]:
    """Convert ratings to float32 [n]; None to all NaN, which the graphs interpret as liked items.

    Raises:
        InputError: not one finite number for each id, or a number outside the rating range; for weights, not above 0.
    """
    if ratings is None:
        return _LIKED[:count] if count <= len(_LIKED) else np.full(count, np.nan, np.float32)
    try:
        array = np.asarray(ratings)
        if array.dtype.kind not in "iuf" and array.size > 0:
            raise TypeError
        values = array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(
            "ratings: must be numbers, one for each id, got something else; omit them for liked items"
        ) from None
    if values.shape != (count,):
        got = f"{len(values)}" if values.ndim == 1 else f"shape {list(values.shape)}"
        raise InputError(f"ratings: must be one number for each of the {count} ids, got {got}")
    limits = manifest.rating_range
    low, high = WEIGHT_LIMITS if limits is None else limits
    invalid = ~((values >= low) & (values <= high))  # includes NaN
    if invalid.any():
        position = int(np.argmax(invalid))
        must = f"be from {low:g} to {high:g}" if limits else f"be weights above 0 and up to {high:g}"
        raise InputError(
            f"ratings: must {must}, got {values[position]:g} at position {position} ({int(invalid.sum())} of {count})"
        )
    return values.astype(np.float32)


def _to_optional_ids(ids: RawIds | None, id_type: IdType, name: str) -> IdArray:
    return _NO_IDS[id_type] if ids is None else to_id_list(ids, id_type, name)
