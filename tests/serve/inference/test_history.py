"""Training rows of users and ids of the known users."""

import numpy as np
import pytest

from cflightning_serve import InputError


def test_the_history_of_a_user_equals_the_table(rich):
    scorer, tables = rich
    for user in [*tables.user_ids.tolist(), tables.unknown_id]:
        items, ratings = scorer.history(user)
        assert (items.tolist(), ratings.tolist()) == tuple(map(list, tables.seen(user)))
        assert ratings.dtype == np.float32
    with pytest.raises(InputError, match="history: user must be one id"):
        scorer.history(tables.user_ids)


def test_known_users_are_returned_in_ranges(rich):
    scorer, tables = rich
    assert scorer.users().tolist() == tables.user_ids.tolist()
    assert scorer.users(2, 4).tolist() == tables.user_ids[2:4].tolist()
