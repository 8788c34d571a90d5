"""An independent writer of bundles of all formats, from numpy tables, by ``serve/BUNDLE.md`` and without the exporter.

It tests the reader against the specification. ``Tables`` also computes the expected results in numpy. Tables without a
rating range predict interactions and are written in format 2.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PAGE = 4096
_ELEMENT = {"int64": TensorProto.INT64, "string": TensorProto.STRING}


@dataclass(frozen=True)
class Tables:
    """Factors and biases by index; index 0 is the unknown id and zero, and the ids have the indices from 1."""

    user_ids: np.ndarray  # [users]
    item_ids: np.ndarray  # [items]
    user_vectors: np.ndarray  # float32 [users + 1, dim]
    item_vectors: np.ndarray  # float32 [items + 1, dim]
    user_bias: np.ndarray  # float32 [users + 1]
    item_bias: np.ndarray  # float32 [items + 1]
    global_bias: float = 0.25
    rating_range: tuple[float, float] | None = (0.5, 5.0)
    titles: dict[str, str] | None = None
    metrics: dict[str, float] = field(default_factory=lambda: {"test/rmse": 0.875})
    counts: list[int] | None = None  # training rows of each item
    categories: dict[str, list[int]] | None = None  # catalogue indices; None for no catalogue, as in older bundles
    history: list[tuple[int, int, float]] | None = (
        None  # user, item (counted from 0) and rating, ordered by user and item
    )
    seen_rows: list[tuple[int, int]] | None = None  # user and item of the rows of all parts
    beside: Tables | None = None  # tables that recommend, with the same ids; None for these tables
    reference: dict | None = None  # distribution of scores

    @property
    def unknown_id(self):
        """An id that is neither a user nor an item."""
        return "nobody" if self.user_ids.dtype == object else 99_999

    @property
    def recommender(self):
        return self.beside or self

    @property
    def units(self):
        return {
            "score": "rating" if self.rating_range else "choice",
            "recommend": "rating" if self.recommender.rating_range else "choice",
        }

    def users(self):
        """Vectors and biases of users; without ratings the unknown user is the mean of all, as in the graphs."""
        vectors, bias = self.user_vectors.copy(), self.user_bias.copy()
        if self.rating_range is None:
            vectors[0], bias[0] = vectors[1:].mean(0), bias[1:].mean()
        return vectors, bias

    def rows(self, ids, known):
        index = {known_id: n for n, known_id in enumerate(known.tolist(), 1)}
        return np.array([index.get(raw_id, 0) for raw_id in ids], dtype=np.int64)

    def logits(self, users):
        """Logits of all items for each user, [n, items + 1]; column 0 is the unknown item."""
        rows = self.rows(users, self.user_ids)
        vectors, bias = self.users()
        products = vectors[rows].astype(float) @ self.item_vectors.T.astype(float)
        return products + bias[rows, None] + self.item_bias + self.global_bias

    def score(self, users, items):
        logits = self.logits(users)[np.arange(len(users)), self.rows(items, self.item_ids)]
        if self.rating_range is None:
            return logits
        low, high = self.rating_range
        return low + (high - low) / (1 + np.exp(-logits))

    def recommend(self, user, k, exclude=()):
        """Ids of the recommended items, best first."""
        logits = self.recommender.logits([user])[0, 1:]
        best = np.argsort(-logits, kind="stable")
        return [item for item in self.item_ids[best].tolist() if item not in set(exclude)][:k]

    def seen(self, user):
        """Items and ratings of a user's history."""
        rated = [(i, r) for u, i, r in self.history or () if self.user_ids[u] == user]
        return [self.item_ids[i] for i, _ in rated], [r for _, r in rated]

    def cosines(self, item):
        """Cosine similarities of an item with every known item, [items]."""
        vectors = self.recommender.item_vectors.astype(float)
        vector = vectors[self.rows([item], self.item_ids)[0]]
        return vectors[1:] @ vector / (np.linalg.norm(vectors[1:], axis=1) * np.linalg.norm(vector))


def make_tables(users=7, items=11, dim=4, *, strings=False, titles=False, choices=False, seed=0) -> Tables:
    """Create random tables; integer ids have gaps and a negative value, string ids leading zeros and a letter ë."""
    rng = np.random.default_rng(seed)

    def table(*shape, scale=1.0):
        values = rng.normal(0, scale, shape).astype(np.float32)
        values[0] = 0
        return values

    if strings:
        user_ids = np.array([f"{n:03d}" for n in range(users - 1)] + ["zoë"], dtype=object)
        item_ids = np.array([f"i{n}" for n in range(items)], dtype=object)
    else:
        user_ids = np.arange(1, users + 1) * 10
        item_ids = np.arange(items) * 3 - 3
    return Tables(
        user_ids,
        item_ids,
        user_vectors=table(users + 1, dim),
        item_vectors=table(items + 1, dim),
        user_bias=table(users + 1, scale=0.3),
        item_bias=table(items + 1, scale=0.3),
        rating_range=None if choices else (0.5, 5.0),
        titles={str(item): f"Film {n} (19{n % 100:02d})" for n, item in enumerate(item_ids[:-1])} if titles else None,
    )


def make_rich(tables: Tables, seed=5) -> Tables:
    """Add a catalogue and a history: the first user has rated nothing, the second all items but one."""
    rng = np.random.default_rng(seed)
    users, items = len(tables.user_ids), len(tables.item_ids)
    pairs = [(1, item) for item in range(items - 1)]
    pairs += [(u, i) for u in range(2, users) for i in range(items) if rng.random() < 0.3]
    values = (0.5, 1.5, 5.0) if tables.rating_range else (1.0,)
    history = [(u, i, float(rng.choice(values))) for u, i in pairs]
    counts = np.bincount([i for _, i in pairs], minlength=items).tolist()
    categories = {"Drama": [0, 2, 3], "Crime": [2, 5], "Sci-Fi & més": [items - 1]}
    return replace(tables, counts=counts, categories=categories, history=history)


def make_both(tables: Tables, dim=3, seed=9) -> Tables:
    """Add tables of interactions that recommend."""
    beside = make_tables(len(tables.user_ids), len(tables.item_ids), dim, choices=True, seed=seed)
    return replace(tables, beside=replace(beside, user_ids=tables.user_ids, item_ids=tables.item_ids))


def write_bundle(folder: Path, tables: Tables) -> Path:
    """Write the bundle into ``folder``, which must not exist."""
    folder.mkdir(parents=True)
    weights = _Weights(folder / "weights.bin")
    shared = _add_tables(weights, tables)
    recommending = shared if tables.beside is None else _add_tables(weights, tables.beside)
    weights.close()
    _save(_score(tables), shared, folder / "score.onnx")
    _save(_recommend(tables.recommender), recommending, folder / "recommend.onnx")
    _save(_similar(tables.recommender), recommending, folder / "similar.onnx")
    graphs = ["score", "recommend", "similar"]
    if tables.categories is not None:
        for graph in (_filtered, _scores, _factors, _users):
            _save(graph(tables.recommender), recommending, folder / f"{graph.__name__[1:]}.onnx")
            graphs.append(graph.__name__[1:])
        catalogue = {"item": tables.item_ids.tolist(), "count": tables.counts, "categories": tables.categories}
        (folder / "catalogue.json").write_text(json.dumps(catalogue, ensure_ascii=False), encoding="utf-8")
    if tables.history is not None:
        _save(_history(tables), {}, folder / "history.onnx")
        graphs.append("history")
    if tables.seen_rows is not None:
        rows = [(user, item, 0.0) for user, item in tables.seen_rows]
        _save(_history(replace(tables, history=rows), rated=False), {}, folder / "seen.onnx")
        graphs.append("seen")
    if tables.titles is not None:
        (folder / "titles.json").write_text(json.dumps(tables.titles, ensure_ascii=False), encoding="utf-8")
    write_manifest(
        folder,
        {
            "format": "cflightning-bundle",
            "format_version": 2 if "choice" in tables.units.values() else 1,
            "written_by": "tests 0.1.0",
            "created": "2025-01-01T00:00:00+00:00",
            "model": "EmbeddingDot",
            "dim": tables.user_vectors.shape[1],
            "ids": {"user": _kind(tables.user_ids), "item": _kind(tables.item_ids)},
            "num_users": len(tables.user_ids) + 1,
            "num_items": len(tables.item_ids) + 1,
            "rating_range": list(tables.rating_range) if tables.rating_range else None,
            **({"units": tables.units} if "choice" in tables.units.values() else {}),
            "metrics": tables.metrics,
            "graphs": {name: f"{name}.onnx" for name in graphs},
            **({} if tables.categories is None else {"catalogue": "catalogue.json"}),
            "titles": None if tables.titles is None else "titles.json",
            **({} if tables.reference is None else {"reference": tables.reference}),
        },
    )
    return folder


def pack(folder: Path) -> Path:
    """Compress titles and catalogue, as the exporter does."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    for key in ("titles", "catalogue"):
        if manifest.get(key) is not None:
            plain = folder / manifest[key]
            manifest[key] = f"{plain.name}.gz"
            (folder / manifest[key]).write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
            plain.unlink()
    write_manifest(folder, manifest)
    return folder


def reseal(folder: Path) -> None:
    """Update the digests of changed files, so that the bundle is undamaged, but invalid."""
    write_manifest(folder, json.loads((folder / "manifest.json").read_text("utf-8")))


def write_manifest(folder: Path, manifest: dict, *, files: dict | None = None) -> None:
    """Write the manifest with the digests of all files in the folder and its own."""
    if files is None:
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted(folder.iterdir())
            if path.name != "manifest.json"
        }
    seal(folder, manifest | {"files": files})


def seal(folder: Path, manifest: dict) -> None:
    """Write the manifest with its own digest."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    rest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(rest, indent=1, ensure_ascii=False), encoding="utf-8")


# Graphs --------------------------------------------------------------------------------


class _Weights:
    """The weights file: tables at multiples of the page size, short ones at multiples of 64 bytes."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.name = path.name

    def add(self, name, table):
        table = np.ascontiguousarray(table, dtype="<f4")
        at = self.file.tell()
        self.file.write(bytes(-at % (PAGE if table.nbytes >= PAGE else 64)))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=table.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.name), ("offset", self.file.tell()), ("length", table.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.file.write(table.tobytes())
        return tensor

    def close(self):
        self.file.close()


def _add_tables(weights, tables):
    vectors, bias = tables.users()
    norms = np.linalg.norm(tables.item_vectors, axis=1)
    return {
        "user_vectors": weights.add("user_vectors", vectors),
        "item_vectors": weights.add("item_vectors", tables.item_vectors),
        # The global bias is added to the biases of all users, including the unknown one.
        "user_bias": weights.add("user_bias", bias[:, None] + np.float32(tables.global_bias)),
        "item_bias": weights.add("item_bias", tables.item_bias),
        "item_scale": weights.add("item_scale", np.divide(1, norms, where=norms > 0, out=np.zeros_like(norms))),
    }


class _Graph:
    def __init__(self, tables: Tables) -> None:
        self.tables, self.nodes, self.constants, self.inputs, self.outputs = tables, [], [], [], []
        self.user, self.item = _ELEMENT[_kind(tables.user_ids)], _ELEMENT[_kind(tables.item_ids)]

    def input(self, name, type_, *shape):
        self.inputs.append(helper.make_tensor_value_info(name, type_, shape))

    def output(self, name, type_, *shape):
        self.outputs.append(helper.make_tensor_value_info(name, type_, shape))

    def const(self, name, value, dtype=None):
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))

    def node(self, op, inputs, outputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs.split(), outputs.split(), **attributes))

    def to_rows(self, ids, rows, known):
        self.node(
            "LabelEncoder",
            ids,
            rows,
            domain="ai.onnx.ml",
            keys_tensor=numpy_helper.from_array(known),
            values_tensor=numpy_helper.from_array(np.arange(1, len(known) + 1)),
            default_tensor=numpy_helper.from_array(np.array([0])),
        )

    def scale(self, logit, score):
        if self.tables.rating_range is None:
            self.node("Identity", logit, score)
            return
        low, high = self.tables.rating_range
        self.const("low", low, np.float32)
        self.const("span", high - low, np.float32)
        self.node("Sigmoid", logit, "squashed")
        self.node("Mul", "squashed span", "stretched")
        self.node("Add", "stretched low", score)


def _score(tables):
    g = _Graph(tables)
    g.input("user", g.user, "n")
    g.input("item", g.item, "n")
    g.output("score", TensorProto.FLOAT, "n")
    g.output("known", TensorProto.BOOL, "n", 2)
    g.const("one", [1], np.int64)
    g.const("zero", 0, np.int64)
    g.to_rows("user", "user_row", tables.user_ids)
    g.to_rows("item", "item_row", tables.item_ids)
    g.node("Gather", "user_vectors user_row", "u")
    g.node("Gather", "item_vectors item_row", "i")
    g.node("Mul", "u i", "products")
    g.node("ReduceSum", "products one", "dot", keepdims=0)
    g.node("Gather", "user_bias user_row", "column")
    g.node("Squeeze", "column one", "bu")
    g.node("Gather", "item_bias item_row", "bi")
    g.node("Sum", "dot bu bi", "logit")
    g.scale("logit", "score")
    g.node("Unsqueeze", "user_row one", "user_column")
    g.node("Unsqueeze", "item_row one", "item_column")
    g.node("Concat", "user_column item_column", "both", axis=1)
    g.node("Greater", "both zero", "known")
    return g


def _recommend(tables, allowed=False):
    g = _Graph(tables)
    g.input("user", g.user, "n")
    g.input("k", TensorProto.INT64, 1)
    g.input("exclude_user", TensorProto.INT64, "m")
    g.input("exclude_item", g.item, "m")
    g.output("item", g.item, "n", "k'")
    g.output("score", TensorProto.FLOAT, "n", "k'")
    g.output("known", TensorProto.BOOL, "n")
    g.to_rows("user", "user_row", tables.user_ids)
    g.to_rows("exclude_item", "exclude_row", tables.item_ids)
    g.node("Gather", "user_vectors user_row", "u")
    g.node("Gemm", "u item_vectors item_bias", "logits", transB=1)
    _mask(g, "logits", "exclude_user", "exclude_row", "left" if allowed else "masked")
    if allowed:
        g.input("allowed", TensorProto.BOOL, len(tables.item_ids))
        g.const("yes", [True])
        g.node("Concat", "yes allowed", "allowed_rows", axis=0)
        g.node("Where", "allowed_rows left nothing", "masked")
    _best(g, "masked", "item", "best")
    g.node("Gather", "user_bias user_row", "bu")
    g.node("Add", "best bu", "logit")
    g.scale("logit", "scaled")
    g.node("Equal", "best nothing", "filler")
    g.node("Where", "filler nothing scaled", "score")
    g.node("Greater", "user_row zero", "known")
    return g


def _filtered(tables):
    return _recommend(tables, allowed=True)


def _scores(tables):
    g = _Graph(tables)
    g.input("user", g.user, "n")
    for name in ("order", "score"):
        g.output(name, TensorProto.FLOAT, "n", len(tables.item_ids))
    g.output("known", TensorProto.BOOL, "n")
    g.const("one", [1], np.int64)
    g.const("zero", 0, np.int64)
    g.const("end", [len(tables.item_ids) + 1], np.int64)
    g.to_rows("user", "user_row", tables.user_ids)
    g.node("Gather", "user_vectors user_row", "u")
    g.node("Gemm", "u item_vectors item_bias", "products", transB=1)
    g.node("Gather", "user_bias user_row", "bu")
    g.node("Add", "products bu", "every_row")
    g.node("Slice", "every_row one end one", "order")
    g.scale("order", "score")
    g.node("Greater", "user_row zero", "known")
    return g


def _factors(tables):
    g = _Graph(tables)
    g.input("item", g.item, "n")
    g.output("vector", TensorProto.FLOAT, "n", tables.item_vectors.shape[1])
    g.output("bias", TensorProto.FLOAT, "n")
    g.output("known", TensorProto.BOOL, "n")
    g.const("zero", 0, np.int64)
    g.to_rows("item", "row", tables.item_ids)
    g.node("Gather", "item_vectors row", "vector")
    g.node("Gather", "item_bias row", "bias")
    g.node("Greater", "row zero", "known")
    return g


def _users(tables):
    g = _Graph(tables)
    g.input("begin", TensorProto.INT64, 1)
    g.input("end", TensorProto.INT64, 1)
    g.output("user", g.user, "n")
    g.const("user_ids", tables.user_ids)
    g.node("Slice", "user_ids begin end", "user")
    return g


def _history(tables, rated=True):
    """History by comparing the user of every rating with every requested user: slow, but short."""
    g = _Graph(tables)
    g.input("user", g.user, "n")
    g.output("item", g.item, "m")
    g.output("place", TensorProto.INT64, "m")
    if rated:
        g.output("rating", TensorProto.FLOAT, "m")
    g.output("position", TensorProto.INT64, "m")
    user, item, rating = (np.array(column) for column in zip(*tables.history, strict=True))
    g.const("owner", user + 1, np.int64)
    g.const("places", item, np.int64)
    g.const("ratings", rating, np.float32)
    g.const("item_ids", tables.item_ids)
    g.const("one", [1], np.int64)
    g.const("minus", [-1], np.int64)
    g.to_rows("user", "row", tables.user_ids)
    g.node("Unsqueeze", "row one", "row_column")
    g.node("Equal", "row_column owner", "whose")
    g.node("NonZero", "whose", "found")
    g.node("Split", "found", "position_2 number_2", axis=0, num_outputs=2)
    g.node("Reshape", "position_2 minus", "position")
    g.node("Reshape", "number_2 minus", "number")
    g.node("Gather", "places number", "place")
    g.node("Gather", "ratings number", "rating")
    g.node("Gather", "item_ids place", "item")
    return g


def _similar(tables):
    g = _Graph(tables)
    g.input("item", g.item, "n")
    g.input("k", TensorProto.INT64, 1)
    g.output("similar", g.item, "n", "k'")
    g.output("similarity", TensorProto.FLOAT, "n", "k'")
    g.output("known", TensorProto.BOOL, "n")
    g.to_rows("item", "row", tables.item_ids)
    g.node("Gather", "item_vectors row", "v")
    g.node("Gather", "item_scale row", "own_scale")
    g.node("Unsqueeze", "own_scale one", "scale_column")
    g.node("Mul", "v scale_column", "unit")
    g.node("Gemm", "unit item_vectors", "products", transB=1)
    g.node("Mul", "products item_scale", "cosines")
    g.node("Shape", "row", "length")
    g.node("Squeeze", "length", "count")
    g.node("Range", "zero count step", "position")
    _mask(g, "cosines", "position", "row", "masked")
    _best(g, "masked", "similar", "similarity")
    g.const("step", 1, np.int64)
    g.node("Greater", "row zero", "known")
    return g


def _mask(g, scores, position, row, masked):
    """Set -inf at every (position, row)."""
    g.const("one", [1], np.int64)
    g.const("zero", 0, np.int64)
    g.const("nothing", -np.inf, np.float32)
    g.node("Unsqueeze", f"{position} one", "position_column")
    g.node("Unsqueeze", f"{row} one", "row_column")
    g.node("Concat", "position_column row_column", "where", axis=1)
    g.node("Shape", row, "how_many")
    g.node("Expand", "nothing how_many", "nothings")
    g.node("ScatterND", f"{scores} where nothings", masked)


def _best(g, masked, item, score):
    """Select the k best known items, as ids."""
    g.const("known_items", [len(g.tables.item_ids)], np.int64)
    g.const("end", [len(g.tables.item_ids) + 1], np.int64)
    g.const("item_ids", g.tables.item_ids)
    g.node("Slice", f"{masked} one end one", "catalogue")
    g.node("Min", "k known_items", "k_or_all")
    g.node("TopK", "catalogue k_or_all", f"{score} index")
    g.node("Gather", "item_ids index", item)


def _save(g, shared, path):
    used = {name for node in g.nodes for name in node.input}
    initializers = g.constants + [tensor for name, tensor in shared.items() if name in used]
    graph = helper.make_graph(g.nodes, path.stem, g.inputs, g.outputs, initializers)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="tests")
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def _kind(ids):
    return "int64" if ids.dtype == np.int64 else "string"
