"""The command ``info``."""

import json
import re


def test_contents_and_metrics_are_printed(run, bundle, string_bundle):
    code, out, err = run("info", bundle)
    assert (code, err) == (0, "")
    fields = dict(line.split(None, 1) for line in out.splitlines() if line)
    assert fields["bundle"] == str(bundle)
    assert fields["rmse"].split(None, 1) == ["0.875", "root mean squared error of predicted ratings; lower is better"]
    assert fields["users"].startswith("7 known")
    assert fields["rows"].startswith("none: recommendations include seen items")
    assert fields["score"] == "predicted ratings"
    assert "0.5 to 5" in out
    fields = json.loads(run("info", string_bundle, "--json")[1])
    assert fields["item_ids"] == "string"
    assert fields["known_items"] == 11
    assert fields["titles"] is False
    assert fields["metrics"] == {"test/rmse": 0.875}
    assert fields["rows"] == "none"


def test_few_metrics_are_printed_and_the_others_counted(run, bundles, tables, tmp_path):
    parts = {"rmse": 0.9, "rmse_low": 0.8, "rmse_high": 1.0, "ndcg@10": 0.5, "ndcg@20": 0.6, "own": 7.0}
    metrics = {f"test/{name}": value for name, value in parts.items()} | {"val/ndcg@10": 0.25}
    metrics |= {f"test/recall@{k}": k / 100 for k in range(5, 100)}
    folder = bundles.write_bundle(tmp_path / "bundle", bundles.replace(bundles.make_rich(tables), metrics=metrics))
    code, out, _ = run("info", folder)
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["rmse"][1:4] == ["0.9", "[0.8,", "1]"]
    assert rows["ndcg@10"][1:3] == ["0.5", "0.25"]
    assert rows["recall@5"][1] == "0.05"
    assert out.endswith("96 more metrics: --json\n")  # ndcg@20, own and recall with other cut-offs
    assert len(out.splitlines()) < 25
    assert "every user's training rows" in " ".join(rows["rows"])


def test_a_bundle_without_a_rating_range(bundles, run, copy):
    raw = json.loads((copy / "manifest.json").read_text("utf-8"))
    bundles.seal(copy, raw | {"rating_range": None})
    assert "rating range  none\n" in run("info", copy)[1]
    assert json.loads(run("info", copy, "--json")[1])["rating_range"] is None


def test_units_are_printed(run, bundle, mixed_bundle):
    _, out, _ = run("info", mixed_bundle)
    assert re.search(r"^score +predicted ratings$", out, re.MULTILINE)
    assert re.search(r"^recommend +without a unit: only the order", out, re.MULTILINE)
    assert json.loads(run("info", mixed_bundle, "--json")[1])["units"] == {"score": "rating", "recommend": "choice"}
    assert json.loads(run("info", bundle, "--json")[1])["units"] == {"score": "rating", "recommend": "rating"}


def test_compared_ranking_models_are_printed(run, bundles, mixed_tables, bundle, tmp_path):
    comparison = {
        "validation": {"ials (dim 8)": 0.24, "ease (dim 8)": 0.25}, "chosen": "ease (dim 8)",
        "test": {"item-knn": {"ndcg@10": 0.2, "hr@10": 0.5}, "own": {"ndcg@10": 0.1}, "other": {"hr@10": 0.4}},
    }  # fmt: skip
    metrics = {"test/ndcg@10": 0.225, "test/ndcg@10_low": 0.2, "test/ndcg@10_high": 0.25}
    tables = bundles.replace(mixed_tables, comparison=comparison, metrics=metrics)
    folder = bundles.write_bundle(tmp_path / "bundle", tables)
    lines = run("info", folder)[1].splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("ranking model"))
    assert [re.split("  +", line) for line in lines[begin:]] == [
        ["ranking model", "test nDCG@10", "validation nDCG@10"],
        ["this bundle: ease (dim 8)", "0.225 [0.2, 0.25]", "0.25"],
        ["trained: ials (dim 8)", "0.24"],
        ["baseline: item neighbours", "0.2"],
        ["baseline: own", "0.1"],
    ]
    assert json.loads(run("info", folder, "--json")[1])["comparison"] == comparison
    assert "ranking model" not in run("info", bundle)[1]
    empty = {"validation": {}, "chosen": "", "test": {}}
    assert json.loads(run("info", bundle, "--json")[1])["comparison"] == empty
