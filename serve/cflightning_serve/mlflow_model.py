"""A bundle as an MLflow model: the loader module in the ``MLmodel`` file of ``export --layout mlflow``.

MLflow calls ``_load_pyfunc``, and ``predict`` of the object that it returns. Neither MLflow nor pandas is imported.
"""

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cflightning_serve.errors import InputError
from cflightning_serve.scorer import Scorer

COLUMNS = ("user", "item", "exclude")
"""Columns that determine the request; others are ignored."""


class Table(Protocol):
    """Access to columns by name, as in a pandas data frame or a dict of lists."""

    def __contains__(self, name: object) -> bool: ...
    def __getitem__(self, name: str) -> Any: ...


class Model:
    """The model: the columns of a table determine whether it scores pairs, recommends, or lists similar items.

    Args:
        scorer: the bundle's scorer.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def predict(
        self, model_input: Table, params: Mapping[str, int] | None = None
    ) -> npt.NDArray[np.float32] | list[dict[str, list[object]]]:
        """Predict for each row of a table.

        Args:
            model_input: table with raw ids in the columns ``user`` and ``item`` (scores of the pairs), ``user``
                (recommendations; the column ``exclude`` may contain lists of item ids) or ``item`` (similar items).
            params: ``{"k": 10}``, the length of the top-k lists.

        Returns:
            Scores, float32 [n], or for each row ``{"item": raw ids, "score": floats}``, best first.

        Raises:
            InputError: other columns, ids of the wrong type, or ``k`` is not an integer from 1.
            UnknownIdError: similar items of an item that was not seen in training.
        """
        columns = {name: model_input[name] for name in COLUMNS if name in model_input}
        k = (params or {}).get("k", 10)
        if columns.keys() == {"user", "item"}:
            scores: npt.NDArray[np.float32] = self._scorer.score(columns["user"], columns["item"])
            return scores
        if columns.keys() == {"item"}:
            top = self._scorer.similar_items(columns["item"], k)
        elif columns.keys() == {"user"}:
            top = self._scorer.recommend(columns["user"], k)
        elif columns.keys() == {"user", "exclude"}:
            # A row without a list is None, or NaN after pandas has converted it.
            exclude = [ids if hasattr(ids, "__len__") else [] for ids in columns["exclude"]]
            top = self._scorer.recommend(columns["user"], k, exclude)
        else:
            got = ", ".join(columns) or "none of them"
            raise InputError(f"predict: columns must be user and item, user, user and exclude, or item; got {got}")
        return [{"item": items.tolist(), "score": scores.tolist()} for items, scores in top]


def _load_pyfunc(path: str | os.PathLike[str]) -> Model:
    """Load the bundle in the folder ``path``; MLflow requires this name."""
    return Model(Scorer.load(path))
