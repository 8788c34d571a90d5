"""The plan of fold-in: the new users and items that a bundle folds in, and the method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.embedding_dot import encoder_of
from cflightning.models.network import DotProductTables
from cflightning.tasks.base import NetworkTask
from cflightning_export.contents.networks import BundleNetworks
from cflightning_export.fold_in.autoencoder import AutoencoderFoldIn, autoencoder_fold_in
from cflightning_export.fold_in.implicit import ImplicitFoldIn, implicit_fold_in_for
from cflightning_export.fold_in.prior import Prior, estimate_prior
from cflightning_export.fold_in.spec import LIKED_LEVEL_SCORES_ONLY, FoldInSpec, new_items, new_users
from cflightning_export.onnx_tools.quantization import Rounding


class FoldInSpecs(NamedTuple):
    """Fold-in of the networks of a bundle.

    Attributes:
        users: new users from ratings; None where no ratings are predicted.
        items: new items from ratings; None unless requested.
        implicit_users: new users from implicit feedback, by the encoder of a linear autoencoder or by least squares;
            None where the recommendations are of ratings.
        tables: tables of the network that recommends.
    """

    users: FoldInSpec | None
    items: FoldInSpec | None
    implicit_users: ImplicitFoldIn | AutoencoderFoldIn | None
    tables: DotProductTables


def fold_in_specs(
    task: NetworkTask,
    networks: BundleNetworks,
    vocabulary: Vocabulary,
    svdpp_terms: Mapping[str, Tensor] | None = None,
    *,
    with_new_items: bool = False,
    rounding: Rounding | None = None,
) -> FoldInSpecs | None:
    """Return how a bundle folds in new users and items; None where its networks are not dot products.

    Args:
        task: task of the checkpoint.
        networks: its networks.
        vocabulary: its ids.
        svdpp_terms: SVD++ terms of the checkpoint, if a single network was trained.
        with_new_items: whether items are folded in, too.
        rounding: rounding of the networks' tables, which is applied to SVD++ terms as well.
    """
    rating, recommender = networks.score.tables(), networks.recommend.tables()
    if rating is None or recommender is None:
        return None
    users = items = None
    implicit_users: ImplicitFoldIn | AutoencoderFoldIn | None = None
    if networks.units["score"] == "rating":
        scale = networks.score.scale
        prior = _rounded(estimate_prior(rating, "user", scale, vocabulary.counts, svdpp_terms), rounding)
        users = new_users(rating, vocabulary.items, scale, prior)
        if with_new_items:
            prior = _rounded(estimate_prior(rating, "item", scale, vocabulary.counts, svdpp_terms), rounding)
            items = new_items(rating, vocabulary.users, scale, prior)
    if networks.units["recommend"] == "choice":
        encoder = encoder_of(networks.recommend)
        if encoder is None:
            implicit_users = implicit_fold_in_for(task, recommender, vocabulary.items)
        else:
            # The inputs are twice the positions of ratings, see `ratings_to_weights` of the scorer, or else weights.
            slope = task.metadata.ranking["rating_weight"] / 2 if networks.units["score"] == "rating" else 1.0
            implicit_users = autoencoder_fold_in(encoder.numpy(), recommender, vocabulary.items, slope)
        users = None if users is None else users._replace(liked_level=LIKED_LEVEL_SCORES_ONLY)
    return FoldInSpecs(users, items, implicit_users, recommender)


def _rounded(prior: Prior, rounding: Rounding | None) -> Prior:
    if rounding is None or prior.weights is None:
        return prior
    return prior._replace(
        weights=prior.weights._replace(vectors=rounding.round("prior weights", prior.weights.vectors))
    )
