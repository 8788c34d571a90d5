"""An independent writer of bundles of all formats, from numpy tables, by ``serve/BUNDLE.md`` and without the exporter.

It tests the reader against the specification. ``Tables`` also computes the expected results in numpy. Tables without a
rating range predict interactions and are written in format 2.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

_spec = importlib.util.spec_from_file_location(
    "serve_tests_bundle_graphs", Path(__file__).with_name("bundle_graphs.py")
)
graphs = importlib.util.module_from_spec(_spec)  # by its path, because the tests are not a package
_spec.loader.exec_module(graphs)


USER_GRAPHS = (graphs.similar_users, graphs.audience)


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
    comparison: dict | None = None  # other ranking models

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

    def user_cosines(self, user):
        """Cosine similarities of a user with every known user, [users]."""
        vectors = self.recommender.user_vectors.astype(float)
        vector = vectors[self.rows([user], self.user_ids)[0]]
        return vectors[1:] @ vector / (np.linalg.norm(vectors[1:], axis=1) * np.linalg.norm(vector))

    def audience(self, item, exclude=()):
        """Ids of the known users by the score of an item, best first, and these scores."""
        tables = replace(self.recommender, user_ids=self.user_ids, item_ids=self.item_ids)
        scores = tables.score(self.user_ids.tolist(), [item] * len(self.user_ids))
        best = [n for n in np.argsort(-scores, kind="stable") if self.user_ids[n] not in set(exclude)]
        return self.user_ids[best].tolist(), scores[best]


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
    weights = graphs.Weights(folder / "weights.bin")
    shared = graphs.add_tables(weights, tables)
    recommending = shared if tables.beside is None else graphs.add_tables(weights, tables.beside)
    weights.close()
    graphs.save(graphs.score(tables), shared, folder / "score.onnx")
    graphs.save(graphs.recommend(tables.recommender), recommending, folder / "recommend.onnx")
    graphs.save(graphs.similar(tables.recommender), recommending, folder / "similar.onnx")
    names = ["score", "recommend", "similar"]
    if tables.categories is not None:
        for graph in (graphs.filtered, graphs.scores, graphs.factors, graphs.users, *USER_GRAPHS):
            graphs.save(graph(tables.recommender), recommending, folder / f"{graph.__name__}.onnx")
            names.append(graph.__name__)
        catalogue = {"item": tables.item_ids.tolist(), "count": tables.counts, "categories": tables.categories}
        (folder / "catalogue.json").write_text(json.dumps(catalogue, ensure_ascii=False), encoding="utf-8")
    if tables.history is not None:
        graphs.save(graphs.history(tables), {}, folder / "history.onnx")
        names.append("history")
    if tables.seen_rows is not None:
        rows = [(user, item, 0.0) for user, item in tables.seen_rows]
        graphs.save(graphs.history(replace(tables, history=rows), rated=False), {}, folder / "seen.onnx")
        names.append("seen")
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
            "ids": {"user": graphs.id_type(tables.user_ids), "item": graphs.id_type(tables.item_ids)},
            "num_users": len(tables.user_ids) + 1,
            "num_items": len(tables.item_ids) + 1,
            "rating_range": list(tables.rating_range) if tables.rating_range else None,
            **({"units": tables.units} if "choice" in tables.units.values() else {}),
            "metrics": tables.metrics,
            "graphs": {name: f"{name}.onnx" for name in names},
            **({} if tables.categories is None else {"catalogue": "catalogue.json"}),
            "titles": None if tables.titles is None else "titles.json",
            **({} if tables.reference is None else {"reference": tables.reference}),
            **({} if tables.comparison is None else {"comparison": tables.comparison}),
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
