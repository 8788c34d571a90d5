"""The repr of every public object is one short, informative text."""

import numpy as np
import pandas as pd
import pytest

import cflightning
from cflightning import RatingsDataModule, Trainer, Vocabulary
from cflightning.data.sources import load_table
from cflightning.data.splits.options import SplitOptions

FRAME = pd.DataFrame({"user": np.arange(900) // 20, "item": np.arange(900) % 20, "rating": np.arange(900) % 5 + 1.0})


def short(thing):
    text = repr(thing)
    assert str(thing) == text
    assert len(text) < 300, text
    assert " object at 0x" not in text
    return text


def test_a_data_module_before_and_after_it_has_read():
    assert short(RatingsDataModule()) == "RatingsDataModule('movielens-small', not read yet)"
    assert short(RatingsDataModule("a.csv", feedback="implicit")).startswith(
        "RatingsDataModule('a.csv', feedback='implicit'"
    )
    data = RatingsDataModule.from_frame(FRAME, split=SplitOptions(val_fraction=0))
    assert "not read yet" in short(data)
    _ = data.split
    assert short(data) == (
        "RatingsDataModule(a frame, 900 ratings of 1 to 5 by 45 users for 20 items, random "
        "Split(810 train, 0 val, 90 test))"
    )


def test_what_a_data_module_hands_out():
    data = RatingsDataModule.from_frame(FRAME.assign(user="u" * 5000), split=SplitOptions(val_fraction=0))
    data.load_options.frame["item"] = np.arange(900)
    assert short(data.table) == "RatingTable(the frame: 900 ratings of 1 to 5 by 1 users for 900 items)"
    assert short(data.split) == "Split(810 train, 0 val, 90 test)"
    assert short(data.vocabulary) == "Vocabulary(1 users, 810 items, 0 titles, 0 categories)"
    assert short(data.table.item.ids) == "Ids(900 of type int64: 0, 1, 2, …)"
    assert short(data.table.user).startswith("IdColumn(900 rows: 'uuu")
    assert short(data.train_dataloader()).startswith("RatingLoader(")
    assert short(next(iter(data.test_dataloader()))) == "RatingBatch(90 of 90 ratings on cpu)"
    assert short(data.interactions(0)) == "Csr(2 x 811, 810 entries)"


def test_choices():
    import torch

    from cflightning.data.loaders.interactions import InteractionBatch

    rows = torch.arange(4)
    batch = InteractionBatch(rows, rows, rows[:, None].repeat(1, 3), None, rows, 8)
    assert short(batch) == "InteractionBatch(4 of 8 interactions, 3 negatives on cpu)"
    data = RatingsDataModule.from_frame(FRAME, feedback="implicit", split=SplitOptions(method="users", test_users=5))
    assert short(data.table) == "RatingTable(the frame: 900 rows by 45 users for 20 items)"
    assert " fold-in)" in short(data.split)
    assert short(data.held_out_users(2)).startswith("HeldOutUsers(5 users")


def test_an_empty_vocabulary_and_a_made_table():
    ids = RatingsDataModule.from_frame(FRAME).table.user.ids
    assert short(type(ids)(ids.values[:0])) == "Ids(0 of type int64)"
    assert "Vocabulary(0 users" in short(Vocabulary(type(ids)(ids.values[:0]), type(ids)(ids.values[:0])))
    made = load_table("synthetic", synthetic={"num_users": 30, "num_items": 20, "num_ratings": 200})
    assert "200 ratings" in short(made)


@pytest.mark.parametrize("name", ["EmbeddingDotTask", "EmbeddingMLPTask", "RecommenderTask", "RatingEvaluation"])
def test_other_public_objects(name):
    thing = getattr(cflightning, name)
    made = thing() if name != "RecommenderTask" else None
    assert name in repr(made if made is not None else thing)
    assert " object at 0x" not in repr(made)


def test_a_trainer_prints_a_data_module_that_it_was_given():
    data = RatingsDataModule.from_frame(FRAME)
    data.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    assert "RatingsDataModule(" in str(data)


def test_a_scorer(bundle):
    from cflightning_serve import Scorer

    scorer = Scorer.load(bundle)
    assert short(scorer).startswith("Scorer(")
    assert f"{scorer.manifest.num_users - 1:,} users" in repr(scorer)


def test_a_task_names_its_settings_and_sizes():
    assert short(cflightning.EmbeddingDotTask(dim=4, objective="mse")).startswith(
        "EmbeddingDotTask(dim=4, objective='mse', svdpp='both', members=1"
    )
    task = cflightning.EmbeddingMLPTask(dim=4)
    task.vocabulary = RatingsDataModule.from_frame(FRAME, split=SplitOptions(val_fraction=0)).vocabulary
    assert short(task).endswith(") of 45 users and 20 items")
