"""The command ``audience``."""

import json

from cflightning_serve import Scorer


def test_the_audience_is_printed(run, rich_bundle, one_line):
    code, out, err = run("audience", rich_bundle, "--item", 0, 1, "--k", 2)
    assert code == 2  # 1 is unknown
    assert "items must be known" in one_line(err)
    code, out, err = run("audience", rich_bundle, "--item", 0, 27, "--k", 2)
    assert (code, err) == (0, "")
    first, second = out.split("\n\n")
    assert first.startswith("item 0 (Film 1 (1901))\n#  user  score\n1  ")
    assert second.startswith("item 27\n")
    for options, exclude_seen in (((), None), (("--no-exclude-seen",), False)):
        document = json.loads(run("audience", rich_bundle, "--item", 0, "--k", 9, "--json", *options)[1])
        assert document["unit"] == "rating"
        (item,) = document["items"]
        assert (item["item"], item["title"]) == (0, "Film 1 (1901)")
        top = Scorer.load(rich_bundle).audience(0, 9, exclude_seen=exclude_seen)
        assert [row["user"] for row in item["users"]] == top.users.tolist()
        assert list(item["users"][0]) == ["user", "score"]
