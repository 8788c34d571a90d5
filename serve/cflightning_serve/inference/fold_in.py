"""New users and new items: what comes of ratings that were not there in training."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, RawIds, SupportsArray, check_positive_integer, to_id_array
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.errors import InputError

_LEAST = 1e-3
"""Weight of a choice with the lowest rating: the graph takes weights above 0."""

Ratings: TypeAlias = Sequence[float] | SupportsArray
"""One number for each id, in one dimension: list, tuple, numpy array, pandas Series."""


class FoldIn(NamedTuple):
    """What a new user's ratings come to."""

    items: IdArray
    """int64 [k'] or object [k'] of str, raw ids, best first; none of the given ones."""
    scores: npt.NDArray[np.float32]
    """float32 [k'], descending, in the unit of ``manifest.units["recommend"]``."""
    vector: npt.NDArray[np.float32]
    """float32 [dim + 1], factors and then bias, to go with the item factors that recommend."""
    asked: npt.NDArray[np.float32]
    """float32 [s], scores of the items that were asked for, in the unit of ``manifest.units["score"]``."""
    known: npt.NDArray[np.bool_]
    """bool [n], which of the given items were seen in training; the others have no say."""


class FoldInItem(NamedTuple):
    """What a new item's ratings come to."""

    vector: npt.NDArray[np.float32]
    """float32 [dim + 1], factors and then bias."""
    asked: npt.NDArray[np.float32]
    """float32 [s], scores by the users that were asked for, in rating units."""
    known: npt.NDArray[np.bool_]
    """bool [n], which of the given users were seen in training; the others have no say."""


def fold_in(
    graphs: GraphSessions,
    manifest: Manifest,
    items: RawIds,
    ratings: Ratings | None,
    k: int,
    exclude: RawIds | None,
    score: RawIds | None,
) -> FoldIn:
    """See ``Scorer.fold_in``."""
    kind = manifest.item_ids
    item = many(items, kind, "item")
    rating = as_ratings(ratings, len(item), manifest)
    feeds = {
        "item": item,
        "rating": rating,
        "k": np.array([min(check_positive_integer("k", k), manifest.num_items)]),
        "exclude_item": many(() if exclude is None else exclude, kind, "excluded item"),
        "score_item": many(() if score is None else score, kind, "asked item"),
    }
    mixed = manifest.units["score"] != manifest.units["recommend"]
    question = "fold_in_choice" if mixed else "fold_in"
    if mixed:
        feeds["rating"] = as_weights(rating, manifest)
    outputs = ("best", "score", "vector", "asked", "known")
    best, scores, vector, asked, known = graphs.run(question, outputs, feeds)
    if mixed and len(feeds["score_item"]):
        [asked] = graphs.run("fold_in", ("asked",), feeds | {"rating": rating})
    if len(scores) and scores[-1] == -np.inf:  # fillers stand last
        kept = int(np.count_nonzero(scores > -np.inf))
        best, scores = best[:kept], scores[:kept]
    return FoldIn(best, scores, vector, asked, known)


def fold_in_item(
    graphs: GraphSessions, manifest: Manifest, users: RawIds, ratings: Ratings | None, score: RawIds | None
) -> FoldInItem:
    """See ``Scorer.fold_in_item``."""
    user = many(users, manifest.user_ids, "user")
    feeds = {
        "user": user,
        "rating": as_ratings(ratings, len(user), manifest),
        "score_user": many(() if score is None else score, manifest.user_ids, "asked user"),
    }
    return FoldInItem(*graphs.run("fold_in_item", ("vector", "asked", "known"), feeds))


def many(ids: RawIds, kind: Any, what: str) -> IdArray:
    """Ids [n]; one alone is refused, for nobody is known by an id that was forgotten to be put in a list.

    Raises:
        InputError: ids of the wrong type, or one id.
    """
    array, one = to_id_array(ids, kind, what)
    if one:
        raise InputError(f"{what} ids: must be a list or an array, got one id; put it in a list")
    return array


def as_weights(rating: npt.NDArray[np.float32], manifest: Manifest) -> npt.NDArray[np.float32]:
    """What ratings count as choices: float32 [n], NaN as it is.

    Twice the share of the rating range: 1 in the middle, as every choice did in training, whatever its rating; hardly
    anything for the lowest. On validation rows of MovieLens 1M that lists 7 % more of what is then rated 4 and 5, and
    fewer of 1 and 2.
    """
    if manifest.rating_range is None:
        return rating
    low, high = manifest.rating_range
    width = high - low
    if width <= 0:
        return np.full(len(rating), np.nan, np.float32)
    weights: npt.NDArray[np.float32] = np.maximum(2 * (rating - np.float32(low)) / np.float32(width), _LEAST)
    return weights.astype(np.float32)


def as_ratings(ratings: Ratings | None, count: int, manifest: Manifest) -> npt.NDArray[np.float32]:
    """Turn what was given into float32 [n]; all NaN, which the graphs take for liked, where nothing was.

    Raises:
        InputError: not one finite number for each id, or out of the rating range; for choices, not above zero.
    """
    if ratings is None:
        return np.full(count, np.nan, np.float32)
    try:
        array = np.asarray(ratings)
        wrong = array.dtype.kind not in "iuf" and array.size > 0
        given = array.astype(np.float64) if not wrong else array
    except (TypeError, ValueError):
        wrong = True
    if wrong:
        raise InputError(
            "ratings: must be numbers, one for each id, got something else; leave them out for liked items"
        )
    if given.shape != (count,):
        got = f"{len(given)}" if given.ndim == 1 else f"shape {list(given.shape)}"
        raise InputError(f"ratings: must be one number for each of the {count} ids, got {got}")
    limits = manifest.rating_range
    low, high = (1e-6, 1e6) if limits is None else limits
    bad = ~((given >= low) & (given <= high))  # NaN is neither
    if bad.any():
        at = int(np.argmax(bad))
        must = f"lie in {low:g} to {high:g}" if limits else "be weights above 0 and up to a million"
        raise InputError(f"ratings: must {must}, got {given[at]:g} at position {at} ({int(bad.sum())} of {count})")
    return given.astype(np.float32)
