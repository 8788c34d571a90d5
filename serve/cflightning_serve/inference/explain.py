"""Why an item has its score: what each rated item adds to it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, RawId, RawIds, to_id_array
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.errors import InputError, UnknownIdError
from cflightning_serve.inference.fold_in import Ratings, as_ratings, as_weights, many

NEAREST = 10
"""How many of the liked items are named as near."""


class Nearest(NamedTuple):
    """Liked items by how near they are, nearest first."""

    items: IdArray
    """int64 [m] or object [m] of str, raw ids; at most ten, of those rated no lower than the mean of all given."""
    similarities: npt.NDArray[np.float32]
    """float32 [m], cosines of the item vectors."""


class Explanation(NamedTuple):
    """The parts of a logit: ``contributions.sum() + base + rest == logit``, to rounding."""

    items: IdArray
    """int64 [n] or object [n] of str, raw ids of the rated items, as they were given."""
    contributions: npt.NDArray[np.float32]
    """float32 [n], what each of them adds; 0 for those not seen in training."""
    base: float
    """What a user of whom nothing is known has: the item's bias, and the part of the prior."""
    rest: float
    """What the trained vector of a known user says beyond these ratings; of a new user, rounding."""
    logit: float
    """Of the item, before it is scaled into the rating range."""
    score: float
    """Of the item, in the unit of ``manifest.units["recommend"]``."""
    nearest: Nearest


def explain(
    graphs: GraphSessions, manifest: Manifest, user: RawId | None, item: RawId, items: RawIds, ratings: Ratings | None
) -> Explanation:
    """See ``Scorer.explain``; ``items`` and ``ratings`` are those of the user.

    Raises:
        UnknownIdError: the item or the user was not seen in training.
        InputError: ids or ratings of the wrong type.
    """
    target, one = to_id_array(item, manifest.item_ids, "item")
    if not one:
        raise InputError(f"item: must be one id, got {len(target)}; ask for one item at a time")
    rated = many(items, manifest.item_ids, "rated item")
    rating = as_ratings(ratings, len(rated), manifest)
    who = to_id_array(() if user is None else user, manifest.user_ids, "user")[0]
    if len(who) > 1:
        raise InputError(f"user: must be one id, got {len(who)}; ask for one user at a time")
    counted = rating
    if manifest.units["score"] != manifest.units["recommend"]:  # of a known user every choice has counted the same
        counted = as_weights(rating, manifest) if user is None else np.full(len(rated), np.nan, np.float32)
    feeds = {
        "item": rated,
        "rating": counted,
        "target": target,
        "user": who,
    }
    outputs = ("contribution", "base", "rest", "logit", "score", "similarity", "known")
    contribution, base, rest, logit, score, similarity, known = graphs.run("explain", outputs, feeds)
    liked = known.copy()
    if known.any() and not np.isnan(rating).any():
        liked &= rating >= rating[known].mean(dtype=np.float64)
    order = np.flatnonzero(liked)[np.argsort(-similarity[0][liked], kind="stable")][:NEAREST]
    return Explanation(
        rated,
        contribution[0],
        float(base[0]),
        float(rest[0]),
        float(logit[0]),
        float(score[0]),
        Nearest(rated[order], similarity[0][order]),
    )


def refuse_unknown(what: str, asked: object, known: bool) -> None:
    """Raise ``UnknownIdError`` unless an id is known: there is nothing to explain."""
    if not known:
        raise UnknownIdError(f"explain: the {what} must be known, {asked!r} was not seen in training")
