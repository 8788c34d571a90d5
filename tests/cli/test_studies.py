"""Studies: found again by their fingerprint, one command at a time."""

import json
import os
from contextlib import ExitStack

import pandas as pd
import pytest
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.cli.studies import fingerprint, open_study
from cflightning.data.table import RatingTable
from cflightning.errors import ConfigError


def table(**changes):
    frame = pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1], "rating": [3.0, 4.0, 5.0], "timestamp": [1, 2, 3]})
    return RatingTable.from_frame(frame.assign(**changes), "table")


def test_the_fingerprint_depends_on_options_and_ratings():
    one = fingerprint({"a": 1, "b": (2, 3)}, table())
    assert fingerprint({"b": (2, 3), "a": 1}, table()) == one
    others = [
        fingerprint({"a": 1, "b": (2, 4)}, table()),
        fingerprint({"a": 1, "b": (2, 3)}, table(rating=[3.0, 4.0, 4.0])),
        fingerprint({"a": 1, "b": (2, 3)}, table(user=[1, 2, 2])),
        fingerprint({"a": 1, "b": (2, 3)}, table(user=[7, 7, 9])),  # numbered alike, but other users
        fingerprint({"a": 1, "b": (2, 3)}, table(timestamp=[1, 2, 4])),
    ]
    assert len({one, *others}) == 6


def open_once(root, key):
    with ExitStack() as locks:
        return open_study(root, "kfold.json", key, locks)


def test_a_study_is_found_by_its_fingerprint(tmp_path):
    first = open_once(tmp_path, "aaa")
    assert first == tmp_path / "kfold_0"
    assert json.loads((first / "kfold.json").read_text()) == {"fingerprint": "aaa"}
    assert open_once(tmp_path, "bbb") == tmp_path / "kfold_1"
    assert open_once(tmp_path, "aaa") == first


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_other_files_are_not_changed(tmp_path, text):
    (tmp_path / "kfold_0").mkdir()
    (tmp_path / "kfold_0" / "kfold.json").write_text(text)
    assert open_once(tmp_path, "aaa") == tmp_path / "kfold_1"
    assert (tmp_path / "kfold_0" / "kfold.json").read_text() == text


def test_other_processes_make_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert not open_once(tmp_path, "aaa").exists()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    folder = open_once(tmp_path, "aaa")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert open_once(tmp_path, "aaa") == folder


def test_one_command_at_a_time_works_on_a_study(tmp_path):
    with ExitStack() as locks:
        open_study(tmp_path, "kfold.json", "aaa", locks)
        with pytest.raises(ConfigError, match=f"but process {os.getpid()} on .* uses it; wait until it ends, or rest"):
            open_study(tmp_path, "kfold.json", "aaa", locks, ", or rest")
