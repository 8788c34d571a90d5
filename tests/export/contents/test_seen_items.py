"""Rows of the users in a bundle."""

import json

import pytest

from cflightning import EmbeddingDotTask
from cflightning.__main__ import main as front_door
from cflightning_export import export_bundle
from cflightning_serve import Scorer, UnsupportedError

from ..frames import make_frame

ALWAYS = {
    "score", "recommend", "similar", "filtered", "scores", "factors", "users", "similar_users", "audience", "fold_in",
    "explain",
}  # fmt: skip


def test_a_bundle_has_items_of_rows_by_default_and_no_ratings(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert set(manifest["graphs"]) == ALWAYS | {"seen"}
    scorer = Scorer.load(bundle)
    with pytest.raises(UnsupportedError):
        scorer.history(1)
    assert set(scorer.catalogue.categories) == {"Drama"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"split": {"method": "leave_last", "val_fraction": 0.05}},
        {"split": {"val_method": "per_user", "val_fraction": 0.3}},
        {"min_rating": 4, "feedback": "implicit"},
    ],
    ids=["leave_last", "validation", "min_rating"],
)
def test_recommendations_have_no_item_of_any_row_of_the_user(tmp_path, options, make_run):
    frame = make_frame().assign(timestamp=range(40 * 25 // 3))
    objective = "ials" if "feedback" in options else "mse"
    make_run(tmp_path / "run", frame, EmbeddingDotTask(dim=2, objective=objective), **options)
    scorer = Scorer.load(export_bundle(tmp_path / "run", tmp_path / "bundle"))
    users, known = scorer.users(), set(scorer.catalogue.ids.tolist())
    rows = {user: known & set(frame["item"][frame["user"] == user]) for user in users.tolist()}
    everything = scorer.recommend(users, 25)
    assert [set(top.items.tolist()) for top in everything] == [known - rows[user] for user in users.tolist()]
    lists = scorer.recommend_many(users, 25)
    assert lists.items.tolist() == [item for top in everything for item in top.items.tolist()]
    assert set(scorer.recommend(int(users[0]), 25, exclude_seen=False).items.tolist()) == known


@pytest.mark.slow
def test_without_history_a_bundle_has_no_rows(run, tmp_path, capsys):
    assert front_door(["export", str(run), str(tmp_path / "bundle"), "--without-history"]) == 0
    assert "recommendations include seen items" in capsys.readouterr().out
    scorer = Scorer.load(tmp_path / "bundle")
    assert set(scorer.manifest.graphs) == ALWAYS
    assert len(scorer.recommend(1, 1000).items) == scorer.manifest.num_items - 1
    with pytest.raises(UnsupportedError, match="seen"):
        scorer.recommend(1, exclude_seen=True)
