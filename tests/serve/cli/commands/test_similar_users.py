"""The command ``similar-users``."""

import json

from cflightning_serve import Scorer


def test_similar_users_are_printed(run, rich_bundle, one_line):
    code, out, err = run("similar-users", rich_bundle, "--user", 10, 11, "--k", 2)
    assert code == 2  # 11 is unknown
    assert "users must be known" in one_line(err)
    code, out, err = run("similar-users", rich_bundle, "--user", 10, 30, "--k", 2)
    assert (code, err) == (0, "")
    first, second = out.split("\n\n")
    assert first.startswith("user 10\n#  user  similarity\n1  ")
    assert second.startswith("user 30\n")
    document = json.loads(run("similar-users", rich_bundle, "--user", 10, "--k", 2, "--json")[1])
    (user,) = document["users"]
    assert user["user"] == 10
    assert [row["user"] for row in user["similar"]] == Scorer.load(rich_bundle).similar_users(10, 2).users.tolist()
    assert list(user["similar"][0]) == ["user", "similarity"]


def test_an_older_bundle_is_refused(run, bundle, one_line):
    code, _, err = run("similar-users", bundle, "--user", 10)
    assert code == 2 and "has no graph 'similar_users'" in one_line(err)
