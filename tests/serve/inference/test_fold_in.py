"""New users and reasons from the reader's side: bundles by another writer, answers beside numpy."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cflightning_serve import BundleError, InputError, Scorer, UnknownIdError, UnsupportedError
from cflightning_serve.cli.main import main
from cflightning_serve.inference.fold_in import ratings_to_weights

KINDS = ("tables", "string_tables", "choice_tables", "mixed_tables")


@pytest.fixture(scope="module")
def made(request, bundles, new_rows, tmp_path_factory):
    """Kind -> tables and scorer, each made once."""
    found = {}

    def make(kind):
        if kind not in found:
            tables = request.getfixturevalue(kind)
            folder = bundles.write_bundle(tmp_path_factory.mktemp("new") / kind, tables)
            found[kind] = tables, Scorer.load(new_rows.add(folder, tables, bundles))
        return found[kind]

    return make


@pytest.fixture(params=KINDS)
def both(request, made):
    return made(request.param)


def question(tables, scorer, n=4):
    items = tables.item_ids[[1, 5, 2, 8][:n]].tolist()
    ratings = None if scorer.manifest.rating_range is None else [4.5, 1.0, 3.0, 5.0][:n]
    return items, ratings


def test_recommendations_and_asked_scores_are_those_of_numpy(both, new_rows):
    tables, scorer = both
    items, ratings = question(tables, scorer)
    numbers = np.full(len(items), np.nan) if ratings is None else ratings
    answering, scoring = new_rows.Reference(tables.recommender), new_rows.Reference(tables)
    asked = tables.item_ids[::-1].tolist()
    found = scorer.fold_in(items, ratings, k=3, score=asked)
    likes = np.full(len(items), np.nan) if tables.beside is not None else numbers
    assert found.items.tolist() == answering.best(items, likes, 3)
    np.testing.assert_allclose(found.scores, answering.score(items, likes, found.items.tolist()), atol=1e-4)
    np.testing.assert_allclose(found.asked, scoring.score(items, numbers, asked), atol=1e-4)
    np.testing.assert_allclose(found.vector, answering.solve(items, likes)[0], atol=1e-4)
    assert found.known.tolist() == [True] * 4
    assert found.scores.dtype == found.asked.dtype == found.vector.dtype == np.float32


def test_liked_items_alone(both, new_rows):
    tables, scorer = both
    items, _ = question(tables, scorer)
    found = scorer.fold_in(items, k=100)
    assert found.items.tolist() == new_rows.Reference(tables.recommender).best(items, [np.nan] * 4, 100)
    assert not set(items) & set(found.items.tolist())
    assert len(found.items) == len(tables.item_ids) - 4
    assert np.isfinite(found.scores).all()
    assert found.asked.shape == (0,)


def test_unknown_items_have_no_say_and_nothing_at_all_is_fine(both):
    tables, scorer = both
    stranger = "nobody" if tables.item_ids.dtype == object else 99_999
    items, ratings = question(tables, scorer)
    with_them = scorer.fold_in([stranger, *items], None if ratings is None else [1.0, *ratings])
    without = scorer.fold_in(items, ratings)
    assert with_them.known.tolist() == [False, True, True, True, True]
    assert with_them.items.tolist() == without.items.tolist()
    np.testing.assert_allclose(with_them.vector, without.vector, atol=1e-5)
    nothing, unknown = scorer.fold_in([]), scorer.fold_in([stranger])
    assert nothing.items.tolist() == unknown.items.tolist()
    assert nothing.known.shape == (0,)
    assert len(scorer.fold_in(tables.item_ids.tolist()).items) == 0


def test_exclusions_and_duplicates(both):
    tables, scorer = both
    items, ratings = question(tables, scorer)
    first = scorer.fold_in(items, ratings, k=1).items.tolist()
    rest = scorer.fold_in(items, ratings, k=100, exclude=[*first, *first, *items]).items.tolist()
    assert rest == scorer.fold_in(items, ratings, k=100).items.tolist()[1:]
    twice = scorer.fold_in([*items, *items], None if ratings is None else [*ratings, *ratings], k=100)
    assert sorted(map(str, twice.items)) == sorted(map(str, [*first, *rest]))
    array = scorer.fold_in(np.array(items), None if ratings is None else np.array(ratings, np.float64), k=100)
    assert array.items.tolist() == [*first, *rest]


@pytest.mark.parametrize("mistake", [
    ({"items": [0], "ratings": [9.0]}, "must be from 0.5 to 5, got 9 at position 0"),
    ({"items": [0, 3], "ratings": [3.0, np.nan]}, "got nan at position 1"),
    ({"items": [0], "ratings": [np.inf]}, "got inf"),
    ({"items": [0, 3], "ratings": [3.0]}, "one number for each of the 2 ids, got 1"),
    ({"items": [0], "ratings": [[3.0]]}, "got shape"),
    ({"items": [0], "ratings": ["3"]}, "must be numbers"),
    ({"items": [0], "ratings": [True]}, "must be numbers"),
    ({"items": [0], "ratings": [None]}, "must be numbers"),
    ({"items": 0, "ratings": [3.0]}, "must be a list or an array"),
    ({"items": ["a"], "ratings": [3.0]}, "ids are integers"),
    ({"items": [0], "k": 0}, "k: must be an integer from 1"),
    ({"items": [0], "exclude": ["a"]}, "excluded item ids"),
    ({"items": [0], "score": 1.5}, "scored item ids"),
])  # fmt: skip
def test_mistakes_are_named(made, mistake):
    words, match = mistake
    with pytest.raises(InputError, match=match):
        made("tables")[1].fold_in(**words)


def test_weights_of_choices(made):
    tables, scorer = made("choice_tables")
    scorer.fold_in(tables.item_ids[:2].tolist(), [2, 0.5])
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="weights above 0"):
            scorer.fold_in(tables.item_ids[:2].tolist(), [1.0, bad])


def test_contributions_add_up(both, new_rows):
    tables, scorer = both
    items, ratings = question(tables, scorer)
    target = tables.item_ids[4]
    found = scorer.explain(None, target, items=items, ratings=ratings)
    reference = new_rows.Reference(tables.recommender)
    numbers = [np.nan] * 4 if ratings is None or tables.beside is not None else ratings
    _, each = reference.solve(items, numbers)
    np.testing.assert_allclose(found.contributions, each @ reference.z[5], atol=1e-4)
    assert found.contributions.sum() + found.base + found.rest == pytest.approx(found.logit, abs=1e-5)
    assert found.rest == pytest.approx(0, abs=1e-5)
    assert found.score == pytest.approx(reference.score(items, numbers, [target])[0], abs=1e-4)
    assert found.items.tolist() == items


def test_known_users_have_a_rest(both):
    tables, scorer = both
    items, ratings = question(tables, scorer)
    user, target = tables.user_ids[2], tables.item_ids[4]
    found = scorer.explain(user, target, items=items, ratings=ratings)
    fresh = scorer.explain(None, target, items=items, ratings=ratings)
    np.testing.assert_array_equal(found.contributions, fresh.contributions)
    assert found.contributions.sum() + found.base + found.rest == pytest.approx(found.logit, abs=1e-5)
    logit = tables.recommender.logits([user])[0, 5]
    assert found.logit == pytest.approx(logit, abs=1e-4)
    assert abs(found.rest) > 1e-3


def test_nearest_are_the_liked_ones_by_cosine(made):
    tables, scorer = made("tables")
    items, ratings = question(tables, scorer)
    target = tables.item_ids[4]
    found = scorer.explain(None, target, items=[*items, 99_999], ratings=[*ratings, 5.0]).nearest
    cosines = tables.cosines(target)
    liked = [items[0], items[3]]  # 4.5 and 5, the mean of the known ones being 3.375
    expected = sorted(liked, key=lambda one: -cosines[tables.rows([one], tables.item_ids)[0] - 1])
    assert found.items.tolist() == expected
    assert found.similarities.tolist() == sorted(found.similarities.tolist(), reverse=True)


def test_what_cannot_be_explained(made):
    tables, scorer = made("tables")
    known = tables.item_ids[0]
    for words, error, match in (
        ({"user": None, "item": 99_999, "items": [0]}, UnknownIdError, "item must be known"),
        ({"user": 99_999, "item": known, "items": [0]}, UnknownIdError, "user must be known"),
        ({"user": None, "item": known}, InputError, "needs a user"),
        ({"user": 10, "item": known, "ratings": [3.0]}, InputError, "needs a user, or the rated items"),
        ({"user": 10, "item": known}, UnsupportedError, "with --with-history"),
        ({"user": None, "item": [known, known], "items": [0]}, InputError, "one id"),
    ):
        with pytest.raises(error, match=match):
            scorer.explain(**words)


def test_a_bundle_without_them_says_so(scorer):
    for ask in (lambda: scorer.fold_in([0]), lambda: scorer.explain(None, 0, items=[0]),
                lambda: scorer.fold_in_item([10])):  # fmt: skip
        with pytest.raises(UnsupportedError, match="export the bundle again"):
            ask()


def test_another_signature_is_refused(bundles, new_rows, tables, tmp_path):
    folder = new_rows.add(bundles.write_bundle(tmp_path / "bundle", tables), tables, bundles)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["fold_in"] = "explain.onnx"
    bundles.seal(folder, manifest)
    with pytest.raises(BundleError, match="inputs must be"):
        Scorer.load(folder).fold_in([0])


# Command line ---------------------------------------------------------------------------------------------------------


def run(capsys, *words):
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_fold_in_command(made, capsys):
    _, scorer = made("tables")
    folder = scorer.manifest.folder
    code, out, err = run(capsys, "fold-in", folder, "--ratings", "0:5,12:1,77:3", "--k", 2, "--item", 3, "--json")
    answer = json.loads(out)
    found = scorer.fold_in([0, 12], [5, 1], k=2, score=[3])
    assert (code, err) == (0, "")
    assert [one["item"] for one in answer["items"]] == found.items.tolist()
    assert answer["scores"][0]["score"] == pytest.approx(found.asked[0], abs=1e-5)
    assert answer["unknown_items"] == [77]
    code, out, err = run(capsys, "fold-in", folder, "--ratings", "0:5,12:1,77:3", "--k", 2)
    assert out.split()[:3] == ["#", "item", "score"]
    assert "item 77 is unknown: ignored" in err
    code, out, _ = run(capsys, "fold-in", folder, "--liked", 0, 12, "--k", 1, "--json")
    assert [one["item"] for one in json.loads(out)["items"]] == scorer.fold_in([0, 12], k=1).items.tolist()


def test_explain_command(made, capsys):
    _, scorer = made("string_tables")
    words = ["explain", scorer.manifest.folder, "--item", "i4", "--ratings", "i1:4.5,i2:1"]
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    total = sum(one["contribution"] for one in answer["contributions"]) + answer["base"] + answer["rest"]
    assert total == pytest.approx(answer["logit"], abs=1e-5)
    sizes = [abs(one["contribution"]) for one in answer["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    code, out, _ = run(capsys, *words, "--user", "zoë")
    assert code == 0
    assert out.startswith("item i4: score ")
    assert "rest" in out


@pytest.mark.parametrize(("words", "match"), [
    (["fold-in", "B", "--ratings", "0"], "must be ITEM:RATING"),
    (["fold-in", "B", "--ratings", "0:x"], "must be ITEM:RATING"),
    (["fold-in", "B", "--ratings", "x:3"], "ids are integers"),
    (["fold-in", "B", "--ratings", "0:7"], "must be from 0.5 to 5"),
    (["fold-in", "B"], "required"),
    (["explain", "B", "--item", "0", "--user", "10"], "history"),
    (["explain", "B", "--item", "77", "--liked", "0"], "must be known"),
])  # fmt: skip
def test_wrong_commands_are_one_line(made, capsys, words, match):
    folder = made("tables")[1].manifest.folder
    code, out, err = run(capsys, *(folder if word == "B" else word for word in words))
    assert (code, out) == (2, "")
    assert match in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("limits", "ratings", "weights"),
    [
        ((1.0, 5.0), [5, 3, 1, 2], [2, 1, 1e-3, 0.5]),
        ((0.5, 5.0), [5, 2.75, 0.5], [2, 1, 1e-3]),
        ((-10.0, 10.0), [10, 0, -10, np.nan], [2, 1, 1e-3, np.nan]),
        ((3.0, 3.0), [3, 3], [np.nan, np.nan]),
        (None, [4.0, np.nan], [4.0, np.nan]),
    ],
)
def test_choices_count_by_their_ratings(limits, ratings, weights):
    manifest = SimpleNamespace(rating_range=limits)
    found = ratings_to_weights(np.array(ratings, np.float32), manifest)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, weights, rtol=1e-6)


def test_of_mixed_bundles_low_ratings_pull_less(made, monkeypatch):
    (tables, scorer), asked = made("mixed_tables"), []
    run = scorer._graphs.run
    monkeypatch.setattr(scorer._graphs, "run", lambda *a: asked.append((a[0], a[2])) or run(*a))
    items = tables.item_ids[:2].tolist()
    low, high = scorer.manifest.rating_range
    scorer.fold_in(items, [high, low], score=items)
    scorer.explain(None, items[0], items=items, ratings=[high, low])
    seen = {name: feeds["rating"].tolist() for name, feeds in asked if "rating" in feeds}
    assert seen == {"fold_in_choice": [2, np.float32(1e-3)], "fold_in": [high, low], "explain": [2, np.float32(1e-3)]}
