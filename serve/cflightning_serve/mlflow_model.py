"""A bundle as a model of MLflow: the loader that the ``MLmodel`` of ``export --layout mlflow`` names.

MLflow calls ``_load_pyfunc`` by that name, and ``predict`` of what it returns. Neither MLflow nor pandas is needed.
"""

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cflightning_serve.errors import InputError
from cflightning_serve.scorer import Scorer

_COLUMNS = ("user", "item", "exclude")


class Table(Protocol):
    """What a pandas frame and a dict of lists have in common: columns by name."""

    def __contains__(self, name: object) -> bool: ...
    def __getitem__(self, name: str) -> Any: ...


class Model:
    """Answers what the columns ask: ``user`` and ``item`` for scores, one of them for lists.

    Args:
        scorer: of the bundle.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def predict(
        self, model_input: Table, params: Mapping[str, Any] | None = None
    ) -> npt.NDArray[np.float32] | list[dict[str, list[Any]]]:
        """Answer each row of a table.

        Args:
            model_input: with the columns ``user`` and ``item`` (scores of the pairs), ``user`` (recommendations; a
                column ``exclude`` may hold a list of item ids to leave out) or ``item`` (similar items). Raw ids.
            params: ``{"k": 10}``, the length of the lists.

        Returns:
            Scores, float32 [n], or for each row ``{"item": raw ids, "score": floats}``, best first.

        Raises:
            InputError: other columns, ids of the wrong type, or ``k`` no integer from 1.
            UnknownIdError: similar items of an item that was not seen in training.
        """
        given = {name: model_input[name] for name in _COLUMNS if name in model_input}
        k = (params or {}).get("k", 10)
        if given.keys() == {"user", "item"}:
            scores: npt.NDArray[np.float32] = self._scorer.score(given["user"], given["item"])
            return scores
        if given.keys() == {"item"}:
            lists = self._scorer.similar_items(given["item"], k)
        elif given.keys() == {"user"}:
            lists = self._scorer.recommend(given["user"], k)
        elif given.keys() == {"user", "exclude"}:
            # A row without a list holds None, or NaN where pandas has had its way.
            excluded = [ids if hasattr(ids, "__len__") else [] for ids in given["exclude"]]
            lists = self._scorer.recommend(given["user"], k, excluded)
        else:
            got = ", ".join(given) or "none of them"
            raise InputError(f"predict: columns must be user and item, user, user and exclude, or item; got {got}")
        return [{"item": best.items.tolist(), "score": best.scores.tolist()} for best in lists]


def _load_pyfunc(path: str | os.PathLike[str]) -> Model:
    """Open the bundle in the folder ``path``; MLflow's name for this."""
    return Model(Scorer.load(path))
