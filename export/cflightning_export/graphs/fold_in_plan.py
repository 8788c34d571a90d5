"""Which graphs take what was not there in training: new users, new items, and the reasons of a recommendation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import onnx
from torch import Tensor

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import FoldedTables, RatingNetwork
from cflightning.tasks.ranking import RankingTask
from cflightning.tasks.rating import RatingTask
from cflightning_export.contents.roles import Answering
from cflightning_export.fold_in.prior import Prior, find_prior
from cflightning_export.fold_in.spec import LIKED_SCORES, Folding, of_items, of_users
from cflightning_export.graphs.explain import explain_choice_graph, explain_graph
from cflightning_export.graphs.fold_in import fold_in_graph, fold_in_item_graph
from cflightning_export.graphs.fold_in_implicit import Choosing, find_choosing, fold_in_choice_graph
from cflightning_export.onnx_tools.quantization import Rounding


class NewRows(NamedTuple):
    """What new rows are made of.

    Attributes:
        users: new users, from ratings; None where no ratings are predicted.
        items: new items, from ratings; None where that was not asked for.
        choosers: new users, from choices; None where none are predicted.
        tables: of the network that recommends.
    """

    users: Folding | None
    items: Folding | None
    choosers: Choosing | None
    tables: FoldedTables


def find_new_rows(
    task: RatingTask,
    parts: Answering,
    vocabulary: Vocabulary,
    bags: Mapping[str, Tensor] | None = None,
    *,
    new_items: bool = False,
    rounding: Rounding | None = None,
) -> NewRows | None:
    """How a bundle's networks take new rows; None where they are no dot products.

    Args:
        task: of the checkpoint.
        parts: its networks and units.
        vocabulary: its ids.
        bags: the checkpoint's, of a network that was trained alone.
        new_items: whether items are to be folded in, too.
        rounding: of the networks' tables, which is done to those of bags as well.
    """
    rating, recommender = (_tables(parts.networks[question]) for question in ("score", "recommend"))
    if rating is None or recommender is None:
        return None
    users = items = choosers = None
    if parts.units["score"] == "rating":
        scale = parts.networks["score"].scale
        prior = _rounded(find_prior(rating, "user", scale, vocabulary.counts, bags), rounding)
        users = of_users(rating, vocabulary.items, scale, prior)
        if new_items:
            prior = _rounded(find_prior(rating, "item", scale, vocabulary.counts, bags), rounding)
            items = of_items(rating, vocabulary.users, scale, prior)
    if parts.units["recommend"] == "choice":
        assert isinstance(task, RankingTask)
        choosers = find_choosing(task, recommender, vocabulary.items)
        users = None if users is None else users._replace(liking=LIKED_SCORES)
    return NewRows(users, items, choosers, recommender)


def graphs(new: NewRows, vocabulary: Vocabulary) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Questions and graphs, each made when it is asked for."""
    if new.users is not None:
        yield "fold_in", fold_in_graph(new.users)
    if new.choosers is not None:
        yield "fold_in" if new.users is None else "fold_in_choice", fold_in_choice_graph(new.choosers)
    if new.items is not None:
        yield "fold_in_item", fold_in_item_graph(new.items)
    known = vocabulary.users, new.tables.user_vectors.numpy(), new.tables.user_bias.numpy()
    if new.choosers is not None:
        yield "explain", explain_choice_graph(new.choosers, *known)
    elif new.users is not None:
        yield "explain", explain_graph(new.users, *known)


def _rounded(prior: Prior, rounding: Rounding | None) -> Prior:
    if rounding is None or prior.leaning is None:
        return prior
    return prior._replace(leaning=prior.leaning._replace(vectors=rounding.round("bags", prior.leaning.vectors)))


def _tables(network: RatingNetwork) -> FoldedTables | None:
    return network.fold()
