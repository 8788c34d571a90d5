"""The command ``recommend``."""

import json
from dataclasses import replace

import pytest

from cflightning_serve import Scorer


def test_recommendations_are_printed_as_a_table(run, bundle, scorer, tables):
    code, out, err = run("recommend", bundle, "--user", 30, "--k", 3)
    assert (code, err) == (0, "")
    heading, header, *rows = out.splitlines()
    assert heading == "user 30"
    assert header.split() == ["#", "item", "score", "title"]
    top = scorer.recommend(30, 3)
    for rank, (row, item, score) in enumerate(zip(rows, top.items, top.scores, strict=True), 1):
        assert row.split(maxsplit=3)[:3] == [str(rank), str(item), f"{score:.3f}"]
        assert row.endswith(tables.titles.get(str(item), ""))
    assert len({len(row.split("Film")[0]) for row in rows if "Film" in row}) == 1  # aligned


def test_recommendations_are_printed_as_json(run, bundle, tables):
    code, out, err = run("recommend", bundle, "--user", 30, 99999, "--k", 2, "--exclude", -3, 0, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert list(document) == ["unit", "users"]
    assert [(user["user"], user["known"]) for user in document["users"]] == [(30, True), (99999, False)]
    for user in document["users"]:
        assert [row["item"] for row in user["items"]] == tables.recommend(user["user"], 2, [-3, 0])
        assert all(list(row) == ["item", "score", "title"] for row in user["items"])


def test_unknown_users_are_noted(run, bundle, one_line):
    code, out, err = run("recommend", bundle, "--user", 99999)
    assert code == 0
    assert out.startswith("user 99999\n")
    note = "user 99999 is unknown: the items with the highest mean ratings are recommended"
    assert one_line(err) == f"cflightning_serve: {note}\n"
    *_, err = run("recommend", bundle, "--user", 1, 2, 3, 4, 10, 1)
    assert "4 users are unknown (1, 2, 3, ...): the items" in one_line(err)


def test_no_items_left(run, bundle, tables):
    code, out, _ = run("recommend", bundle, "--user", 30, "--exclude", *tables.item_ids)
    assert (code, out) == (0, "user 30: no items left\n")


def test_string_ids_are_not_converted(run, string_bundle, string_tables):
    code, out, err = run("recommend", string_bundle, "--user", "001", "--k", 2, "--json")
    assert (code, err) == (0, "")
    user = json.loads(out)["users"][0]
    assert user["user"] == "001"
    assert user["items"][0]["title"] is None
    assert [row["item"] for row in user["items"]] == string_tables.recommend("001", 2)
    code, out, err = run("recommend", string_bundle, "--user", "zoë")
    assert out.startswith("user zoë\n")
    assert "title" not in out
    assert "user 1 is unknown" in run("recommend", string_bundle, "--user", "1")[2]


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--no-exclude-seen"], {"exclude_seen": False}),
        (["--allow", "0", "6", "-3"], {"allow": [0, 6, -3]}),
        (["--deny", "0", "3"], {"deny": [0, 3]}),
        (["--category", "Drama", "Crime"], {"categories": ["Drama", "Crime"]}),
        (["--min-count", "2", "--diversity", "0.7"], {"min_count": 2, "diversity": 0.7}),
    ],
)
def test_options_are_arguments_of_the_scorer(run, rich_bundle, options, arguments):
    code, out, _ = run("recommend", rich_bundle, "--user", 30, "--k", 4, "--json", *options)
    assert code == 0
    items = [row["item"] for row in json.loads(out)["users"][0]["items"]]
    assert items == Scorer.load(rich_bundle).recommend(30, 4, **arguments).items.tolist()


def test_invalid_filters_are_refused(run, rich_bundle, one_line):
    code, _, err = run("recommend", rich_bundle, "--user", 30, "--category", "Western")
    assert code == 2
    assert "known are Crime, Drama" in one_line(err)
    code, _, err = run("recommend", rich_bundle, "--user", 30, "--allow", "x")
    assert code == 2
    assert "--allow: ids are integers" in one_line(err)


def test_small_scores_have_enough_decimals(bundles, choice_tables, run, tmp_path):
    small = {name: getattr(choice_tables, name) * 1e-3 for name in ("item_vectors", "user_bias", "item_bias")}
    tables = replace(choice_tables, **small, global_bias=0.0)
    out = run("recommend", bundles.write_bundle(tmp_path / "small", tables), "--user", 30, "--k", 5)[1]
    scores = [float(line.split()[2]) for line in out.splitlines()[2:]]
    assert len(set(scores)) == 5
    assert scores == pytest.approx(tables.score([30] * 5, tables.recommend(30, 5)), abs=1e-5)
