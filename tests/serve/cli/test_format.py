"""Text output."""

import json

from cflightning_serve.cli.format import format_table


def test_a_number_that_is_rounded_to_zero_has_no_sign():
    text = format_table(("term",), [(1.0,), (-1e-5,), (-0.0006,), (float("nan"),), (-0.0,)])
    assert text.split() == ["term", "1.000", "0.000", "-0.001", "nan", "0.000"]


def test_titles_cannot_contain_control_sequences(bundles, tables, run, tmp_path):
    titles = {str(item): "\x1b[31mred\nline" for item in tables.item_ids}
    folder = bundles.write_bundle(tmp_path / "evil", bundles.Tables(**{**vars(tables), "titles": titles}))
    _, out, _ = run("recommend", folder, "--user", 30, "--k", 1)
    assert "?[31mred?line" in out
    assert (
        json.loads(run("recommend", folder, "--user", 30, "--json")[1])["users"][0]["items"][0]["title"] == titles["0"]
    )
