"""The command ``fold-in``."""

import json

import pytest


def test_recommendations_to_a_new_user_are_printed(make_folded, run):
    scorer, _ = make_folded("tables")
    folder = scorer.manifest.folder
    code, out, err = run("fold-in", folder, "--ratings", "0:5,12:1,77:3", "--k", 2, "--item", 3, "--json")
    document = json.loads(out)
    result = scorer.fold_in([0, 12], [5, 1], k=2, score=[3])
    assert (code, err) == (0, "")
    assert [row["item"] for row in document["items"]] == result.items.tolist()
    assert document["scores"][0]["score"] == pytest.approx(result.requested_scores[0], abs=1e-5)
    assert document["unknown_items"] == [77]
    code, out, err = run("fold-in", folder, "--ratings", "0:5,12:1,77:3", "--k", 2)
    assert out.split()[:3] == ["#", "item", "score"]
    assert "item 77 is unknown: ignored" in err
    code, out, _ = run("fold-in", folder, "--liked", 0, 12, "--k", 1, "--json")
    assert [row["item"] for row in json.loads(out)["items"]] == scorer.fold_in([0, 12], k=1).items.tolist()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--ratings", "0"], "must be ITEM:RATING"),
        (["--ratings", "0:x"], "must be ITEM:RATING"),
        (["--ratings", "x:3"], "ids are integers"),
        (["--ratings", "0:7"], "must be from 0.5 to 5"),
        ([], "required"),
    ],
)
def test_invalid_ratings_are_one_line(make_folded, run, one_line, options, match):
    code, out, err = run("fold-in", make_folded("tables")[0].manifest.folder, *options)
    assert (code, out) == (2, "")
    assert match in one_line(err)
