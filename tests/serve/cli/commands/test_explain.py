"""The command ``explain``."""

import json

import pytest


def test_contributions_are_printed_by_size(make_folded, run):
    scorer, _ = make_folded("string_tables")
    arguments = ["explain", scorer.manifest.folder, "--item", "i4", "--ratings", "i1:4.5,i2:1"]
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    total = sum(row["contribution"] for row in document["contributions"]) + document["base"] + document["rest"]
    assert total == pytest.approx(document["logit"], abs=1e-5)
    sizes = [abs(row["contribution"]) for row in document["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    code, out, _ = run(*arguments, "--user", "zoë")
    assert code == 0
    assert out.startswith("item i4: score ")
    assert "rest" in out


@pytest.mark.parametrize(
    ("options", "match"), [(["--item", 0, "--user", 10], "history"), (["--item", 77, "--liked", 0], "must be known")]
)
def test_requests_without_an_explanation_are_one_line(make_folded, run, one_line, options, match):
    code, out, err = run("explain", make_folded("tables")[0].manifest.folder, *options)
    assert (code, out) == (2, "")
    assert match in one_line(err)
