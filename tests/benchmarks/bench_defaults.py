"""The defaults on synthetic tables, relative to biases alone and to the best fixed settings.

    python tests/benchmarks/bench_defaults.py [--only NAME ...] [--seeds N] [--engine NAME]  (make bench-defaults)

Models are fitted as by the command line with default options. Beside the test RMSE, the table has gains over biases
alone, in per cent of their RMSE: of the model, of the expected ratings (upper bound), and of the best of eleven fixed
settings of l2 and the SVD++ term, selected on the validation rows.
"""

import argparse
import logging
import statistics
import tempfile
import warnings

import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from cflightning import EmbeddingDotTask, RatingEvaluation, RatingsDataModule, Trainer
from cflightning.cli.training.defaults import PATIENCE
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TEST, VAL

LINEAR = {
    "users": 3000, "items": 1000, "rows": 90_000, "dim": 4, "factors": 0.5, "user": 0.4, "item": 0.4, "noise": 0.8,
    "low": 1.0, "high": 5.0, "centre": 0.6, "step": 1.0, "user_tail": 0.0, "item_tail": 1.0, "taste": False,
}  # fmt: skip
"""Ratings are centre + user bias + item bias + factors + noise (standard deviations), rounded to steps and clipped to
the range. Tails are exponents of power laws of activity; with taste, users rate the best of three random items."""
TABLES = {
    "usual": {},
    "taste": {"taste": True},
    "biases, dense": {"users": 1000, "items": 500, "rows": 100_000, "factors": 0.0, "item_tail": 0.5},
    "biases": {"users": 6000, "items": 3000, "rows": 200_000, "factors": 0.0, "user_tail": 0.5},
    "biases, sparse": {"users": 20_000, "items": 3000, "rows": 50_000, "factors": 0.0},
    "hardly more": {"users": 6000, "items": 3000, "rows": 200_000, "factors": 0.15, "user_tail": 0.5},
    "noise": {"users": 2000, "rows": 60_000, "factors": 0.0, "user": 0.0, "item": 0.0},
    "jokes": {"users": 20_000, "items": 100, "rows": 600_000, "dim": 6, "factors": 2.0, "user": 2.0, "item": 1.0,
              "noise": 4.0, "low": -10.0, "high": 10.0, "step": 0.0, "item_tail": 0.3},
    "books": {"users": 10_000, "items": 30_000, "rows": 150_000, "factors": 0.6, "user": 1.2, "item": 0.8, "noise": 1.5,
              "low": 0.0, "high": 10.0, "centre": 0.75, "user_tail": 0.8, "item_tail": 0.8, "taste": True},
    "wide": {"users": 55_000, "items": 5000, "rows": 1_200_000, "dim": 8, "user_tail": 0.6},
    "one rating each": {"users": 20_000, "items": 500, "rows": 20_000},
    "items rated once": {"users": 2000, "items": 40_000, "rows": 50_000, "item_tail": 0.0},
    "tiny": {"users": 50, "items": 20, "rows": 300, "dim": 2, "item_tail": 0.3},
    "0 or 1": {"factors": 0.25, "user": 0.2, "item": 0.2, "noise": 0.35, "low": 0.0, "high": 1.0},
    "mostly fives": {"factors": 0.6, "user": 0.8, "item": 0.8, "noise": 1.2, "centre": 1.55},
    "0 to 1000": {"factors": 120.0, "user": 100.0, "item": 100.0, "noise": 150.0, "low": 0.0, "high": 1000.0,
                  "step": 0.0},
    "low rank": {"users": 1000, "items": 500, "rows": 50_000, "factors": 0.8, "noise": 0.1, "step": 0.0},
}  # fmt: skip
FIXED = [{"svdpp": bags, "l2": l2} for bags, values in
         (("both", (0.005, 0.01, 0.02, 0.04, 0.08)), ("none", (0.002, 0.004, 0.008, 0.016, 0.032, 0.064)))
         for l2 in values]  # fmt: skip


def make(seed: int, **options: object) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a table and the expectation of its ratings: float64 [rows]."""
    o = {**LINEAR, **options}
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(o["users"], o["dim"])) / np.sqrt(o["dim"]), rng.normal(size=(o["items"], o["dim"]))
    active, popular = (np.arange(1, o[side] + 1) ** -o[tail] for side, tail in
                       (("users", "user_tail"), ("items", "item_tail")))  # fmt: skip
    pairs, user = np.empty(0, np.int64), np.arange(o["users"])
    while len(pairs) < o["rows"]:
        drawn = rng.choice(o["items"], size=(len(user), 3 if o["taste"] else 1), p=popular / popular.sum())
        best = np.einsum("nd,nkd->nk", p[user], q[drawn]).argmax(1)
        pairs = np.concatenate([pairs, user * o["items"] + drawn[np.arange(len(user)), best]])
        pairs = pairs[np.sort(np.unique(pairs, return_index=True)[1])]
        user = rng.choice(o["users"], size=max(1000, o["rows"] // 3), p=active / active.sum())
    user, item = np.divmod(rng.permutation(pairs[: o["rows"]]), o["items"])
    truth = o["low"] + o["centre"] * (o["high"] - o["low"]) + o["factors"] * (p[user] * q[item]).sum(1)
    truth += o["user"] * rng.normal(size=o["users"])[user] + o["item"] * rng.normal(size=o["items"])[item]

    def seen(values: np.ndarray) -> np.ndarray:
        values = np.clip(values, o["low"], o["high"])
        return o["low"] + o["step"] * np.round((values - o["low"]) / o["step"]) if o["step"] else values

    rating = seen(truth + o["noise"] * rng.normal(size=len(truth)))
    mean = sum(seen(truth + o["noise"] * z) for z in rng.normal(size=200)) / 200
    return pd.DataFrame({"user": user, "item": item, "rating": rating}), mean


def fit(data: RatingsDataModule, **options: object) -> tuple[dict[str, float], float]:
    """Fit and test as the command line does; return the metrics and the validation error."""
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, "best", "val/rmse", save_weights_only=True)
        validated = bool(data.split.sizes[VAL])
        if not validated:
            best = ModelCheckpoint(folder, "best")
        callbacks = [
            best,
            RatingEvaluation(replicates=100),
            *([EarlyStopping("val/rmse", patience=PATIENCE)] if validated else []),
        ]
        trainer = Trainer(
            max_epochs=10, callbacks=callbacks, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
        )  # fmt: skip
        task = EmbeddingDotTask(objective="mse", **options)
        trainer.fit(task, data)
        [figures] = trainer.test(task, data, best.best_model_path, verbose=False, weights_only=True)
        return figures, float(best.best_model_score or 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--no-fixed", action="store_false", dest="fixed", help="leave out the fixed settings")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "cflightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print(f"{'table':<18}{'test RMSE':>10}{'gain %':>9}{'floor %':>9}{'best fixed %':>14}  gains by seed, %")
    for name in options.only:
        rows = []
        for seed in range(options.seeds):
            frame, mean = make(seed, **TABLES[name])
            data = RatingsDataModule.from_frame(frame, split=SplitOptions(seed=seed))
            figures, _ = fit(data, engine=options.engine, seed=seed)
            test = data.split.parts == TEST
            floor = np.sqrt(np.mean((frame.rating.to_numpy()[test] - mean[test]) ** 2))
            tried = [fit(data, engine=options.engine, seed=seed, **one) for one in FIXED if options.fixed]
            fixed = min(tried, key=lambda found: found[1], default=({"test/rmse": np.nan}, 0.0))
            rows.append([figures["test/rmse"], figures["test/baseline_rmse"], floor, fixed[0]["test/rmse"]])
        gains = [[100 * (1 - value / row[1]) for value in (row[0], row[2], row[3])] for row in rows]
        gain, floor, fixed = (statistics.mean(column) for column in zip(*gains, strict=True))
        rmse = statistics.mean(row[0] for row in rows)
        print(f"{name:<18}{rmse:>10.4f}{gain:>9.2f}{floor:>9.2f}{fixed:>14.2f}  "
              + " ".join(f"{one[0]:+.2f}" for one in gains), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
