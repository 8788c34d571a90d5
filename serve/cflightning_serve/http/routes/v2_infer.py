"""Infer requests of the Open Inference Protocol: validation of tensors against a graph, and the run of the graph."""

from __future__ import annotations

import logging
import math
from io import BytesIO
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from cflightning_serve import Scorer
from cflightning_serve.bundle.signatures import SIGNATURES, signature
from cflightning_serve.errors import BundleError, NotFiniteError
from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.json_encoding import encode_json
from cflightning_serve.http.routes.v2_tensors import (
    ELEMENT_TYPES,
    ElementType,
    TensorArray,
    from_bytes,
    from_json,
    to_bytes,
    write_json,
)
from cflightning_serve.http.serving.executor import ID_COST, Executor
from cflightning_serve.http.serving.memory_budget import MemoryBudget
from cflightning_serve.http.settings import Limits

log = logging.getLogger(__name__)

PERSONAL_GRAPHS = ("history", "seen", "users", "similar_users", "audience")
"""Graphs that the server does not offer: they list users, compare them, or have the items that each has rated."""
_BATCH_INPUTS = {"recommend": "user", "filtered": "user", "scores": "user", "similar": "item", "explain": "target"}
"""Graph -> input whose length is the batch size."""
_PAIRED_INPUTS = (("exclude_user", "exclude_item"), ("item", "rating"))
"""Inputs of equal length in every graph that has both."""
_PAIRED_INPUTS_OF = {"score": (("user", "item"),), "fold_in_item": (("user", "rating"),)}
"""Graph -> further inputs of equal length; ``explain`` has one user, or none, for all items."""
_BYTES_PER_ELEMENT = 32
"""Bytes of an output element, in its array and as text."""


class InputTensor(BaseModel):
    """An input tensor."""

    model_config = ConfigDict(strict=True)

    name: str
    datatype: str
    shape: list[int] = Field(min_length=1, max_length=1, description="every input has one dimension")
    data: list[object] | None = Field(None, description="missing where it follows as bytes")
    parameters: dict[str, object] = {}


class RequestedOutput(BaseModel):
    """A requested output; without any, all outputs are returned."""

    model_config = ConfigDict(strict=True)

    name: str
    parameters: dict[str, object] = {}


class InferRequest(BaseModel):
    """A request to run a model."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    # Validation stops at the first error, as in `common.Many`.
    inputs: Annotated[list[InputTensor], Field(fail_fast=True)]
    outputs: Annotated[list[RequestedOutput], Field(fail_fast=True)] | None = None
    parameters: dict[str, object] = {}


class ParsedRequest(NamedTuple):
    """A request that is valid for its graph.

    Attributes:
        request: the request.
        graph: name of the graph.
        outputs: requested outputs.
        feeds: input name -> array.
    """

    request: InferRequest
    graph: str
    outputs: list[RequestedOutput]
    feeds: dict[str, TensorArray]


def model_graphs(name: str, scorer: Scorer) -> dict[str, str]:
    """Return the models of a server: model name -> graph.

    Args:
        name: name of the model in the settings.
        scorer: scorer of the bundle.
    """
    graphs = [graph for graph in scorer.manifest.graphs if graph in SIGNATURES and graph not in PERSONAL_GRAPHS]
    return {name: "recommend"} | {f"{name}-{graph}": graph for graph in graphs}


def metadata(scorer: Scorer, graph: str) -> dict[str, list[dict[str, object]]]:
    """Return names, types and shapes of a graph's inputs and outputs; -1 is a variable length."""
    session = scorer.graphs.open(graph)
    return {
        side: [
            {
                "name": tensor.name,
                "datatype": ELEMENT_TYPES[tensor.type].datatype,
                "shape": [length if isinstance(length, int) else -1 for length in tensor.shape],
            }
            for tensor in tensors
        ]
        for side, tensors in (("inputs", session.get_inputs()), ("outputs", session.get_outputs()))
    }


def parse_request(scorer: Scorer, graph: str, text: memoryview, tensors: memoryview, limits: Limits) -> ParsedRequest:
    """Parse a request and validate it against a graph.

    Args:
        scorer: scorer of the bundle.
        graph: name of the graph.
        text: the JSON.
        tensors: the bytes behind the JSON.
        limits: limits of requests.

    Raises:
        ValidationError: the JSON is invalid, or has another form.
        ApiError: the request does not fit the graph.
    """
    request = InferRequest.model_validate_json(bytes(text))
    inputs, outputs = signature(scorer.manifest, graph)
    feeds = _read_feeds(request, tensors, inputs, limits)
    _check_feeds(scorer, graph, feeds, limits)
    requested = request.outputs if request.outputs is not None else [RequestedOutput(name=name) for name in outputs]
    names = [output.name for output in requested]
    for name in names:
        if name not in outputs:
            raise ApiError(400, "input", f"outputs: the model has {', '.join(outputs)}, got {name[:60]!a}")
    if len(set(names)) < len(names):
        raise ApiError(400, "input", f"outputs: must be named once each, got {len(names)} names of {len(set(names))}")
    return ParsedRequest(request, graph, requested, feeds)


async def infer(
    scorer: Scorer, parsed: ParsedRequest, executor: Executor, budget: MemoryBudget, header: dict[str, str]
) -> tuple[bytes, bytes]:
    """Run a graph.

    Args:
        scorer: scorer of the bundle.
        parsed: the request.
        executor: runs the graph.
        budget: memory budget; the tables of the graph and of the response count.
        header: fields of the response besides its outputs.

    Returns:
        The response as JSON, and the bytes that follow it.

    Raises:
        ApiError: the graph cannot answer, or the response takes more memory than available.
    """
    graph, feeds = parsed.graph, parsed.feeds
    names = [output.name for output in parsed.outputs]
    cells = _table_cells(scorer, graph, feeds)
    elements = len(names) * max(_output_elements(scorer, graph, feeds), max(map(len, feeds.values())))

    def compute() -> tuple[bytes, bytes]:
        try:
            arrays = scorer.graphs.run(graph, names, feeds) if names else []
        except NotFiniteError:
            raise
        except BundleError as error:  # the graph ran when the bundle was loaded, so these inputs are invalid
            log.warning("%s", error)
            raise ApiError(400, "input", "the model cannot answer these inputs; see its metadata") from error
        return _encode_response(parsed, signature(scorer.manifest, graph)[1], arrays, header)

    with budget.hold(_BYTES_PER_ELEMENT * elements + 4 * cells):
        return await executor.run(cells + ID_COST * elements, compute)


def _encode_response(
    parsed: ParsedRequest, types: dict[str, str], arrays: list[TensorArray], header: dict[str, str]
) -> tuple[bytes, bytes]:
    """Encode a response: JSON, and the bytes that follow it."""
    binary_by_default = parsed.request.parameters.get("binary_data_output") is True
    text = BytesIO()
    text.write(f'{encode_json(header)[:-1]},"outputs":['.encode(errors="replace"))
    tensors: list[bytes] = []
    for position, (output, array) in enumerate(zip(parsed.outputs, arrays, strict=True)):
        datatype = ELEMENT_TYPES[types[output.name]].datatype
        fields = {"name": output.name, "datatype": datatype, "shape": list(array.shape)}
        text.write(b"," if position else b"")
        if output.parameters.get("binary_data", binary_by_default) is True:
            tensors.append(to_bytes(array))
            text.write(encode_json(fields | {"parameters": {"binary_data_size": len(tensors[-1])}}).encode())
        else:
            text.write(f'{encode_json(fields)[:-1]},"data":'.encode())
            write_json(text, array)
            text.write(b"}")
    text.write(b"]}")
    return text.getvalue(), b"".join(tensors)


def _read_feeds(
    request: InferRequest, tensors: memoryview, types: dict[str, str], limits: Limits
) -> dict[str, TensorArray]:
    """Return the arrays of a request: input name -> array of the input's type."""
    names = [tensor.name for tensor in request.inputs]
    if sorted(names) != sorted(types):
        raise ApiError(400, "input", f"inputs: must be {', '.join(types)}, got {', '.join(names) or 'none'}")
    feeds, offset = {}, 0
    for tensor in request.inputs:
        element = ELEMENT_TYPES[types[tensor.name]]
        if tensor.datatype != element.datatype:
            raise ApiError(400, "input", f"{tensor.name}: datatype must be {element.datatype}, got {tensor.datatype}")
        size = tensor.parameters.get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(tensors) - offset or tensor.data is not None:
                raise ApiError(400, "input", f"{tensor.name}: binary_data_size must fit the bytes behind the JSON")
            array = from_bytes(tensor.name, element, bytes(tensors[offset : offset + size]))
            offset += size
        elif tensor.data is None:
            raise ApiError(400, "input", f"{tensor.name}: needs data")
        else:
            array = from_json(tensor.name, element, tensor.data)
        _check_shape(tensor, array, element, limits)
        feeds[tensor.name] = array
    if offset != len(tensors):
        raise ApiError(400, "input", f"{len(tensors) - offset} bytes behind the JSON belong to no input")
    return feeds


def _check_shape(tensor: InputTensor, array: TensorArray, element: ElementType, limits: Limits) -> None:
    if math.prod(tensor.shape) != len(array):
        raise ApiError(400, "input", f"{tensor.name}: shape {tensor.shape} does not fit {len(array)} elements")
    if element.datatype != "BOOL" and len(array) > limits.ids:  # a mask is as long as the catalogue
        raise ApiError(400, "limit", f"{tensor.name}: must not hold more than {limits.ids:,} elements")


def _check_feeds(scorer: Scorer, graph: str, feeds: dict[str, TensorArray], limits: Limits) -> None:
    """Check conditions that the graph does not check itself and whose violation is undefined there."""
    num_items = scorer.manifest.num_items
    for tensor in scorer.graphs.open(graph).get_inputs():
        length, got = tensor.shape[0], len(feeds[tensor.name])
        if isinstance(length, int) and got != length:
            raise ApiError(400, "input", f"{tensor.name}: must hold {length}, got {got}")
    for first, second in (*_PAIRED_INPUTS, *_PAIRED_INPUTS_OF.get(graph, ())):
        if first in feeds and second in feeds and len(feeds[first]) != len(feeds[second]):
            raise ApiError(400, "input", f"{first}, {second}: must be of one length")
    if "k" in feeds and not 1 <= feeds["k"][0] <= limits.k:
        raise ApiError(400, "limit", f"k: must be one number from 1 to {limits.k:,}")
    if "begin" in feeds and not 0 <= (begin := int(feeds["begin"][0])) <= feeds["end"][0] <= begin + limits.ids:
        raise ApiError(400, "limit", f"begin, end: must be in order, and not more than {limits.ids:,} apart")
    rows, users = feeds.get("exclude_user"), feeds.get("user")
    if rows is not None and users is not None and ((rows < 0) | (rows >= len(users))).any():
        raise ApiError(400, "input", f"exclude_user: must be positions in user, below {len(users)}")
    if "allowed" in feeds and len(feeds["allowed"]) != num_items - 1:
        raise ApiError(400, "input", f"allowed: must hold one flag for each of the {num_items - 1:,} items")
    if _table_cells(scorer, graph, feeds) > limits.cells:
        per_row = max(1, len(feeds["item"]) if graph == "explain" else num_items)
        raise ApiError(400, "limit", f"too many rows at once: ask for {max(1, limits.cells // per_row):,} or fewer")


def _batch_size(graph: str, feeds: dict[str, TensorArray]) -> int:
    return len(feeds.get(_BATCH_INPUTS.get(graph, ""), ()))


def _table_cells(scorer: Scorer, graph: str, feeds: dict[str, TensorArray]) -> int:
    """Return the number of cells of the largest table that a graph computes."""
    if graph == "explain":
        return _batch_size(graph, feeds) * len(feeds["item"])
    return (1 if graph.startswith("fold_in") else _batch_size(graph, feeds)) * scorer.manifest.num_items


def _output_elements(scorer: Scorer, graph: str, feeds: dict[str, TensorArray]) -> int:
    """Return the number of elements of a graph's largest output."""
    if graph in ("explain", "scores"):
        return _table_cells(scorer, graph, feeds)
    if graph == "factors":
        return len(feeds["item"]) * scorer.manifest.dim
    k = min(int(feeds["k"][0]), scorer.manifest.num_items) if "k" in feeds else 0
    return max(1, _batch_size(graph, feeds)) * k
