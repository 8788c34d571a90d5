"""`fold_in` or `fold_in_choice` of a linear autoencoder: one lookup and one product with the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import TensorProto

from cflightning_export.fold_in.autoencoder import AutoencoderFoldIn
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph
from cflightning_export.graphs.fold_in import finish_recommendation, new_user
from cflightning_export.graphs.fold_in_implicit import (
    VERIFIED_WEIGHTS,
    graph_name,
    item_tables,
    item_weights,
    verify_user_vectors,
)
from cflightning_export.onnx_tools.builder import Value

TOLERANCE = 1e-5
"""Error of a score, as a share of the largest score, that verification allows."""
VERIFIED_WEIGHTS_OF_SUMS = VERIFIED_WEIGHTS | {"500 items": [float("nan"), 0.1] * 250}
"""Weights of the items of the synthetic users that verification folds in; NaN stands for 1."""


class EncodedItems(NamedTuple):
    """Values that the graph computes from the items of a new user.

    Attributes:
        indices: int64 [n], indices of the items; 0 for unknown ones.
        known: bool [n], whether the items are known.
        weight: float [n], weight of each item; those of unknown ones have no effect, as their rows are zero.
        encoded: float [n, dim], their rows of the encoder.
        mean_part: float [dim], the part of the mean user in the factors.
    """

    indices: Value
    known: Value
    weight: Value
    encoded: Value
    mean_part: Value

    def sum(self) -> Value:
        """Return the factors of the user, float [1, dim]."""
        return self.weight.graph.Gemm(self.weight.row(), self.encoded, self.mean_part)


def fold_in_autoencoder_graph(name: str, spec: AutoencoderFoldIn) -> onnx.ModelProto:
    """Build the graph `fold_in` or `fold_in_choice` of a linear autoencoder."""
    g = TypedGraph(name, items=spec.ids, dim=spec.vectors.shape[1])
    items = encode_items(g, spec)
    user = new_user(items.sum(), spec.user_bias)
    return finish_recommendation(g, item_tables(g, spec), items.indices, items.known, user, None)


def encode_items(g: TypedGraph, spec: AutoencoderFoldIn) -> EncodedItems:
    """Gather the encoder's rows of the input `item`, with the weights of the input `rating`."""
    index = g.items.index(g["item"])
    known = index > 0
    weight = item_weights(g)
    if spec.weight_slope != 1:
        weight = weight * float(spec.weight_slope) + float(1 - spec.weight_slope)
    missing = g.Relu(1.0 - g.MatMul(weight, known.cast(TensorProto.FLOAT)))
    mean_part = missing * g.constant("mean_user", spec.mean_user)
    return EncodedItems(index, known, weight, g.constant("encoder", spec.encoder)[index], mean_part)


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `fold_in_choice`, which is `fold_in` where no ratings are predicted."""
    spec = source.fold_in and source.fold_in.implicit_users
    if isinstance(spec, AutoencoderFoldIn):
        name = graph_name(source)
        yield name, fold_in_autoencoder_graph(name, spec)


def verify(folder: Path, source: BundleSource) -> None:
    """Fold in synthetic users, unknown ids among their items, and compare scores with the exact sums."""
    spec = source.fold_in and source.fold_in.implicit_users
    if isinstance(spec, AutoencoderFoldIn):
        verify_user_vectors(folder, graph_name(source), spec, VERIFIED_WEIGHTS_OF_SUMS, TOLERANCE)


GRAPHS = GraphFamily(build, verify)
