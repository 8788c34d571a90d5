"""Ranges in options and files, separated from plain values."""

import yaml

from cflightning.cli.tune.parse import parse_ranges
from cflightning.cli.tune.ranges import Choices, SearchRange


def test_ranges_are_separated_from_values_in_files_and_options(tmp_path):
    config = tmp_path / "ranges.yaml"
    config.write_text(
        "model:\n  class_path: EmbeddingDotTask\n  init_args:\n    l2: {low: 5e-3, high: 0.05, log: true}\n"
        "    std: 1e-2\n    dim: {low: 16, high: 64, step: 16}\n"
        "trainer: {max_epochs: {low: 2, high: 9}}\ndata: {path: '1e3'}\n"
    )
    options = ["--model.svdpp", "{choices: [both, none, null]}", "--optimizer.lr={low: 0, high: 1}", "--x", "-1", "y"]
    parsed = parse_ranges(["--config", str(config), *options])
    assert parsed.ranges == {
        "model.l2": SearchRange(0.005, 0.05, log=True),
        "model.dim": SearchRange(16, 64, step=16),
        "trainer.max_epochs": SearchRange(2, 9),
        "model.svdpp": Choices(('"both"', '"none"', "null")),
        "optimizer.lr": SearchRange(0, 1),
    }
    assert parsed.with_value == {"model.class_path", "model.std", "data.path", "x", "1"}
    assert parsed.fit_args[1:] == ["--x", "-1", "y"]
    name, _, left = parsed.fit_args[0].partition("=")
    assert name == "--config"
    assert left.startswith("{")
    assert "'1e3'" in left  # a text stays one
    model = {"class_path": "EmbeddingDotTask", "init_args": {"std": 0.01}}
    assert yaml.safe_load(left) == {"model": model, "data": {"path": "1e3"}}


def test_the_last_mention_of_an_option_counts(tmp_path):
    config = tmp_path / "ranges.yaml"
    config.write_text("model: {l2: {low: 1, high: 2}, dim: 5}\n")
    assert parse_ranges(["-c", str(config), "--model.l2", "3"]).ranges == {}
    later = parse_ranges(["--model.l2=3", "-c", str(config), "--model.dim", "{low: 1, high: 2}"])
    assert list(later.ranges) == ["model.l2", "model.dim"]
    assert later.with_value == set()
    assert later.fit_args == ["--model.l2=3", "-c={model: {dim: 5}}"]


def test_options_without_range_are_unchanged(tmp_path):
    config = tmp_path / "plain.yaml"
    config.write_text("model: {dim: 5, hidden: [1, 2]}\n")
    args = [f"--config={config}", "--data.synthetic", "{num_users: 5}", "--config", "missing.yaml", "--flag"]
    parsed = parse_ranges(args)
    assert parsed.fit_args == [
        f"--config={config}", "--data.synthetic={num_users: 5}", "--config=missing.yaml", "--flag",
    ]  # fmt: skip
    assert not parsed.ranges
