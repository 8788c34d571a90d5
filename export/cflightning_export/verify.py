"""A bundle must answer as the network does: torch against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from cflightning.data.ids import Ids
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning.models.network import RatingNetwork
from cflightning_export.graphs import Cosines

TOLERANCE = 1e-5  # of the rating range; of the largest score, where there is none; of 1, for cosines


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
        _verify_score(_session(folder / "score.onnx"), score, vocabulary, rng, _tolerance(score))
        _verify_recommend(_session(folder / "recommend.onnx"), recommend, vocabulary, rng, _tolerance(recommend))
        _verify_similar(_session(folder / "similar.onnx"), similar, vocabulary, rng)


def _tolerance(network: RatingNetwork) -> float:
    """What a score may be off by."""
    if network.rating_range is not None:
        low, high = network.rating_range
        return TOLERANCE * max(high - low, 1.0)
    some = torch.linspace(0, network.num_users - 1, min(network.num_users, 20)).long()
    return TOLERANCE * float(network.catalogue(some).abs().max())


def _session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # onnxruntime's own choice hangs in some containers
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _ask(session: Any, case: str, inputs: dict[str, np.ndarray]) -> Any:
    try:
        return session.run(None, inputs)
    except Exception as error:  # onnxruntime's errors share no public base
        raise ExportError(f"{case}: onnxruntime cannot answer ({error}); this is a bug, please report it") from error


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
        score, known = _ask(session, name, {"user": ids(vocabulary.users, user), "item": ids(vocabulary.items, item)})
        expected = network(torch.from_numpy(user), torch.from_numpy(item)).numpy()
        _close("score.onnx", name, score, expected, tolerance)
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
        item, score, known = _ask(
            session,
            name,
            {
                "user": ids(vocabulary.users, user),
                "k": np.array([k], np.int64),
                "exclude_user": at,
                "exclude_item": ids(vocabulary.items, row),
            },
        )
        _close("recommend.onnx", name, score, expected, tolerance)
        # Ties may come in another order; then the scores of the items themselves must agree.
        chosen = vocabulary.items.rows(item.reshape(-1)).reshape(item.shape)
        actual = network.scale(logits.gather(1, torch.from_numpy(chosen))).numpy()
        _close("recommend.onnx", f"{name} (items)", actual[np.isfinite(score)], score[np.isfinite(score)], tolerance)
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
        similar, similarity, known = _ask(
            session, name, {"item": ids(vocabulary.items, item), "k": np.array([k], np.int64)}
        )
        _close("similar.onnx", name, similarity, expected, TOLERANCE)
        chosen = torch.from_numpy(vocabulary.items.rows(similar.reshape(-1)).reshape(similar.shape))
        _close("similar.onnx", f"{name} (items)", values.gather(1, chosen).numpy(), similarity, TOLERANCE)
        if not known.all():
            raise ExportError(f"similar.onnx, {name}: known items are flagged as unknown")


def ids(known: Ids, rows: np.ndarray) -> np.ndarray:
    """Raw ids of rows: int64 [n] or object [n] of str; row 0 becomes an id that is not known."""
    if known.kind == "int64":
        above = int(known.values[-1]) + 1
        unknown: int | str = above if above < 2**63 else int(known.values[0]) - 1
    else:
        unknown = str(known.values[-1]) + "?"  # sorts behind the last one, so it is none of them
    with_unknown = np.array([unknown, *known.values], dtype=known.values.dtype)
    return np.asarray(with_unknown[rows])


def _close(graph: str, case: str, actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    if actual.shape != expected.shape:
        raise ExportError(f"{graph}, {case}: must have shape {expected.shape}, got {actual.shape}")
    both = np.isneginf(actual) & np.isneginf(expected)
    off = np.abs(np.where(both, 0, actual) - np.where(both, 0, expected))
    if off.size and not off.max() <= tolerance:  # also refuses NaN
        at = np.unravel_index(np.nanargmax(np.nan_to_num(off, nan=np.inf)), off.shape)
        raise ExportError(
            f"{graph}, {case}: must agree with torch within {tolerance:.1e}, "
            f"got {actual[at]:.6f} for {expected[at]:.6f}; this is a bug, please report it"
        )
