"""Graph ``explain``: contributions of the rated items to the score of an item."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, RawId, RawIds, to_id_array, to_id_list
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.errors import InputError, UnknownIdError
from cflightning_serve.inference.fold_in import Ratings, has_mixed_units, ratings_to_weights, to_rating_array
from cflightning_serve.inference.history import user_history
from cflightning_serve.inference.score import known_items, known_users

MAX_NEAREST = 10
"""Number of liked items that are listed by similarity."""


class Nearest(NamedTuple):
    """Liked items by their similarity to the explained item, most similar first."""

    items: IdArray
    """int64 [m] or object [m] of str, raw ids: at most ten items whose ratings are not below the mean of all given."""
    similarities: npt.NDArray[np.float32]
    """float32 [m], cosines of the item vectors."""


class Explanation(NamedTuple):
    """The terms of a logit: ``contributions.sum() + base + rest == logit``, up to rounding."""

    items: IdArray
    """int64 [n] or object [n] of str, raw ids of the rated items, in the given order."""
    contributions: npt.NDArray[np.float32]
    """float32 [n], contribution of each rated item; 0 for items not seen in training."""
    base: float
    """Logit for a user without ratings: the item's bias, and the contribution of the prior."""
    rest: float
    """Remainder: for a known user, what the trained vector adds to these ratings; for a new user, rounding."""
    logit: float
    """Logit of the item, before scaling into the rating range."""
    score: float
    """Score of the item, in the unit ``manifest.units["recommend"]``."""
    nearest: Nearest


def explain(
    graphs: GraphSessions, user: RawId | None, item: RawId, items: RawIds | None, ratings: Ratings | None
) -> Explanation:
    """Implement :meth:`cflightning_serve.Scorer.explain`."""
    manifest = graphs.manifest
    if user is not None and not np.all(known_users(graphs, user)):
        raise _unknown("user", user)
    if not np.all(known_items(graphs, item)):
        raise _unknown("item", item)
    rated_items: object = items
    rated: Ratings | None = ratings
    if items is None:
        if user is None:
            raise InputError("explain: needs a user or the rated items, got neither")
        if ratings is not None:
            raise InputError("explain: ratings need the items that they belong to; give items, or leave ratings out")
        rated_items, rated = user_history(graphs, _one_id("user", user, manifest.user_ids)[0])
    target = _one_id("item", item, manifest.item_ids)
    rated_ids = to_id_list(rated_items, manifest.item_ids, "rated item")
    rating = to_rating_array(rated, len(rated_ids), manifest)
    weight = rating
    if has_mixed_units(manifest):  # for a known user, each interaction had the same weight in training
        weight = ratings_to_weights(rating, manifest) if user is None else np.full(len(rated_ids), np.nan, np.float32)
    inputs = {
        "item": rated_ids,
        "rating": weight,
        "target": target,
        "user": to_id_array((), manifest.user_ids, "user")[0]
        if user is None
        else _one_id("user", user, manifest.user_ids),
    }
    outputs = ("contribution", "base", "rest", "logit", "score", "similarity", "known")
    contribution, base, rest, logit, score, similarity, known = graphs.run("explain", outputs, inputs)
    return Explanation(
        rated_ids,
        contribution[0],
        float(base[0]),
        float(rest[0]),
        float(logit[0]),
        float(score[0]),
        _nearest(rated_ids, rating, similarity[0], known),
    )


def _nearest(
    items: IdArray, rating: npt.NDArray[np.float32], similarity: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]
) -> Nearest:
    liked = known.copy()
    if known.any() and not np.isnan(rating).any():
        liked &= rating >= rating[known].mean(dtype=np.float64)
    order = np.flatnonzero(liked)[np.argsort(-similarity[liked], kind="stable")][:MAX_NEAREST]
    return Nearest(items[order], similarity[order])


def _one_id(name: str, value: RawId, id_type: IdType) -> IdArray:
    array, _ = to_id_array(value, id_type, name)
    if len(array) != 1:
        raise InputError(f"{name}: must be one id, got {len(array)}; explain one {name} at a time")
    return array


def _unknown(name: str, value: object) -> UnknownIdError:
    return UnknownIdError(f"explain: the {name} must be known, {value!r} was not seen in training")
