"""Write the golden bundle of a format: ``python tests/serve/make_golden.py FORMAT [FOLDER]``.

A golden bundle is written once for each format and never changed, to prove that new readers read old bundles. Its
tables are synthetic, and ``expected.json`` is computed by numpy. Format 1 has ratings; format 2 has ratings and
interactions.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


def make(folder: Path, bundles, format_version: int) -> Path:
    """Write ``folder``/bundle and ``folder``/expected.json with the writer ``bundles``."""
    rng = np.random.default_rng(1)

    def table(*shape):
        values = rng.integers(-16, 17, shape).astype(np.float32) / 8  # exact sums and products
        values[0] = 0
        return values

    items = np.array([1, 2, 3, 50, 661, 1193, 2858])
    names = ["Ähren im Wind", "Blue Hour", "Cartographers", "Départ", "Eleven Doors", "Far Harbour"]
    tables = bundles.Tables(
        user_ids=np.array([7, 42, 1001, 2**40]),
        item_ids=items,
        user_vectors=table(5, 3),
        item_vectors=table(8, 3),
        user_bias=table(5),
        item_bias=table(8),
        titles={str(item): f"{name} ({1990 + n})" for n, (item, name) in enumerate(zip(items, names, strict=False))},
        metrics={"test/rmse": 0.875, "test/mae": 0.6875},
    )
    if format_version > 1:
        beside = bundles.Tables(
            tables.user_ids, items, table(5, 2), table(8, 2), table(5), table(8), global_bias=0.0, rating_range=None
        )
        metrics = tables.metrics | {"test/ndcg@10": 0.4375, "test/popularity/ndcg@10": 0.25}
        tables = replace(tables, beside=beside, metrics=metrics)
    bundles.write_bundle(folder / "bundle", tables)
    users = [*tables.user_ids.tolist(), 5]  # user 5 and item 4 are unknown
    pairs = [(user, item) for user in users for item in [*items.tolist(), 4]]
    expected = {
        "score": [[*pair, round(float(tables.score(*zip(pair, strict=True))[0]), 5)] for pair in pairs],
        "recommend": [[user, tables.recommend(user, 5)] for user in users],
        "recommend without 661 and 3": [[user, tables.recommend(user, 5, [661, 3])] for user in users],
        "similar": [[item, similar(tables, item, 3)] for item in items.tolist()],
        "titles": [tables.titles.get(str(item)) for item in items],
    }
    if format_version > 1:
        choices = [[user, tables.beside.score([user] * 5, tables.recommend(user, 5)).tolist()] for user in users]
        expected |= {"units": tables.units, "choices": choices}
    lines = ",\n".join(
        f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in expected.items()
    )
    (folder / "expected.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return folder


def similar(tables, item, k):
    """Return the most similar items without the item itself, by numpy."""
    best = np.argsort(-tables.cosines(item).round(6), kind="stable")
    return [other for other in tables.item_ids[best].tolist() if other != item][:k]


if __name__ == "__main__":
    import bundles  # in the folder of this script

    version = int(sys.argv[1])
    print(make(Path(sys.argv[2]) if len(sys.argv) > 2 else GOLDEN / f"v{version}", bundles, version))
