"""The graphs for lists must answer as the network does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning.models.network import RatingNetwork
from cflightning_export.onnx_tools.session import ask, compare, open_graph, raw_ids, tolerance_of


def verify_lists(folder: Path, network: RatingNetwork, vocabulary: Vocabulary) -> None:
    """Ask `filtered`, `scores`, `factors` and `users`, and compare.

    Args:
        folder: with the graphs.
        network: what recommends, in evaluation mode, on the CPU.
        vocabulary: ids of the rows.

    Raises:
        ExportError: says which graph differs, where, and by how much.
    """
    users, items = vocabulary.users.num_rows, vocabulary.items.num_rows
    rng = np.random.default_rng(1)
    sessions = {question: open_graph(folder / f"{question}.onnx") for question in ("scores", "filtered")}
    with torch.inference_mode():
        for name, user in (
            ("many", rng.integers(0, users, 20)),
            ("last", np.array([users - 1])),
            ("unknown", np.array([0])),
            ("zero", np.array([], np.int64)),
        ):
            _verify_products(sessions, network, vocabulary, name, user, rng.random(items - 1) < 0.5)
        _verify_factors(folder, network, vocabulary, np.append(rng.integers(0, items, 50), [0, items - 1]))
    session, half = open_graph(folder / "users.onnx"), users // 2
    for begin, end in ((0, half), (half, users + 5), (0, 0)):
        asked = {"begin": np.array([begin]), "end": np.array([end])}
        [found] = ask(session, "users.onnx", asked)
        if not np.array_equal(found, vocabulary.users.values[begin:end]):
            raise ExportError(f"users.onnx, {begin} to {end}: must be the ids of the vocabulary, are others")


def _verify_products(
    sessions: Mapping[str, Any],
    network: RatingNetwork,
    vocabulary: Vocabulary,
    case: str,
    user: np.ndarray,
    allowed: np.ndarray,
) -> None:
    logits = network.catalogue(torch.from_numpy(user))[:, 1:]
    asked = {"user": raw_ids(vocabulary.users, user)}
    order, score, known = ask(sessions["scores"], f"scores.onnx, {case}", asked)
    compare("scores.onnx", f"{case} (order)", order, logits.numpy(), _logit_tolerance(logits))
    compare("scores.onnx", case, score, network.scale(logits).numpy(), tolerance_of(network))
    asked |= {
        "k": np.array([5]),
        "exclude_user": np.arange(len(user)),
        "exclude_item": vocabulary.items.values[np.zeros(len(user), np.int64)],
        "allowed": allowed,
    }
    item, best, known_too = ask(sessions["filtered"], f"filtered.onnx, {case}", asked)
    kept = logits.clone()
    kept[:, ~torch.from_numpy(allowed)] = -torch.inf
    kept[:, 0] = -torch.inf  # the excluded item
    top = kept.topk(min(5, kept.shape[1]), dim=-1)
    expected = network.scale(top.values).masked_fill(top.values.isneginf(), -torch.inf).numpy()
    compare("filtered.onnx", case, best, expected, tolerance_of(network))
    chosen = vocabulary.items.rows(item.reshape(-1)).reshape(item.shape) - 1
    actual = network.scale(kept.gather(1, torch.from_numpy(chosen))).numpy()
    real = np.isfinite(best)
    compare("filtered.onnx", f"{case} (items)", actual[real], best[real], tolerance_of(network))
    if not np.array_equal(known, user > 0) or not np.array_equal(known_too, user > 0):
        raise ExportError(f"scores.onnx, filtered.onnx, {case}: the known flags differ from the vocabulary's")


def _logit_tolerance(logits: torch.Tensor) -> float:
    return 1e-5 * max(float(logits.abs().max()) if logits.numel() else 0.0, 1e-30)


def _verify_factors(folder: Path, network: RatingNetwork, vocabulary: Vocabulary, item: np.ndarray) -> None:
    vector, bias, known = ask(
        open_graph(folder / "factors.onnx"), "factors.onnx", {"item": raw_ids(vocabulary.items, item)}
    )
    folded = network.fold()
    expected = (network.item_vectors() if folded is None else folded.item_vectors).numpy()[item]
    compare("factors.onnx", "vectors", vector, expected, 0.0)
    compare(
        "factors.onnx", "biases", bias, np.zeros(len(item)) if folded is None else folded.item_bias.numpy()[item], 0
    )
    if not np.array_equal(known, item > 0):
        raise ExportError("factors.onnx: the known flags differ from the vocabulary's")
