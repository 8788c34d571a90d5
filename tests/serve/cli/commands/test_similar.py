"""The command ``similar``."""

import json


def test_similar_items_are_printed(run, bundle, scorer, one_line):
    code, out, err = run("similar", bundle, "--item", 0, 30, "--k", 2)
    assert code == 2  # 30 is unknown
    assert "items must be known" in one_line(err)
    code, out, err = run("similar", bundle, "--item", 0, 27, "--k", 2)
    assert (code, err) == (0, "")
    first, second = out.split("\n\n")
    assert first.startswith("item 0 (Film 1 (1901))\n")
    assert second.startswith("item 27\n")
    document = json.loads(run("similar", bundle, "--item", 0, "--k", 2, "--json")[1])
    (item,) = document["items"]
    assert (item["item"], item["title"]) == (0, "Film 1 (1901)")
    assert [row["item"] for row in item["similar"]] == scorer.similar_items(0, 2).items.tolist()
    assert list(item["similar"][0]) == ["item", "similarity", "title"]
