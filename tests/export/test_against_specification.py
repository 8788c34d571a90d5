"""Every output of a bundle, compared with serve/BUNDLE.md in plain numpy and float64."""

import json
from dataclasses import asdict
from functools import cached_property

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.objectives.ials import IalsSettings
from cflightning.tasks.loading import load_task
from cflightning_export import export_bundle

USERS, ITEMS = 60, 45
UNKNOWN = "nobody"
CASES = {
    "ratings": {"objective": "mse"},
    "multitask": {
        "objective": "multitask",
        "ranking": {"objective": "ials", "dim": 6, "weight": 0.05, "l2": 0.02, "exponent": 0.8},
    },
    "choices": {"objective": "svd"},
    "autoencoder": {"objective": "ease", "ranking": {"l2": 3.0}},
    "multitask autoencoder": {"objective": "multitask", "ranking": {"objective": "ease", "dim": 6, "l2": 3.0}},
}


class Tables:
    """Tables of a network; for implicit feedback the unknown user is the mean user."""

    def __init__(self, network, unit):
        p, q, bu, bi, b = (table.double().numpy().copy() for table in network.tables())
        if unit == "choice":
            p[0], bu[0] = p[1:].mean(0), bu[1:].mean()
        self.p, self.q, self.scale = np.column_stack([p, bu]), np.column_stack([q, np.ones(len(q))]), network.scale
        self.bias, self.unit = bi + b, unit

    def logits(self, vectors):
        return vectors @ self.q.T + self.bias

    def score(self, logits):
        if self.unit == "choice":
            return logits
        low, high = self.scale.low, self.scale.high
        return np.clip(low + (high - low) / (1 + np.exp(-logits)), *self.scale.rating_range)


class Bundle:
    def __init__(self, folder, task):
        self.folder, self.manifest = folder, json.loads((folder / "manifest.json").read_text())
        units = self.manifest.get("units", {"score": "rating", "recommend": "rating"})
        self.scored = Tables(task.network, units["score"])
        self.lists = Tables(task.recommender, units["recommend"])
        self.users, self.items = (ids.values.tolist() for ids in (task.vocabulary.users, task.vocabulary.items))
        self.task, self.sessions = task, {}

    @cached_property
    def implicit_settings(self):
        """Item vectors, weight of all items, l2, exponent, and the length of solutions; None for the minimum's own."""
        q = self.lists.q[:, :-1]
        settings = asdict(IalsSettings())
        if self.task.metadata.objective == "multitask":
            settings |= CASES["multitask"]["ranking"]
            return q, settings["weight"], settings["l2"], settings["exponent"], None
        unit, length = (np.linalg.norm(table[1:, :-1], axis=1).mean() for table in (self.lists.q, self.lists.p))
        return q / unit, min(300 / (ITEMS + 1), 0.3), settings["l2"], settings["exponent"], length

    def choose(self, row, weight):
        """The vector of a new user from implicit feedback."""
        row, weight = row[row > 0], np.where(np.isnan(weight), 1, weight)[row > 0]
        own_part = min(weight.sum(), 1)
        encoder = self.task.recommender.encoder
        if encoder is not None:
            if self.task.metadata.objective == "multitask":
                weight = 1 + self.task.metadata.ranking["rating_weight"] / 2 * (weight - 1)
                own_part = min(weight.sum(), 1)
            p = weight @ encoder.double().numpy()[row] + (1 - own_part) * self.lists.p[0, :-1]
            return np.append(p, self.lists.p[1:, -1].mean())
        q, all_items, l2, exponent, length = self.implicit_settings
        a = q[row].T @ (q[row] * weight[:, None]) + all_items * q[1:].T @ q[1:]
        p = np.linalg.solve(a + l2 * (len(row) + all_items * ITEMS) ** exponent * np.eye(len(a)), weight @ q[row])
        if length is not None and len(row):
            p *= own_part * length / np.linalg.norm(p)
        return np.append(p + (1 - own_part) * self.lists.p[0, :-1], self.lists.p[1:, -1].mean())

    def ids(self, rows, side="items"):
        known = getattr(self, side)
        return np.array([known[row - 1] if row else UNKNOWN for row in rows], dtype=object)

    def ask(self, question, **feeds):
        if question not in self.sessions:
            path = str(self.folder / self.manifest["graphs"][question])
            self.sessions[question] = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        session = self.sessions[question]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.fixture(scope="module", params=list(CASES))
def bundle(request, tmp_path_factory):
    rng = np.random.default_rng(0)
    pairs = rng.permutation(USERS * ITEMS)[: USERS * ITEMS // 3]
    frame = pd.DataFrame({"user": pairs // ITEMS, "item": pairs % ITEMS, "rating": rng.integers(0, 11, len(pairs))})
    frame = frame.assign(user="u" + frame["user"].astype(str), item=frame["item"].astype(str).str.zfill(3) + "é")
    data = RatingsDataModule.from_frame(frame, split=SplitOptions(val_fraction=0.05))
    task = EmbeddingDotTask(dim=5, std=0.3, **CASES[request.param])
    trainer = Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu")  # fmt: skip
    trainer.fit(task, data)
    folder = tmp_path_factory.mktemp("specification")
    trainer.save_checkpoint(folder / "run.ckpt")
    return Bundle(export_bundle(folder / "run.ckpt", folder / "bundle"), load_task(folder / "run.ckpt"))


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(initial=1), rtol=0)


def best(order, k, left_out=()):
    order = order.copy()
    order[[row - 1 for row in left_out if row]] = -np.inf
    ranked = np.argsort(-order, kind="stable")[:k]
    return ranked[order[ranked] > -np.inf] + 1


@pytest.mark.slow
def test_scores_of_pairs(bundle):
    user, item = np.array([3, 0, 7, 0, 60]), np.array([5, 5, 0, 0, 45])
    answer = bundle.ask("score", user=bundle.ids(user, "users"), item=bundle.ids(item))
    logits = bundle.scored.logits(bundle.scored.p[user])[np.arange(5), item]
    close(answer["score"], bundle.scored.score(logits))
    assert answer["known"].tolist() == [[u > 0, i > 0] for u, i in zip(user, item, strict=True)]


@pytest.mark.parametrize("k", [1, 7, 1000])
@pytest.mark.parametrize("question", ["recommend", "filtered"])
def test_recommendations(bundle, question, k):
    user = np.array([0, 1, 17, 17, 60])
    left_out = [[], [3, 3, 0], [4], range(1, ITEMS + 1), range(1, ITEMS - 2)]
    place, item = zip(*((at, row) for at, rows in enumerate(left_out) for row in rows), strict=True)
    feeds = {"k": np.array([k]), "exclude_user": np.array(place), "exclude_item": bundle.ids(item)}
    allowed = np.ones(ITEMS, bool)
    if question == "filtered":
        allowed[::3] = False
        feeds["allowed"] = allowed
    answer = bundle.ask(question, user=bundle.ids(user, "users"), **feeds)
    assert answer["item"].shape == (5, min(k, ITEMS))
    logits = bundle.lists.logits(bundle.lists.p[user])[:, 1:]
    for at, rows in enumerate(left_out):
        expected = best(logits[at], k, [*rows, *(np.flatnonzero(~allowed) + 1)])
        assert answer["item"][at][: len(expected)].tolist() == bundle.ids(expected).tolist()
        close(answer["score"][at][: len(expected)], bundle.lists.score(logits[at][expected - 1]))
        assert (answer["score"][at][len(expected) :] == -np.inf).all()


def test_similar_items(bundle):
    q = bundle.lists.q[:, :-1]
    units = q[1:] / np.linalg.norm(q[1:], axis=1)[:, None]
    answer = bundle.ask("similar", item=bundle.ids([1, 30]), k=np.array([ITEMS - 1]))
    for at, row in enumerate((1, 30)):
        cosines = units @ units[row - 1]
        expected = best(cosines, ITEMS - 1, [row])
        assert answer["similar"][at].tolist() == bundle.ids(expected).tolist()
        close(answer["similarity"][at], cosines[expected - 1])


CHOICES = {
    "nothing": ([], []),
    "nothing known": ([0, 0], [2.0, np.nan]),
    "next to nothing": ([9], [0.001]),
    "less than one": ([9, 0, 4], [0.25, 0.5, 0.25]),
    "liked": ([9, 4, 30], [np.nan] * 3),
    "twice": ([9, 4, 9, 9], [1.0, np.nan, 2.5, 0.5]),
    "everything": (range(1, ITEMS + 1), [1.0] * ITEMS),
}


def fold_in(bundle, question, row, rating, k=10, exclude=()):
    every = np.arange(ITEMS + 1)
    return bundle.ask(question, item=bundle.ids(row), rating=np.array(rating, np.float32), k=np.array([k]),
                      exclude_item=bundle.ids(exclude), score_item=bundle.ids(every))  # fmt: skip


def explain(bundle, row, rating, target, user=()):
    return bundle.ask("explain", item=bundle.ids(row), rating=np.array(rating, np.float32),
                      target=bundle.ids(target), user=bundle.ids(user, "users"))  # fmt: skip


@pytest.mark.parametrize("bundle", [name for name in CASES if name != "ratings"], indirect=True)
@pytest.mark.parametrize("given", CHOICES)
def test_new_users_from_implicit_feedback(bundle, given):
    row, weight = (np.array(part, kind) for part, kind in zip(CHOICES[given], (int, float), strict=True))
    question = "fold_in_choice" if bundle.scored.unit == "rating" else "fold_in"
    vector = bundle.choose(row, weight)
    answer = fold_in(bundle, question, row, weight, exclude=[2])
    close(answer["vector"], vector)
    logits = bundle.lists.logits(vector)
    close(answer["asked"], logits)
    expected = best(logits[1:], 10, [*row, 2])
    assert answer["best"][: len(expected)].tolist() == bundle.ids(expected).tolist()
    assert (answer["score"][len(expected) :] == -np.inf).all()


@pytest.mark.parametrize("bundle", ["ratings", "multitask"], indirect=True)
@pytest.mark.parametrize("given", CHOICES)
def test_new_users_from_ratings_get_the_scores_of_their_vector(bundle, given):
    row = np.array(CHOICES[given][0], int)
    rating = np.random.default_rng(1).uniform(0, 10, len(row))
    answer = fold_in(bundle, "fold_in", row, rating, exclude=[2])
    logits = bundle.scored.logits(answer["vector"].astype(float))
    close(answer["asked"], bundle.scored.score(logits))
    expected = best(logits[1:], 10, [*row, 2])
    assert answer["best"][: len(expected)].tolist() == bundle.ids(expected).tolist()
    close(answer["score"][: len(expected)], bundle.scored.score(logits[expected]))
    shuffled = np.random.default_rng(2).permutation(len(row))
    close(fold_in(bundle, "fold_in", row[shuffled], rating[shuffled])["asked"], answer["asked"])
    close(fold_in(bundle, "fold_in", [*row, 0], [*rating, 3])["asked"], answer["asked"])


@pytest.mark.parametrize("given", CHOICES)
def test_contributions_sum_to_the_score(bundle, given):
    row, rating = (np.array(part, kind) for part, kind in zip(CHOICES[given], (int, float), strict=True))
    question = "fold_in_choice" if bundle.scored.unit != bundle.lists.unit else "fold_in"
    target = [9, 12, 44, 12]
    answer = explain(bundle, row, rating, target)
    close(answer["contribution"].sum(1) + answer["base"] + answer["rest"], answer["logit"])
    close(answer["rest"], np.zeros(4))
    assert not answer["contribution"][:, row == 0].any()
    close(answer["contribution"][1], answer["contribution"][3])
    close(answer["score"], fold_in(bundle, question, row, rating)["asked"][target])
    nothing = fold_in(bundle, question, [], [])["vector"].astype(float)
    if bundle.lists.unit == "rating" or not (row > 0).any():
        close(answer["base"], bundle.lists.logits(nothing)[target])
    shuffled = np.random.default_rng(2).permutation(len(row))
    again = explain(bundle, row[shuffled], rating[shuffled], target)
    close(again["contribution"], answer["contribution"][:, shuffled])


def test_contributions_of_a_known_user(bundle):
    row, target = [9, 4, 30], [9, 12, 44]
    answer = explain(bundle, row, [1.0, 2.0, 3.0], target, user=[0, 5])
    logits = bundle.lists.logits(bundle.lists.p[5])[target]
    close(answer["logit"], logits)
    close(answer["score"], bundle.lists.score(logits))
    close(answer["contribution"].sum(1) + answer["base"] + answer["rest"], logits)
    close(answer["contribution"], explain(bundle, row, [1.0, 2.0, 3.0], target)["contribution"])
    q = bundle.lists.q[:, :-1]
    lengths = np.linalg.norm(q, axis=1)
    close(answer["similarity"], q[target] @ q[row].T / np.outer(lengths[target], lengths[row]))
