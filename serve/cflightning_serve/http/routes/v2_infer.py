"""One request of the Open Inference Protocol: its tensors are checked against a graph, and the graph is asked."""

from __future__ import annotations

import logging
import math
from io import BytesIO
from typing import Annotated, Any, NamedTuple

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cflightning_serve import Scorer
from cflightning_serve.bundle.signatures import SIGNATURES, signature
from cflightning_serve.errors import BundleError, NotFiniteError
from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.json_encoding import encode_json
from cflightning_serve.http.middleware.body import FREE
from cflightning_serve.http.middleware.budget import Budget
from cflightning_serve.http.routes.v2_tensors import KINDS, Kind, from_bytes, from_json, to_bytes, write_json
from cflightning_serve.http.serving.executor import ID_COST, Executor
from cflightning_serve.http.settings import Limits

log = logging.getLogger(__name__)

CELLS = 1 << 23
"""Numbers that a graph may hold in one table, 32 MiB: users times items, or items times targets."""
_BYTES = 32
"""Bytes of one element of an answer: in its array, and as text."""
_PAIRED = (("exclude_user", "exclude_item"), ("item", "rating"))
"""Inputs of one length where a graph has both."""
_PAIRED_IN = {"score": (("user", "item"),), "fold_in_item": (("user", "rating"),)}
"""More of them in some graphs; the user of ``explain`` is one, or none, for all items."""

_ROWS = {"recommend": "user", "filtered": "user", "scores": "user", "similar": "item", "explain": "target"}
"""Questions about many -> the input that says about how many."""


class InputTensor(BaseModel):
    """A tensor of a question."""

    model_config = ConfigDict(strict=True)

    name: str
    datatype: str
    shape: list[int] = Field(min_length=1, max_length=1, description="every input has one dimension")
    data: list[Any] | None = Field(None, description="missing where it follows as bytes")
    parameters: dict[str, Any] = {}


class OutputWanted(BaseModel):
    """An output that is wanted; where none is named, all are."""

    model_config = ConfigDict(strict=True)

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """A question to a model."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    # To the first mistake, as in ``bodies``.
    inputs: Annotated[list[InputTensor], Field(fail_fast=True)]
    outputs: Annotated[list[OutputWanted], Field(fail_fast=True)] | None = None
    parameters: dict[str, Any] = {}


PERSONAL = ("history", "seen", "users")
"""Questions that the server does not answer: who there is, and what each of them rated."""


def models(name: str, scorer: Scorer) -> dict[str, str]:
    """Name of each model -> the question that its graph answers."""
    graphs = [question for question in scorer.manifest.graphs if question in SIGNATURES and question not in PERSONAL]
    return {name: "recommend"} | {f"{name}-{question}": question for question in graphs}


def metadata(scorer: Scorer, question: str) -> dict[str, list[dict[str, Any]]]:
    """Names, types and shapes of a graph's inputs and outputs; -1 is a free length."""
    session = scorer.graphs.open(question)
    sides = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        side: [
            {
                "name": one.name,
                "datatype": KINDS[one.type].datatype,
                "shape": [length if isinstance(length, int) else -1 for length in one.shape],
            }
            for one in arguments
        ]
        for side, arguments in sides.items()
    }


class Asked(NamedTuple):
    """A request that fits its graph."""

    request: InferRequest
    question: str
    wanted: list[OutputWanted]
    feeds: dict[str, npt.NDArray[Any]]


def read(scorer: Scorer, question: str, text: bytes | memoryview, blobs: memoryview, limits: Limits) -> Asked:
    """Read a request and check it against a graph.

    Args:
        scorer: of the bundle.
        question: which graph.
        text: JSON.
        blobs: what followed the JSON.
        limits: what may be asked.

    Raises:
        ValidationError: the JSON is none, or has another form.
        ApiError: the request does not fit the graph.
    """
    request = InferRequest.model_validate_json(bytes(text))
    inputs, outputs = signature(scorer.manifest, question)
    feeds = _feeds(request, blobs, inputs, limits)
    _check(scorer, question, feeds, limits)
    wanted = request.outputs if request.outputs is not None else [OutputWanted(name=name) for name in outputs]
    names = [one.name for one in wanted]
    for name in names:
        if name not in outputs:
            raise ApiError(400, "input", f"outputs: the model has {', '.join(outputs)}, got {name[:60]!a}")
    if len(set(names)) < len(names):
        raise ApiError(400, "input", f"outputs: must be named once each, got {len(names)} names of {len(set(names))}")
    return Asked(request, question, wanted, feeds)


async def infer(
    scorer: Scorer, asked: Asked, work: Executor, budget: Budget, about: dict[str, str]
) -> tuple[bytes, bytes]:
    """Ask a graph.

    Args:
        scorer: of the bundle.
        asked: what to.
        work: where it is computed.
        budget: of the server; the tables of the graph and of the answer count.
        about: what the answer says beside its outputs.

    Returns:
        The answer as JSON, and the bytes that follow it.

    Raises:
        ApiError: the graph cannot answer, or the answer takes more than the server can hold.
    """
    question, feeds = asked.question, asked.feeds
    cells = _cells(scorer, question, feeds)
    elements = len(asked.wanted) * max(_elements(scorer, question, feeds), max(map(len, feeds.values())))

    def ask() -> tuple[bytes, bytes]:
        names = [one.name for one in asked.wanted]
        try:
            arrays = scorer.graphs.run(question, names, feeds) if names else []
        except NotFiniteError:
            raise
        except BundleError as error:  # the graph is whole, or it would not have been loaded: these inputs are at fault
            log.warning("%s", error)
            raise ApiError(400, "input", "the model cannot answer these inputs; see its metadata") from error
        return _encoded(asked, signature(scorer.manifest, question)[1], arrays, about)

    held = _BYTES * elements + 4 * cells
    with budget.holding(held if held > FREE else 0):
        return await work.run(cells + ID_COST * elements, ask)


def _encoded(
    asked: Asked, outputs: dict[str, str], arrays: list[npt.NDArray[Any]], about: dict[str, str]
) -> tuple[bytes, bytes]:
    """Write the answer: JSON, and the bytes that follow it."""
    default = asked.request.parameters.get("binary_data_output") is True
    text = BytesIO()
    text.write(f'{encode_json(about)[:-1]},"outputs":['.encode(errors="replace"))
    tail: list[bytes] = []
    for place, (one, array) in enumerate(zip(asked.wanted, arrays, strict=True)):
        output = {
            "name": one.name, "datatype": KINDS[outputs[one.name]].datatype, "shape": list(array.shape)
        }  # fmt: skip
        text.write(b"," if place else b"")
        if one.parameters.get("binary_data", default) is True:
            tail.append(to_bytes(array))
            text.write(encode_json(output | {"parameters": {"binary_data_size": len(tail[-1])}}).encode())
        else:
            text.write(f'{encode_json(output)[:-1]},"data":'.encode())
            write_json(text, array)
            text.write(b"}")
    text.write(b"]}")
    return text.getvalue(), b"".join(tail)


def _feeds(
    request: InferRequest, blobs: memoryview, inputs: dict[str, str], limits: Limits
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a request, each with the type of the graph's input of that name."""
    given = [tensor.name for tensor in request.inputs]
    if sorted(given) != sorted(inputs):
        raise ApiError(400, "input", f"inputs: must be {', '.join(inputs)}, got {', '.join(given) or 'none'}")
    feeds, at = {}, 0
    for tensor in request.inputs:
        kind = KINDS[inputs[tensor.name]]
        if tensor.datatype != kind.datatype:
            raise ApiError(400, "input", f"{tensor.name}: datatype must be {kind.datatype}, got {tensor.datatype}")
        size = tensor.parameters.get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(blobs) - at or tensor.data is not None:
                raise ApiError(400, "input", f"{tensor.name}: binary_data_size must fit the bytes behind the JSON")
            array = from_bytes(tensor.name, kind, bytes(blobs[at : at + size]))
            at += size
        elif tensor.data is None:
            raise ApiError(400, "input", f"{tensor.name}: needs data")
        else:
            array = from_json(tensor.name, kind, tensor.data)
        feeds[tensor.name] = _shaped(tensor, array, kind, limits)
    if at != len(blobs):
        raise ApiError(400, "input", f"{len(blobs) - at} bytes behind the JSON belong to no input")
    return feeds


def _shaped(tensor: InputTensor, array: npt.NDArray[Any], kind: Kind, limits: Limits) -> npt.NDArray[Any]:
    if math.prod(tensor.shape) != len(array):
        raise ApiError(400, "input", f"{tensor.name}: shape {tensor.shape} does not fit {len(array)} elements")
    if kind.datatype != "BOOL" and len(array) > limits.ids:  # a mask is as long as the catalogue
        raise ApiError(400, "limit", f"{tensor.name}: must not hold more than {limits.ids:,} elements")
    return array


def _check(scorer: Scorer, question: str, feeds: dict[str, npt.NDArray[Any]], limits: Limits) -> None:
    """What a graph does not check itself, and whose breach is undefined there."""
    num_items = scorer.manifest.num_items
    for name, length in _fixed(scorer, question).items():
        if len(feeds[name]) != length:
            raise ApiError(400, "input", f"{name}: must hold {length}, got {len(feeds[name])}")
    for one, other in (*_PAIRED, *_PAIRED_IN.get(question, ())):
        if one in feeds and other in feeds and len(feeds[one]) != len(feeds[other]):
            raise ApiError(400, "input", f"{one}, {other}: must be of one length")
    if "k" in feeds and not 1 <= feeds["k"][0] <= limits.k:
        raise ApiError(400, "limit", f"k: must be one number from 1 to {limits.k:,}")
    if "begin" in feeds and not 0 <= (begin := int(feeds["begin"][0])) <= feeds["end"][0] <= begin + limits.ids:
        raise ApiError(400, "limit", f"begin, end: must be in order, and not more than {limits.ids:,} apart")
    where, users = feeds.get("exclude_user"), feeds.get("user")
    if where is not None and users is not None and ((where < 0) | (where >= len(users))).any():
        raise ApiError(400, "input", f"exclude_user: must be positions in user, below {len(users)}")
    if "allowed" in feeds and len(feeds["allowed"]) != num_items - 1:
        raise ApiError(400, "input", f"allowed: must hold one flag for each of the {num_items - 1:,} items")
    if _cells(scorer, question, feeds) > CELLS:
        most = max(1, CELLS // max(1, len(feeds["item"]) if question == "explain" else num_items))
        raise ApiError(400, "limit", f"too many rows at once: ask for {most:,} or fewer")


def _fixed(scorer: Scorer, question: str) -> dict[str, int]:
    """Inputs whose length the graph itself fixes."""
    inputs = scorer.graphs.open(question).get_inputs()
    return {one.name: one.shape[0] for one in inputs if isinstance(one.shape[0], int)}


def _cells(scorer: Scorer, question: str, feeds: dict[str, npt.NDArray[Any]]) -> int:
    """Count the numbers in the largest table that a graph fills."""
    rows = len(feeds.get(_ROWS.get(question, ""), ()))
    if question == "explain":
        return rows * len(feeds["item"])
    return (1 if question.startswith("fold_in") else rows) * scorer.manifest.num_items


def _elements(scorer: Scorer, question: str, feeds: dict[str, npt.NDArray[Any]]) -> int:
    """Count the elements of the largest output of a graph."""
    rows = len(feeds.get(_ROWS.get(question, ""), ()))
    if question == "explain":
        return rows * len(feeds["item"])
    if question == "scores":
        return rows * scorer.manifest.num_items
    if question == "factors":
        return len(feeds["item"]) * scorer.manifest.dim
    return max(1, rows) * min(int(feeds["k"][0]), scorer.manifest.num_items) if "k" in feeds else 0
