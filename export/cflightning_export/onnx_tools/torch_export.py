"""What torch exports of a network, over rows: the core of the graphs, so that what is served is what was trained."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from cflightning.models.network import RatingNetwork
from cflightning_export.onnx_tools.builder import OPSET

MOST_NORMS = 1 << 14
"""Items whose norms are computed whenever `similar.onnx` is loaded."""


class Pairs(nn.Module):
    """Scores of pairs: rating units, or none where the network predicts choices."""

    def __init__(self, network: RatingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """int64 [n] rows twice -> float32 [n]."""
        scores: Tensor = self.network(user, item)
        return scores


class Catalogue(nn.Module):
    """Logits of users with every item."""

    def __init__(self, network: RatingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, user: Tensor) -> Tensor:
        """int64 [n] rows -> float32 [n, num_items]."""
        return self.network.catalogue(user)


class Cosines(nn.Module):
    """Cosines of items with every item; 0 where a vector is zero."""

    inverse_norm: Tensor | None

    def __init__(self, network: RatingNetwork) -> None:
        super().__init__()
        self.network = network
        # Inverse norms beside the one table, not a second, normalised table. Of a small one runtimes compute them when
        # they load the graph; a large one is not to be read then.
        large = network.num_items > MOST_NORMS
        self.register_buffer("inverse_norm", _inverse_norm(network.item_vectors().detach()) if large else None)

    def forward(self, item: Tensor) -> Tensor:
        """int64 [n] rows -> float32 [n, num_items]."""
        vectors = self.network.item_vectors()
        inverse = _inverse_norm(vectors) if self.inverse_norm is None else self.inverse_norm
        dot = nn.functional.linear(nn.functional.embedding(item, vectors), vectors)
        return (dot * inverse[item].unsqueeze(1) * inverse).clamp(-1, 1)


def _inverse_norm(vectors: Tensor) -> Tensor:
    norm = vectors.norm(dim=-1)
    return torch.where(norm > 0, 1 / norm, torch.zeros(()))


def export_core(module: nn.Module, inputs: list[str], output: str) -> onnx.ModelProto:
    """Let torch export a module over rows, for any number of them, none included.

    Args:
        module: one of those above.
        inputs: names for its inputs, at most two, each int64 [n].
        output: name for its output.
    """
    # Two different example tensors: given one object twice, the exporter wires both inputs to the first.
    example = (torch.tensor([1, 0, 1]), torch.tensor([0, 1, 1]))[: len(inputs)]
    with _quiet(), torch.no_grad():
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
    return _bare(program.model_proto)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what the exporter says of itself, such as stack traces: it is most of a small graph."""
    for part in (*model.graph.node, *model.graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("name")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter about itself away from users."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # torch's own use of its deprecated pytree names
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # onnxscript's, likewise
            warnings.filterwarnings("ignore", message=".*in training mode.*")  # asks the wrapper, which is in eval
            yield
    finally:
        registration.setLevel(level)
