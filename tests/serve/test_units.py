"""Ratings and choices: which question is answered by which, and how it is said."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from cflightning_serve import BundleError, Scorer
from cflightning_serve.cli.main import main

STRANGER = 99_999


@pytest.fixture
def run(capsys):
    """Standard output and standard error of one command that answers."""

    def run(*words):
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr()

    return run


# Bundles --------------------------------------------------------------------------------------------------------------


def test_what_each_bundle_says(scorer, choice_scorer, mixed_scorer):
    said = [(one.manifest.format_version, *one.manifest.units.items()) for one in (scorer, choice_scorer, mixed_scorer)]
    assert said == [
        (1, ("score", "rating"), ("recommend", "rating")),
        (2, ("score", "choice"), ("recommend", "choice")),
        (2, ("score", "rating"), ("recommend", "choice")),
    ]
    assert choice_scorer.manifest.rating_range is None
    assert mixed_scorer.manifest.rating_range == (0.5, 5.0)


def test_ratings_are_scored_and_choices_recommended(mixed_scorer, mixed_tables):
    tables, beside = mixed_tables, mixed_tables.beside
    for user in [*tables.user_ids.tolist(), STRANGER]:
        scores = mixed_scorer.score(user, tables.item_ids)
        np.testing.assert_allclose(scores, tables.score([user] * len(tables.item_ids), tables.item_ids), atol=1e-5)
        assert scores.min() >= 0.5
        assert scores.max() <= 5
        best = mixed_scorer.recommend(user, 5, exclude=tables.item_ids[:2])
        assert best.items.tolist() == beside.recommend(user, 5, tables.item_ids[:2].tolist())
        np.testing.assert_allclose(best.scores, beside.score([user] * 5, best.items), atol=1e-5)
    assert mixed_scorer.recommend(30, 5).items.tolist() != replace(tables, beside=None).recommend(30, 5)


def test_similar_items_are_those_of_the_choices(mixed_scorer, mixed_tables):
    for n, item in enumerate(mixed_tables.item_ids):
        cosines = mixed_tables.beside.cosines(item)
        best = [m for m in np.argsort(-cosines, kind="stable") if m != n]
        assert mixed_scorer.similar_items(item, 100).items.tolist() == mixed_tables.item_ids[best].tolist()


def test_an_unknown_user_chooses_as_all_users_do_on_average(choice_scorer, choice_tables):
    users, items = choice_tables.user_ids, choice_tables.item_ids
    each = choice_scorer.score(np.repeat(users, len(items)), np.tile(items, len(users))).reshape(len(users), -1)
    np.testing.assert_allclose(choice_scorer.score(STRANGER, items), each.mean(0), atol=1e-5)
    best = items[np.argsort(-each.mean(0))].tolist()
    assert choice_scorer.recommend(STRANGER, 100).items.tolist() == best
    assert not choice_scorer.knows_user(STRANGER)


# Manifests ------------------------------------------------------------------------------------------------------------


def edited(bundles, folder, **changes):
    raw = json.loads((folder / "manifest.json").read_text("utf-8"))
    bundles.seal(folder, {key: value for key, value in (raw | changes).items() if value is not Ellipsis})
    return folder


@pytest.mark.parametrize(
    ("units", "match"),
    [
        (..., '"units" must be present, is missing'),
        (None, '"units" must be object, is null'),
        ("rating", '"units" must be object, is string'),
        (["rating", "choice"], '"units" must be object, is array'),
        ({}, '"units" -> "score" must be "rating" or "choice", is None'),
        ({"score": "rating"}, '"units" -> "recommend" must be "rating" or "choice", is None'),
        ({"score": "stars", "recommend": "choice"}, '"units" -> "score" must be "rating" or "choice", is \'stars\''),
        ({"score": "rating", "recommend": ["choice"]}, '"units" -> "recommend" must be .*, is .*choice'),
        ({"score": "rating", "recommend": 1}, '"units" -> "recommend" must be "rating" or "choice", is 1'),
        ({"score": True, "recommend": "choice"}, '"units" -> "score" must be "rating" or "choice", is True'),
    ],
)
def test_units_that_make_no_sense(bundles, mixed_tables, tmp_path, units, match):
    folder = edited(bundles, bundles.write_bundle(tmp_path / "bundle", mixed_tables), units=units)
    with pytest.raises(BundleError, match=match):
        Scorer.load(folder)


def test_units_of_other_questions_are_ignored(bundles, mixed_tables, tmp_path):
    folder = bundles.write_bundle(tmp_path / "bundle", mixed_tables)
    edited(bundles, folder, units=mixed_tables.units | {"explain": "words"})
    assert Scorer.load(folder).manifest.units == mixed_tables.units


def test_format_1_knows_no_units(bundles, copy):
    assert Scorer.load(edited(bundles, copy, units={"recommend": "choice"})).manifest.units["recommend"] == "rating"


def test_format_2_may_hold_ratings_alone(bundles, copy, tables):
    edited(bundles, copy, format_version=2, units={"score": "rating", "recommend": "rating"})
    assert Scorer.load(copy).recommend(10, 3).items.tolist() == tables.recommend(10, 3)


# The command line -----------------------------------------------------------------------------------------------------


def test_choices_are_not_called_scores_in_tables(run, bundle, mixed_bundle, choice_bundle):
    said = {}
    for folder in (bundle, mixed_bundle, choice_bundle):
        scored, recommended = run("score", folder, "--user", 30, "--item", 0), run("recommend", folder, "--user", 30)
        said[folder.name] = scored.out.split()[2], recommended.out.splitlines()[1].split()[2]
        assert recommended.err == ""
        assert ("no unit" in scored.err) == (folder == choice_bundle)
    assert said == {"int": ("score", "score"), "mixed": ("score", "choice"), "choice": ("choice", "choice")}


def test_documents_have_the_same_keys_and_the_unit(run, mixed_bundle):
    scored = json.loads(run("score", mixed_bundle, "--user", 30, "--item", 0, "--json").out)
    assert scored["unit"] == "rating"
    assert "score" in scored["pairs"][0]
    recommended = json.loads(run("recommend", mixed_bundle, "--user", 30, "--json").out)
    assert recommended["unit"] == "choice"
    assert list(recommended["users"][0]["items"][0]) == ["item", "score", "title"]


def test_notes_on_what_is_unknown(run, mixed_bundle, choice_bundle):
    note = "user 99999 is unknown: the items with the highest mean scores are recommended\n"
    assert run("recommend", mixed_bundle, "--user", STRANGER).err.endswith(note)
    assert "unknown: scored as the average item" in run("score", mixed_bundle, "--user", 30, "--item", STRANGER).err
    assert "unknown: the score has no meaning" in run("score", choice_bundle, "--user", 30, "--item", STRANGER).err


def test_info(run, bundle, mixed_bundle):
    shown = run("info", mixed_bundle).out
    assert re.search(r"^score +predicted ratings$", shown, re.MULTILINE)
    assert re.search(r"^recommend +without a unit: only the order", shown, re.MULTILINE)
    assert json.loads(run("info", mixed_bundle, "--json").out)["units"] == {"score": "rating", "recommend": "choice"}
    assert json.loads(run("info", bundle, "--json").out)["units"] == {"score": "rating", "recommend": "rating"}


def test_small_choices_are_told_apart(bundles, choice_tables, run, tmp_path):
    tiny = {name: getattr(choice_tables, name) * 1e-3 for name in ("item_vectors", "user_bias", "item_bias")}
    tables = replace(choice_tables, **tiny, global_bias=0.0)
    out = run("recommend", bundles.write_bundle(tmp_path / "tiny", tables), "--user", 30, "--k", 5).out
    shown = [float(line.split()[2]) for line in out.splitlines()[2:]]
    assert len(set(shown)) == 5
    assert shown == pytest.approx(tables.score([30] * 5, tables.recommend(30, 5)), abs=1e-5)
