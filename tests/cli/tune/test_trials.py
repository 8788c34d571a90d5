"""Trials in the journal."""

import pytest

from cflightning.cli.tune.ranges import SearchRange

pytest.importorskip("optuna", reason="tune needs the extra `tune`")


def test_trials_are_compared_at_the_same_share_of_their_schedule(tmp_path):
    from cflightning.cli.tune.trials import Outcome, Trials

    trials = Trials(tmp_path, {"x": SearchRange(0.0, 1.0)}, seed=0)
    trials.add_defaults(Outcome(0, 1.0, params={"x": 0.5}, stages=dict.fromkeys(range(1, 11), 1.0)))
    for turn in range(1, 5):
        trial = trials.start(turn)
        trial.outcome.value = 1.0
        assert not any(trial.report(stage, 9.0) for stage in range(1, 11))  # five others are wanted
        trial.finish(trial.outcome)
    trial = trials.start(5)
    assert [trial.report(stage, 9.1) for stage in range(1, 7)] == [False] * 4 + [True] * 2
    assert not trials.start(6).report(6, 8.9)
    assert [outcome.number for outcome in trials.outcomes()] == [0, 1, 2, 3, 4]
    trials.discard_running()
    assert not trials.start(5).duplicate_of()
