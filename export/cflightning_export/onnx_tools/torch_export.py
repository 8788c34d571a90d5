"""Graphs that torch exports of a network, over indices, so that what is served is what was trained."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from cflightning.models.network import ScoringNetwork
from cflightning_export.onnx_tools.builder import OPSET

MAX_COMPUTED_NORMS = 1 << 14
"""Items of the largest catalogue whose norms are computed when `similar.onnx` is loaded, instead of stored."""


class PairScores(nn.Module):
    """Scores of pairs."""

    def __init__(self, network: ScoringNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the scores, float32 [n], of indices, int64 [n] each."""
        scores: Tensor = self.network(user, item)
        return scores


class PairLogits(nn.Module):
    """Logits of pairs."""

    def __init__(self, network: ScoringNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the logits, float32 [n], of indices, int64 [n] each."""
        return self.network.logit(user, item)


class CatalogueLogits(nn.Module):
    """Logits of users with every item."""

    def __init__(self, network: ScoringNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, user: Tensor) -> Tensor:
        """Return the logits, float32 [n, 1 + items], of indices, int64 [n]."""
        return self.network.catalogue(user)


class CosineSimilarity(nn.Module):
    """Cosines of items with every item; 0 where a vector is zero.

    Args:
        network: network with the item vectors.
        max_computed_norms: items of the largest catalogue whose inverse norms are not stored. There runtimes compute
            them when they load the graph; a large table is not to be read then. Either way the vectors are stored once.
    """

    inverse_norm: Tensor | None

    def __init__(self, network: ScoringNetwork, max_computed_norms: int = MAX_COMPUTED_NORMS) -> None:
        super().__init__()
        self.network = network
        large = network.num_items > max_computed_norms
        self.register_buffer("inverse_norm", _inverse_norm(network.item_vectors().detach()) if large else None)

    def forward(self, item: Tensor) -> Tensor:
        """Return the cosines, float32 [n, 1 + items], of indices, int64 [n]."""
        vectors = self.network.item_vectors()
        inverse = _inverse_norm(vectors) if self.inverse_norm is None else self.inverse_norm
        dot = nn.functional.linear(nn.functional.embedding(item, vectors), vectors)
        return (dot * inverse[item].unsqueeze(1) * inverse).clamp(-1, 1)


def _inverse_norm(vectors: Tensor) -> Tensor:
    norm = vectors.norm(dim=-1)
    return torch.where(norm > 0, 1 / norm, torch.zeros(()))


def export_module(module: nn.Module, inputs: list[str], output: str) -> onnx.ModelProto:
    """Let torch export a module over indices, for any number of them, none included.

    Args:
        module: one of those above.
        inputs: names of its inputs, at most two, each int64 [n].
        output: name of its output.
    """
    # Two different example tensors: given one object twice, the exporter wires both inputs to the first.
    example = (torch.tensor([1, 0, 1]), torch.tensor([0, 1, 1]))[: len(inputs)]
    with _without_warnings(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in example),
            opset_version=OPSET,
            input_names=inputs,
            output_names=[output],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter's descriptions, such as stack traces, are most of a small graph.
    for part in (*model.graph.node, *model.graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("name")
    return model


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep the exporter's messages about itself from users."""
    logger = logging.getLogger("torch.onnx")  # "torchvision is not installed"
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # torch's own use of its deprecated pytree names
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # onnxscript's use of deprecated names
            # The warning is about the wrapper, which is in eval mode.
            warnings.filterwarnings("ignore", message=".*in training mode.*")
            yield
    finally:
        logger.setLevel(level)
