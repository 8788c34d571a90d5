"""Trials in the journal."""

import pytest

from cflightning.cli.tune.ranges import SearchRange

pytest.importorskip("optuna", reason="tune needs the extra `tune`")


def test_trials_are_compared_at_the_same_share_of_their_schedule(tmp_path):
    from cflightning.cli.tune.trials import Outcome, Trials

    def finish(number):
        trial = trials.ask(number)
        for rung in range(1, 11):
            trial.report(9.0, rung)
            assert not trial.should_prune()  # five others are needed
        trials.tell(trial, Outcome(number, 1.0, params=trial.params))

    trials = Trials(tmp_path, {"x": SearchRange(0.0, 1.0)}, seed=0)
    trials.add_defaults(Outcome(0, 1.0, params={"x": 0.5}), dict.fromkeys(range(1, 11), 1.0))
    for number in range(1, 5):
        finish(number)
    trial = trials.ask(5)
    pruned = []
    for rung in range(1, 7):
        trial.report(9.1, rung)
        pruned.append(trial.should_prune())
    assert pruned == [False] * 4 + [True] * 2
    other = trials.ask(6)
    other.report(8.9, 6)
    assert not other.should_prune()
    assert [outcome.number for outcome in trials.outcomes()] == [0, 1, 2, 3, 4]
    trials.discard_running()
    assert trials.find(trials.outcomes()[3].params) == trials.outcomes()[3]
    assert trials.find(trials.ask(5).params) is None


def test_defaults_outside_of_their_ranges_are_kept_but_not_given_to_the_sampler(tmp_path):
    from cflightning.cli.tune.ranges import Choices
    from cflightning.cli.tune.trials import Outcome, Trials

    ranges = {"x": SearchRange(0.0, 1.0), "step": SearchRange(2, 8, step=3), "n": SearchRange(1, 3, log=True),
              "word": Choices(('"a"', "null"))}  # fmt: skip
    for number, (params, inside) in enumerate(
        [
            ({"x": 0.5, "step": 5, "n": 3, "word": "null"}, {"x", "step", "n", "word"}),
            ({"x": 1.5, "step": 4, "n": 0, "word": '"b"'}, set()),
            ({"n": 2}, {"n"}),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        trials = Trials(folder, ranges, seed=0)
        trials.add_defaults(Outcome(0, 1.0, params=params), {})
        assert trials.outcomes()[0].params == params
        assert set(trials.study.trials[0].params) == inside
