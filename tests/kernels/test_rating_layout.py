"""The layout of ratings for the fused step."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="the layout needs the extra `fast`")

from cflightning.kernels.rating_layout import make_layout

GRID = 8


def test_the_layout_keeps_every_rating_and_cells_of_a_stage_share_nothing():
    rng = np.random.default_rng(0)
    user, item = (rng.integers(1, size, 5000).astype(np.int32) for size in (60, 90))
    rating = rng.integers(1, 6, 5000).astype(np.float32)
    layout = make_layout(user, item, rating, 60, 90, GRID, 3)
    ratings = sorted(zip(user.tolist(), item.tolist(), rating.tolist(), strict=True))
    assert sorted(zip(layout.user.tolist(), layout.item.tolist(), layout.target.tolist(), strict=True)) == ratings
    users, items = {}, {}
    for cell in range(GRID * GRID):
        part = slice(layout.starts[cell], layout.starts[cell + 1])
        users.setdefault(cell // GRID, set()).update(layout.user[part].tolist())
        items.setdefault(cell % GRID, set()).update(layout.item[part].tolist())
    for groups in (users, items):
        assert sum(map(len, groups.values())) == len(set.union(*groups.values()))
