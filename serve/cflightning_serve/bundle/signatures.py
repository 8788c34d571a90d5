"""Inputs and outputs of each graph of a bundle, as in the tables of ``serve/BUNDLE.md``."""

from typing import NamedTuple

from cflightning_serve.bundle.manifest import IdType, Manifest


class Signature(NamedTuple):
    """The tensors that a graph takes and returns.

    Each is a name with an element type and, in brackets, a name or length of every axis: ``float [n, count]``.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    padded: tuple[str, ...] = ()
    """Outputs in which -inf marks a filler; all other numbers of all outputs are finite."""


_FOLD_IN = Signature(
    {
        "item": "item id [n]",
        "rating": "float [n]",
        "k": "int64 [1]",
        "exclude_item": "item id [m]",
        "score_item": "item id [s]",
    },
    {
        "best": "item id [count]",
        "score": "float [count]",
        "vector": "float [dim + 1]",
        "asked": "float [s]",
        "known": "bool [n]",
    },
    padded=("score",),
)
_TOP_K_INPUTS = {"user": "user id [n]", "k": "int64 [1]", "exclude_user": "int64 [m]", "exclude_item": "item id [m]"}
_TOP_K_OUTPUTS = {"item": "item id [n, count]", "score": "float [n, count]", "known": "bool [n]"}

SIGNATURES = {
    "score": Signature({"user": "user id [n]", "item": "item id [n]"}, {"score": "float [n]", "known": "bool [n, 2]"}),
    "recommend": Signature(_TOP_K_INPUTS, _TOP_K_OUTPUTS, padded=("score",)),
    "filtered": Signature(_TOP_K_INPUTS | {"allowed": "bool [items]"}, _TOP_K_OUTPUTS, padded=("score",)),
    "scores": Signature(
        {"user": "user id [n]"}, {"order": "float [n, items]", "score": "float [n, items]", "known": "bool [n]"}
    ),
    "factors": Signature(
        {"item": "item id [n]"}, {"vector": "float [n, dim]", "bias": "float [n]", "known": "bool [n]"}
    ),
    "seen": Signature({"user": "user id [n]"}, {"item": "item id [m]", "place": "int64 [m]", "position": "int64 [m]"}),
    "history": Signature(
        {"user": "user id [n]"},
        {"item": "item id [m]", "place": "int64 [m]", "rating": "float [m]", "position": "int64 [m]"},
    ),
    "users": Signature({"begin": "int64 [1]", "end": "int64 [1]"}, {"user": "user id [n]"}),
    "similar": Signature(
        {"item": "item id [n]", "k": "int64 [1]"},
        {"similar": "item id [n, count]", "similarity": "float [n, count]", "known": "bool [n]"},
        padded=("similarity",),
    ),
    "similar_users": Signature(
        {"user": "user id [n]", "begin": "int64 [1]", "end": "int64 [1]"},
        {"similarity": "float [n, m]", "known": "bool [n]"},
        padded=("similarity",),
    ),
    "audience": Signature(
        {"item": "item id [n]", "begin": "int64 [1]", "end": "int64 [1]"},
        {"order": "float [n, m]", "score": "float [n, m]", "known": "bool [n]"},
    ),
    "fold_in": _FOLD_IN,
    "fold_in_choice": _FOLD_IN,
    "fold_in_item": Signature(
        {"user": "user id [n]", "rating": "float [n]", "score_user": "user id [s]"},
        {"vector": "float [dim + 1]", "asked": "float [s]", "known": "bool [n]"},
    ),
    "explain": Signature(
        {"item": "item id [n]", "rating": "float [n]", "target": "item id [t]", "user": "user id [u]"},
        {
            "contribution": "float [t, n]",
            "base": "float [t]",
            "rest": "float [t]",
            "logit": "float [t]",
            "score": "float [t]",
            "similarity": "float [t, n]",
            "known": "bool [n]",
        },
    ),
}
"""Graph -> signature; graphs of other names are ignored. ``items`` are the known items, ``dim`` the latent factors."""


def split_type(tensor: str, user_ids: IdType, item_ids: IdType) -> tuple[str, list[str]]:
    """Split a tensor of a signature into its element type, with the id types of the bundle, and its axes."""
    element, _, axes = tensor.rstrip("]").partition(" [")
    return {"user id": user_ids, "item id": item_ids}.get(element, element), axes.split(", ")


def signature(manifest: Manifest, graph: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return name -> onnxruntime type of the inputs and of the outputs of a graph."""

    def onnx_types(tensors: dict[str, str]) -> dict[str, str]:
        ids = manifest.user_ids, manifest.item_ids
        return {name: f"tensor({split_type(tensor, *ids)[0]})" for name, tensor in tensors.items()}

    return onnx_types(SIGNATURES[graph].inputs), onnx_types(SIGNATURES[graph].outputs)
