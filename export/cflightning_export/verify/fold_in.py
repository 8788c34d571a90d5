"""New rows of a bundle against an exact solution in double precision, which shares nothing with the graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cflightning.data.ids import Ids
from cflightning_export.fold_in.spec import Folding
from cflightning_export.graphs.fold_in_implicit import Choosing
from cflightning_export.graphs.fold_in_plan import NewRows
from cflightning_export.onnx_tools.session import ask, compare, open_graph, raw_ids

TOLERANCE = 0.02
"""Of the rating range: where ratings contradict each other the sum may have several minima. Usual is 1e-5."""
CHOICE_TOLERANCE = 1e-3
"""Of the largest score."""
SOME = 20
"""Ratings of the rows that are tried."""
NEWTON = 50


def verify_new_rows(folder: Path, new: NewRows, seed: int = 0) -> None:
    """Fold in made-up rows, unknown ids among their ratings, and compare scores of the whole other side.

    Args:
        folder: with the graphs.
        new: what they were made of.
        seed: of the ratings.

    Raises:
        ExportError: says which graph differs, where, and by how much.
    """
    rng = np.random.default_rng(seed)
    for question, side, folding in (("fold_in", "item", new.users), ("fold_in_item", "user", new.items)):
        if folding is not None:
            for count in (SOME, 1, 0):
                _verify_ratings(folder / f"{question}.onnx", folding, side, count, rng)
    if new.choosers is not None:
        name = "fold_in.onnx" if new.users is None else "fold_in_choice.onnx"
        for count in (SOME, 1, 0):
            _verify_choices(folder / name, new.choosers, count, rng)


def _verify_ratings(path: Path, folding: Folding, side: str, count: int, rng: Any) -> None:
    row = rng.integers(0, len(folding.ids) + 1, count)
    rating = rng.uniform(*(folding.scale.rating_range or (0.0, 1.0)), count).astype(np.float32)
    every = np.arange(len(folding.ids) + 1)
    feeds = {side: raw_ids(folding.ids, row), "rating": rating, f"score_{side}": raw_ids(folding.ids, every)}
    asked = _ask_all(path, f"{count} ratings", feeds, folding.ids, side)
    vector = solve(folding, row[row > 0], rating[row > 0])
    logits = folding.vectors @ vector[:-1] + vector[-1] + folding.bias + folding.global_bias
    expected = _link(folding, logits)
    low, high = folding.scale.rating_range or (0.0, 1.0)
    compare(path.name, f"{count} ratings", asked, expected.clip(low, high), TOLERANCE * (high - low))


def _verify_choices(path: Path, choosing: Choosing, count: int, rng: Any) -> None:
    row = rng.integers(0, len(choosing.ids) + 1, count)
    every = np.arange(len(choosing.ids) + 1)
    unweighted = np.full(count, np.nan, np.float32)
    feeds = {"item": raw_ids(choosing.ids, row), "rating": unweighted, "score_item": raw_ids(choosing.ids, every)}
    asked = _ask_all(path, f"{count} choices", feeds, choosing.ids, "item")
    factors = solve_choices(choosing, row[row > 0])
    expected = choosing.vectors @ factors + choosing.bias + choosing.user_bias
    compare(path.name, f"{count} choices", asked, expected, CHOICE_TOLERANCE * max(float(abs(expected).max()), 1e-30))


def _ask_all(path: Path, case: str, feeds: dict[str, Any], known: Ids, side: str) -> NDArray[np.float32]:
    if side == "item":
        feeds |= {"k": np.array([1]), "exclude_item": raw_ids(known, np.empty(0, np.int64))}
    session = open_graph(path)
    names = [output.name for output in session.get_outputs()]
    answer: NDArray[np.float32] = dict(zip(names, ask(session, f"{path.name}, {case}", feeds), strict=True))["asked"]
    return answer


def _link(folding: Folding, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    if not folding.scale.sigmoid:
        return logits
    squeezed: NDArray[np.float64] = folding.scale.low + folding.unit / (1 + np.exp(-logits))
    return squeezed


def solve(folding: Folding, row: NDArray[np.int64], rating: NDArray[np.float32]) -> NDArray[np.float64]:
    """A new row by Newton's method, damped until it goes down: float64 [dim + 1].

    Args:
        folding: tables and prior.
        row: int64 [n], known rows.
        rating: float32 [n].
    """
    prior = folding.prior
    z = np.column_stack([folding.vectors[row].astype(np.float64), np.ones(len(row))])
    bias = folding.bias[row].astype(np.float64) + folding.global_bias
    mean = prior.mean
    if prior.leaning is not None:
        said = prior.leaning.vectors[row].astype(np.float64).sum(axis=0) @ prior.leaning.directions
        mean = mean + said / np.sqrt(len(row) + 1)
    precision = prior.noise * np.linalg.inv(prior.root @ prior.root.T)

    def cost(x: NDArray[np.float64]) -> float:
        error = _link(folding, z @ x + bias) - rating
        return float(error @ error + (x - mean) @ precision @ (x - mean))

    x = mean
    for _ in range(NEWTON):
        score = _link(folding, z @ x + bias)
        slope = np.ones(len(row))
        if folding.scale.sigmoid:
            share = (score - folding.scale.low) / folding.unit
            slope = folding.unit * share * (1 - share)
        gradient = z.T @ (slope * (score - rating)) + precision @ (x - mean)
        step = np.linalg.solve((z * slope[:, None] ** 2).T @ z + precision, gradient)
        length = 1.0
        while cost(x - length * step) > cost(x) and length > 1e-6:
            length /= 2
        x = x - length * step
    return x


def solve_choices(choosing: Choosing, row: NDArray[np.int64]) -> NDArray[np.float64]:
    """A new user's factors, straight from the formula at the top of `fold_in_choice`: float64 [dim]."""
    if not len(row) and choosing.stranger is not None:
        return choosing.stranger.astype(np.float64)
    vectors = choosing.vectors.astype(np.float64) / choosing.unit
    chosen = vectors[row]
    ridge = choosing.l2 * (len(row) + choosing.weight * len(choosing.ids)) ** choosing.exponent
    curvature = chosen.T @ chosen + choosing.weight * vectors.T @ vectors + ridge * np.eye(vectors.shape[1])
    factors = np.linalg.solve(curvature, chosen.sum(axis=0)) / choosing.unit
    if choosing.length is not None and factors.any():
        factors *= choosing.length / np.linalg.norm(factors)
    found: NDArray[np.float64] = factors
    return found
