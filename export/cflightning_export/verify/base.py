"""A bundle must answer as the network does: torch against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning.models.network import RatingNetwork
from cflightning_export.onnx_tools.session import TOLERANCE, ask, compare, open_graph, raw_ids, tolerance_of
from cflightning_export.onnx_tools.torch_export import Cosines


def verify(folder: Path, networks: Mapping[str, RatingNetwork], vocabulary: Vocabulary, seed: int = 0) -> None:
    """Ask every graph about known, unknown, first, last, one, zero and many ids, and compare with torch.

    Args:
        folder: with the graphs.
        networks: question -> network that must answer it, in evaluation mode, on the CPU.
        vocabulary: ids of the rows.
        seed: of the random pairs.

    Raises:
        ExportError: says which graph differs, where, and by how much.
    """
    rng = np.random.default_rng(seed)
    score, recommend, similar = networks["score"], networks["recommend"], networks["similar"]
    with torch.inference_mode():
        _verify_score(open_graph(folder / "score.onnx"), score, vocabulary, rng, tolerance_of(score))
        _verify_recommend(open_graph(folder / "recommend.onnx"), recommend, vocabulary, rng, tolerance_of(recommend))
        _verify_similar(open_graph(folder / "similar.onnx"), similar, vocabulary, rng)


def _verify_score(session: Any, network: RatingNetwork, vocabulary: Vocabulary, rng: Any, tolerance: float) -> None:
    users, items = vocabulary.users.num_rows, vocabulary.items.num_rows
    # Different rows on both sides, or a graph that reads one input twice would pass.
    many = rng.integers(0, users, 1000), rng.integers(0, items, 1000)
    cases = {
        "many": many,
        "first": (np.array([1]), np.array([1])),
        "last": (np.array([users - 1]), np.array([items - 1])),
        "first user, last item": (np.array([1]), np.array([items - 1])),
        "unknown user": (np.array([0]), np.array([items - 1])),
        "unknown item": (np.array([users - 1]), np.array([0])),
        "unknown both": (np.array([0]), np.array([0])),
        "zero": (np.array([], np.int64), np.array([], np.int64)),
    }
    for name, (user, item) in cases.items():
        score, known = ask(
            session,
            f"score.onnx, {name}",
            {"user": raw_ids(vocabulary.users, user), "item": raw_ids(vocabulary.items, item)},
        )
        expected = network(torch.from_numpy(user), torch.from_numpy(item)).numpy()
        compare("score.onnx", name, score, expected, tolerance)
        if not np.array_equal(known, np.stack([user > 0, item > 0], axis=1)):
            raise ExportError(f"score.onnx, {name}: the known flags differ from the vocabulary's")


def _verify_recommend(session: Any, network: RatingNetwork, vocabulary: Vocabulary, rng: Any, tolerance: float) -> None:
    users, items = vocabulary.users.num_rows, vocabulary.items.num_rows
    for name, user, k in (
        ("many", rng.integers(0, users, 20), 10),
        ("first", np.array([1]), 1),
        ("last, whole catalogue", np.array([users - 1]), items + 5),
        ("unknown", np.array([0]), 10),
        ("zero", np.array([], np.int64), 10),
    ):
        excluded = min(5, items) if len(user) else 0
        at = np.repeat(np.arange(len(user)), excluded)
        row = rng.integers(0, items, len(at))  # row 0 among them: unknown exclusions are fine
        logits = network.catalogue(torch.from_numpy(user)).clone()
        logits[torch.from_numpy(at), torch.from_numpy(row)] = -torch.inf
        logits[:, 0] = -torch.inf
        best = logits.topk(min(k, items - 1), dim=-1)
        expected = network.scale(best.values).masked_fill(best.values.isneginf(), -torch.inf).numpy()
        item, score, known = ask(
            session,
            f"recommend.onnx, {name}",
            {
                "user": raw_ids(vocabulary.users, user),
                "k": np.array([k], np.int64),
                "exclude_user": at,
                "exclude_item": raw_ids(vocabulary.items, row),
            },
        )
        compare("recommend.onnx", name, score, expected, tolerance)
        # Ties may come in another order; then the scores of the items themselves must agree.
        chosen = vocabulary.items.rows(item.reshape(-1)).reshape(item.shape)
        actual = network.scale(logits.gather(1, torch.from_numpy(chosen))).numpy()
        compare("recommend.onnx", f"{name} (items)", actual[np.isfinite(score)], score[np.isfinite(score)], tolerance)
        if not np.array_equal(known, user > 0):
            raise ExportError(f"recommend.onnx, {name}: the known flags differ from the vocabulary's")


def _verify_similar(session: Any, network: RatingNetwork, vocabulary: Vocabulary, rng: Any) -> None:
    items = vocabulary.items.num_rows
    cosines = Cosines(network)
    for name, item, k in (
        ("many", rng.integers(1, items, 20), 10),
        ("first", np.array([1]), 1),
        ("last, whole catalogue", np.array([items - 1]), items + 5),
        ("zero", np.array([], np.int64), 10),
    ):
        values = cosines(torch.from_numpy(item)).clone()
        values[torch.arange(len(item)), torch.from_numpy(item)] = -torch.inf
        values[:, 0] = -torch.inf
        expected = values.topk(min(k, items - 1), dim=-1).values.numpy()
        similar, similarity, known = ask(
            session, f"similar.onnx, {name}", {"item": raw_ids(vocabulary.items, item), "k": np.array([k], np.int64)}
        )
        compare("similar.onnx", name, similarity, expected, TOLERANCE)
        chosen = torch.from_numpy(vocabulary.items.rows(similar.reshape(-1)).reshape(similar.shape))
        compare("similar.onnx", f"{name} (items)", values.gather(1, chosen).numpy(), similarity, TOLERANCE)
        if not known.all():
            raise ExportError(f"similar.onnx, {name}: known items are flagged as unknown")
