"""The command ``batch``."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from cflightning_serve import Scorer


def test_a_shard_is_written_to_a_file_of_its_own(run, rich_bundle, tmp_path):
    options = ["--out", tmp_path / "a.csv", "--shard", "2/2", "--threads", 2]
    code, out, _ = run("batch", rich_bundle, "--k", 3, *options)
    file = tmp_path / "a-00002-of-00002.csv"
    assert (code, out) == (0, f"recommendations written to {file}\n")
    with file.open(newline="") as lines:
        header, *rows = csv.reader(lines)
    assert header == ["user", "rank", "item", "score"]
    assert rows


def test_the_users_of_a_file_are_processed(run, rich_bundle, tmp_path):
    (tmp_path / "users.csv").write_text("name,user\nx,30\ny,31\n")
    file = tmp_path / "b.parquet"
    options = ["--out", file, "--users", tmp_path / "users.csv", "--no-exclude-seen", "--json"]
    code, out, _ = run("batch", rich_bundle, "--k", 3, *options)
    assert (code, json.loads(out)) == (0, {"file": str(file)})
    top = Scorer.load(rich_bundle).recommend([30, 31], 3, exclude_seen=False)  # 31 is unknown
    assert pq.read_table(file)["item"].to_pylist() == [item for items, _ in top for item in items.tolist()]


@pytest.mark.parametrize(
    "options", [["--out", "x.txt"], ["--out", "x.csv", "--shard", "3"], ["--out", "x.csv", "--users", "none.csv"]]
)
def test_invalid_options_are_one_line(run, rich_bundle, one_line, options):
    code, _, err = run("batch", rich_bundle, *options)
    assert code == 2
    assert one_line(err)


def test_an_interrupted_command_can_be_continued(run, rich_bundle, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    arguments = ["batch", rich_bundle, "--k", 3, "--out", tmp_path / "recommendations.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "recommend_many", interrupt)
        assert run(*arguments)[::2] == (130, "cflightning_serve: stopped; repeat the command to continue\n")
    assert run(*arguments)[0] == 0
