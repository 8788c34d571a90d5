"""What goes into each graph of a bundle and what comes out, as the tables of ``serve/BUNDLE.md`` have it."""

from cflightning_serve.bundle.manifest import Manifest

_USER, _ITEM = "user id", "item id"
_FOLD_IN = (
    {"item": _ITEM, "rating": "float", "k": "int64", "exclude_item": _ITEM, "score_item": _ITEM},
    {"best": _ITEM, "score": "float", "vector": "float", "asked": "float", "known": "bool"},
)
SIGNATURES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "score": ({"user": _USER, "item": _ITEM}, {"score": "float", "known": "bool"}),
    "recommend": (
        {"user": _USER, "k": "int64", "exclude_user": "int64", "exclude_item": _ITEM},
        {"item": _ITEM, "score": "float", "known": "bool"},
    ),
    "filtered": (
        {"user": _USER, "k": "int64", "exclude_user": "int64", "exclude_item": _ITEM, "allowed": "bool"},
        {"item": _ITEM, "score": "float", "known": "bool"},
    ),
    "scores": ({"user": _USER}, {"order": "float", "score": "float", "known": "bool"}),
    "factors": ({"item": _ITEM}, {"vector": "float", "bias": "float", "known": "bool"}),
    "seen": ({"user": _USER}, {"item": _ITEM, "place": "int64", "position": "int64"}),
    "history": ({"user": _USER}, {"item": _ITEM, "place": "int64", "rating": "float", "position": "int64"}),
    "users": ({"begin": "int64", "end": "int64"}, {"user": _USER}),
    "similar": ({"item": _ITEM, "k": "int64"}, {"similar": _ITEM, "similarity": "float", "known": "bool"}),
    "fold_in": _FOLD_IN,
    "fold_in_choice": _FOLD_IN,
    "fold_in_item": (
        {"user": _USER, "rating": "float", "score_user": _USER},
        {"vector": "float", "asked": "float", "known": "bool"},
    ),
    "explain": (
        {"item": _ITEM, "rating": "float", "target": _ITEM, "user": _USER},
        {
            "contribution": "float",
            "base": "float",
            "rest": "float",
            "logit": "float",
            "score": "float",
            "similarity": "float",
            "known": "bool",
        },
    ),
}
"""Question -> inputs and outputs; graphs of other questions are left alone."""

FILLED = {
    "recommend": ("score",), "filtered": ("score",), "similar": ("similarity",), "fold_in": ("score",),
    "fold_in_choice": ("score",),
}  # fmt: skip
"""Question -> outputs where -inf marks a filler; all other numbers are finite."""


def signature(manifest: Manifest, question: str) -> tuple[dict[str, str], dict[str, str]]:
    """Name -> onnxruntime type of the inputs and of the outputs of the graph that answers ``question``."""
    ids = {_USER: manifest.user_ids, _ITEM: manifest.item_ids}

    def types(side: dict[str, str]) -> dict[str, str]:
        return {name: f"tensor({ids.get(type_, type_)})" for name, type_ in side.items()}

    inputs, outputs = SIGNATURES[question]
    return types(inputs), types(outputs)
