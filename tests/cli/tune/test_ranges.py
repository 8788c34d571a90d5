"""Ranges and their values."""

import pytest
import yaml

from cflightning.__main__ import main as front_door
from cflightning.cli.tune.parse import dump
from cflightning.cli.tune.ranges import Choices, SearchRange, as_argument, make_range, samples, set_option


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{low: 2, high: 2}", "low must be below high, got 2 and 2"),
        ("{low: 3, high: 2}", "low must be below high, got 3 and 2"),
        ("{low: 0, high: 2, log: true}", "low must be above 0 with log, got 0"),
        ("{low: 1}", "high must be a number, got None"),
        ("{low: a, high: 2}", "low must be a number, got 'a'"),
        ("{low: true, high: 2}", "low must be a number, got True"),
        ("{low: 1, high: .inf}", "high must be a number, got inf"),
        ("{low: 1, high: 2, lok: true}", "a range has low, high, log, step or choices, got lok"),
        ("{low: 1, high: 2, log: 3}", "log must be true or false, got 3"),
        ("{low: 1, high: 9, log: true, step: 2}", "step must divide high - low and stands without log"),
        ("{low: 1, high: 8, step: 2}", "step must divide high - low and stands without log, got step 2 from 1 to 8"),
        ("{low: 1, high: 8, step: -1}", "step must divide high - low"),
        ("{choices: []}", "choices must be a list of at least one value and stand alone"),
        ("{choices: 3}", "choices must be a list"),
        ("{choices: [1], low: 3}", "choices must be a list of at least one value and stand alone"),
    ],
)
def test_bad_ranges(text, message, capsys):
    assert front_door(["tune", "--model.dim", text]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cflightning: --model.dim: {message}")
    assert said.count("\n") == 1


def test_values_become_arguments_and_settings():
    assert make_range("x", {"low": 1, "high": 3}).whole
    assert not make_range("x", {"low": 1, "high": 3.5}).whole
    assert not make_range("x", {"low": 0, "high": 1, "step": 0.25}).whole
    found = [*samples({"a": SearchRange(1, 3), "b": Choices(('"u"', "null", "[1, 2]"))})]
    assert found == [{"a": 1, "b": '"u"'}, {"a": 3, "b": "null"}, {"a": 1, "b": "[1, 2]"}]
    assert [as_argument(value) for value in (1e-5, 3, '"u"', "null", "[1, 2]")] == ["1e-05", "3", "u", "null", "[1, 2]"]
    settings = {"model": {"class_path": "M", "init_args": {"dim": 4}}}
    for name, value in {"model.dim": 8, "model.svdpp": '"u"', "trainer.max_epochs": 3, "optimizer": "null"}.items():
        set_option(settings, name, value)
    model = {"class_path": "M", "init_args": {"dim": 8, "svdpp": "u"}}
    assert settings == {"model": model, "trainer": {"max_epochs": 3}, "optimizer": None}
    assert yaml.safe_load(dump({"a": 1e-5, "b": "1e-5", "ä": "x"})) == {"a": 1e-5, "b": "1e-5", "ä": "x"}
