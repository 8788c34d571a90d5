"""Fold-in of new users: accuracy and latency.

    python tests/benchmarks/bench_fold_in.py [--only quality latency] [--seeds 3] [--write]    (or: make bench-fold-in)

Quality, on MovieLens 1M (CFLIGHTNING_DATA, default ../shared/data): a tenth of the users (default_rng(0)) is held
out; four fifths of the ratings of each are used for fold-in through the bundle's graph, and the rest is predicted.
For comparison: user bias only, the same model trained on these ratings too, and that model with refitted users
(`export --refit-users`). Recommendations are measured on all test items and on those rated 4 and 5, beside popularity.
Constants were selected on other tenths of the users.

Latency: 20 ratings, the best 10 of 3,706 items at dim 64, through ``Scorer.fold_in``, alternating with numpy, on
one thread.
"""

import argparse
import os
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from results import write_section

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.tasks.loading import load_task
from cflightning_export import export_bundle
from cflightning_export.contents.training_data import TrainingRows
from cflightning_export.fold_in.refit_users import refit_users
from cflightning_serve import Scorer

DATA = Path(os.environ.get("CFLIGHTNING_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
EPOCHS = 10
"""Default number of epochs of the command line."""
GIVEN = 5, 10, 20, 50, None
LENGTH = 10
LIKED = 4


class HeldOut:
    """Held-out users, with fold-in ratings and test ratings."""

    def __init__(self) -> None:
        self.frame = RatingsDataModule(str(DATA / "ml-1m")).table.frame
        rng, user = np.random.default_rng(0), self.frame["user"].to_numpy()
        users = rng.permutation(np.unique(user))
        self.users = users[: len(users) // 10]
        self.training = ~np.isin(user, self.users)
        self.given: list[np.ndarray] = []
        self.tested: list[np.ndarray] = []
        for one in self.users:
            rows = rng.permutation(np.flatnonzero(user == one))
            cut = max(1, round(0.2 * len(rows)))
            self.tested.append(rows[:cut])
            self.given.append(rows[cut:])

    def fit(self, folder: Path, rows: np.ndarray, seed: int, **model: object) -> Path:
        """Train the defaults on all of these rows; return the last checkpoint."""
        data = RatingsDataModule.from_frame(
            self.frame[rows], rating_range=(1, 5), split=SplitOptions(val_fraction=0, test_fraction=0)
        )
        keep = ModelCheckpoint(folder, "last", save_top_k=-1, every_n_epochs=EPOCHS, enable_version_counter=False)
        trainer = Trainer(max_epochs=EPOCHS, logger=False, callbacks=[keep], enable_progress_bar=False,
                          enable_model_summary=False, accelerator="cpu")  # fmt: skip
        trainer.fit(EmbeddingDotTask(seed=seed, **model), data)
        return folder / "last.ckpt"

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self.frame[name].to_numpy()[rows]

    def ndcg(self, recommend) -> list[float]:
        """Return nDCG@10 of all test items and of the liked ones; ``recommend(number of the user)`` returns ids."""
        discount = 1 / np.log2(np.arange(2, LENGTH + 2))
        found: tuple[list[float], list[float]] = [], []
        for n, rows in enumerate(self.tested):
            top, item, rating = recommend(n), self.column("item", rows), self.column("rating", rows)
            for values, relevant in zip(found, (item, item[rating >= LIKED]), strict=True):
                if len(relevant):
                    hit = np.isin(top, relevant) @ discount[: len(top)]
                    values.append(hit / discount[: len(relevant)].sum())
        return [float(np.mean(values)) for values in found]

    def rmse(self, predict) -> float:
        """Return the RMSE of all test ratings; ``predict(number of the user, test rows)`` returns scores."""
        squares = [(predict(n, rows) - self.column("rating", rows)) ** 2 for n, rows in enumerate(self.tested)]
        return float(np.sqrt(np.concatenate(squares).mean()))


def bias_alone(held: HeldOut, checkpoint: Path, most: int | None) -> float:
    """Predict with the model's item biases and a user bias from the same prior and noise, without factors."""
    task = load_task(checkpoint)
    tables, scale, known = task.network.tables(), task.network.scale, task.vocabulary.items
    logits = (tables.item_bias + tables.global_bias).double().numpy()
    bias = tables.user_bias[1:].double().numpy()
    mean, weight = bias.mean(), 0.3 / bias.var()

    def predict(number: int, rows: np.ndarray) -> np.ndarray:
        given = held.given[number][:most]
        base, rating, at = logits[known.indices(held.column("item", given))], held.column("rating", given), mean
        width = scale.high - scale.low
        for _ in range(10):
            share = 1 / (1 + np.exp(-(base + at)))
            slope, error = width * share * (1 - share), scale.low + width * share - rating
            at -= (slope @ error + weight * (at - mean)) / (slope @ slope + weight)
        share = 1 / (1 + np.exp(-(logits[known.indices(held.column("item", rows))] + at)))
        return (scale.low + width * share).clip(1, 5)

    return held.rmse(predict)


def solved_again(held: HeldOut, checkpoint: Path, rows: np.ndarray) -> float:
    """Refit the users of the network that was trained on these rows, as `export --refit-users` does."""
    task = load_task(checkpoint)
    users, items = task.vocabulary.users, task.vocabulary.items
    user, item = users.indices(held.column("user", rows)), items.indices(held.column("item", rows))
    order = np.lexsort((item, user))
    training = TrainingRows(user[order], item[order], held.column("rating", rows)[order].astype(np.float32))
    bags = torch.load(checkpoint, weights_only=True).get("cflightning_svdpp")
    refit_users(task.network, training, task.vocabulary.counts, bags[0] if bags else None)

    def predict(number: int, tested: np.ndarray) -> np.ndarray:
        user = torch.from_numpy(users.indices(np.repeat(held.users[number], len(tested))))
        with torch.inference_mode():
            return task.network(user, torch.from_numpy(items.indices(held.column("item", tested)))).numpy()

    return held.rmse(predict)


def popular(held: HeldOut, scorer: Scorer, most: int | None) -> list[float]:
    """Return the items with most training rows, without the fold-in items."""
    ids = scorer.catalogue.ids[np.argsort(-scorer.catalogue.counts, kind="stable")]

    def recommend(number: int) -> np.ndarray:
        return ids[~np.isin(ids, held.column("item", held.given[number][:most]))][:LENGTH]

    return held.ndcg(recommend)


def quality(seeds: int) -> str:
    """Return the tables of the default model and of one without SVD++ term."""
    models: dict[str, dict[str, object]] = {
        "Defaults": {},
        "Without SVD++ term (`--model.svdpp none`)": {"svdpp": "none"},
    }
    return "\n".join(f"{name}:\n\n{figures(seeds, lists=not model, **model)}" for name, model in models.items())


def figures(seeds: int, *, lists: bool, **model: object) -> str:
    """Return the tables, as means over seeds of the model; all results use the same test ratings."""
    held, nan = HeldOut(), float("nan")
    everything = np.ones(len(held.frame), dtype=bool)
    everything[np.concatenate(held.tested)] = False
    errors: dict[str, list[list[float]]] = {}
    gains: dict[str, list[list[list[float]]]] = {}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as scratch:
            base = held.fit(Path(scratch) / "base", held.training, seed, **model)
            full = held.fit(Path(scratch) / "full", everything, seed, **model)
            scorer = Scorer.load(export_bundle(base, Path(scratch) / "bundle"))
            trained = Scorer.load(export_bundle(full, Path(scratch) / "everything"))

            def ask(n: int, most: int | None, weighted: bool = True, scorer: Scorer = scorer, **more: object):
                rows = held.given[n][:most]
                return scorer.fold_in(
                    held.column("item", rows), held.column("rating", rows) if weighted else None, LENGTH, **more
                )

            def fold(most: int | None, ask=ask) -> float:
                return held.rmse(lambda n, rows: ask(n, most, score=held.column("item", rows)).requested_scores)

            def choose(most: int | None, weighted: bool, ask=ask) -> list[float]:
                return held.ndcg(lambda n: ask(n, most, weighted).items)

            def known(n: int, trained: Scorer = trained) -> np.ndarray:
                given = held.column("item", held.given[n])
                return trained.recommend(int(held.users[n]), LENGTH, exclude=given).items

            scored = {
                "user bias only": [bias_alone(held, base, most) for most in GIVEN],
                "fold-in": [fold(most) for most in GIVEN],
                "trained on all rows": [nan] * 4
                + [held.rmse(lambda n, rows: trained.score(int(held.users[n]), held.column("item", rows)))],  # noqa: B023
                "the same, users refitted": [nan] * 4 + [solved_again(held, full, everything)],
            }
            for name, values in scored.items():
                errors.setdefault(name, []).append(values)
            print(seed, {name: values[-1] for name, values in scored.items()}, flush=True)
            if lists:
                lines = {
                    "most popular": [popular(held, scorer, most) for most in GIVEN],
                    "fold-in, implicit": [choose(most, False) for most in GIVEN],
                    "fold-in, ratings": [choose(most, True) for most in GIVEN],
                    "trained on all rows": [[nan] * 2] * 4 + [held.ndcg(known)],
                }
                for name, pairs in lines.items():
                    gains.setdefault(name, []).append(pairs)
                print(seed, {name: pairs[-1] for name, pairs in lines.items()}, flush=True)
    text = f"Test RMSE of {len(held.users)} users by the number of their fold-in ratings; mean of {seeds} seeds.\n\n"
    text += table(errors)
    apart = [one[-1] - all_[-1] for one, all_ in zip(errors["fold-in"], errors["trained on all rows"], strict=True)]
    text += f"\nFold-in minus trained on all rows, by seed: {', '.join(f'{value:+.4f}' for value in apart)}.\n"
    for number, what in enumerate(
        ("the remaining items", f"the remaining items with ratings of {LIKED} or more") if lists else ()
    ):
        text += f"\nnDCG@{LENGTH} of {what}, fold-in items left out:\n\n"
        text += table({name: np.array(values)[..., number].tolist() for name, values in gains.items()})
    return text


def table(lines: dict[str, list[list[float]]]) -> str:
    """Format the means over seeds as a table."""
    text = "| | 5 | 10 | 20 | 50 | all |\n| --- | --: | --: | --: | --: | --: |\n"
    for name, values in lines.items():
        cells = ["" if np.isnan(mean) else f"{mean:.4f}".lstrip("0") for mean in np.mean(values, axis=0)]
        text += f"| {name} | {' | '.join(cells)} |\n"
    return text


def latency(calls: int) -> str:
    """Measure p50 of the scorer and of numpy, alternating."""
    held = HeldOut()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = held.fit(Path(scratch) / "all", np.ones(len(held.frame), dtype=bool), 0)
        scorer = Scorer.load(export_bundle(checkpoint, Path(scratch) / "bundle"))
        solve, items = in_numpy(checkpoint)
        lines = []
        for count in (5, 20, 100):
            questions = [(rng.choice(items, count, replace=False), rng.integers(1, 6, count).astype(np.float32))
                         for _ in range(50)]  # fmt: skip
            spent: dict[str, list[float]] = {"scorer": [], "numpy": []}
            for n in range(calls + 50):
                item, rating = questions[n % 50]
                for name, run in (("scorer", scorer.fold_in), ("numpy", solve)):
                    start = time.perf_counter()
                    run(item, rating, 10)
                    if n >= 50:
                        spent[name].append((time.perf_counter() - start) * 1e6)
            ours, theirs = (statistics.median(spent[name]) for name in ("scorer", "numpy"))
            quick = np.percentile(spent["scorer"], 10)
            lines.append(f"| {count} | {ours:.0f} | {quick:.0f} | {theirs:.0f} | {ours / theirs:.2f} |")
            print(lines[-1], flush=True)
    head = "| ratings | fold-in, p50 µs | p10 µs | numpy, p50 µs | ratio |\n| --: | --: | --: | --: | --: |\n"
    return head + "\n".join(lines) + "\n"


def in_numpy(checkpoint: Path):
    """Return a numpy implementation: three Newton steps of `np.linalg.solve` in float32, from ids to the best ten."""
    from cflightning_export.fold_in.prior import estimate_prior
    from cflightning_export.fold_in.spec import new_users

    task = load_task(checkpoint)
    tables, known = task.network.tables(), task.vocabulary.items
    bags = torch.load(checkpoint, weights_only=True)["cflightning_svdpp"][0]
    spec = new_users(
        tables,
        known,
        task.network.scale,
        estimate_prior(tables, "user", task.network.scale, task.vocabulary.counts, bags),
    )
    prior, low, width = spec.prior, spec.scale.low, spec.link_width
    table = np.column_stack([spec.vectors, np.ones(len(spec.vectors))]).astype(np.float32)
    bias = spec.bias + np.float32(spec.global_bias)
    precision = prior.precision().astype(np.float32)
    mean, directions = prior.mean.astype(np.float32), prior.weights.directions.astype(np.float32)
    rows = {item: row for row, item in enumerate(known.values.tolist(), 1)}

    def solve(item, rating, k):
        row = np.array([rows.get(one, 0) for one in item.tolist()])
        z, o = table[row], bias[row]
        start = mean + prior.weights.vectors[row].sum(axis=0) @ directions / np.sqrt(np.float32(len(row) + 1))
        x = start
        for _ in range(3):
            share = 1 / (1 + np.exp(-(z @ x + o)))
            slope, error = width * share * (1 - share), low + width * share - rating
            scaled = z * slope[:, None]
            x = x - np.linalg.solve(scaled.T @ scaled + precision, scaled.T @ error + precision @ (x - start))
        scores = table @ x + bias
        scores[row] = scores[0] = -np.inf
        best = np.argpartition(-scores, k)[:k]
        best = best[np.argsort(-scores[best])]
        return known.values[best - 1], low + width / (1 + np.exp(-scores[best]))

    return solve, known.values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=("quality", "latency"), default=["quality", "latency"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="replace the section of RESULTS.md; needs both parts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = {"quality": lambda: quality(options.seeds), "latency": lambda: latency(options.calls)}
    texts = {name: parts[name]() for name in options.only}
    print("\n".join(texts.values()))
    if options.write and len(texts) == len(parts):
        head = "## New users without retraining: MovieLens 1M, a tenth of the users held out\n\n"
        head += f"{date.today()}, `make bench-fold-in`. All rows except the test rows train. One thread.\n\n"
        write_section("fold-in", head + "\n".join(texts.values()))


if __name__ == "__main__":
    main()
