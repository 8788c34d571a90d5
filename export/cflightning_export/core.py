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
from cflightning_export.nodes import OPSET


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

    inverse_norm: Tensor

    def __init__(self, network: RatingNetwork) -> None:
        super().__init__()
        self.network = network
        norm = network.item_vectors().detach().norm(dim=-1)
        # Inverse norms beside the one table, not a second, normalised table.
        self.register_buffer("inverse_norm", torch.where(norm > 0, 1 / norm, torch.zeros(())))

    def forward(self, item: Tensor) -> Tensor:
        """int64 [n] rows -> float32 [n, num_items]."""
        vectors = self.network.item_vectors()
        dot = nn.functional.linear(nn.functional.embedding(item, vectors), vectors)
        return (dot * self.inverse_norm[item].unsqueeze(1) * self.inverse_norm).clamp(-1, 1)


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
    model: onnx.ModelProto = program.model_proto
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
