"""Batches of ratings: every row once an epoch on any number of devices, in an order by seed and epoch."""

import pytest
import torch

from cflightning.data.loaders.ratings import RatingLoader


def loader(n=101, **options):
    user = torch.arange(n)
    return RatingLoader(user, user + 1000, user.float(), **{"batch_size": 8, "shuffle": True, **options})


def rows(batches):
    return [row for batch in batches for row in batch.user.tolist()]


@pytest.mark.parametrize("world", [1, 2, 3, 16])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 101])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_once_over_all_devices(world, n, shuffle):
    parts = [loader(n, shuffle=shuffle, rank=rank, world_size=world) for rank in range(world)]
    batches = [list(part) for part in parts]
    assert sorted(sum((rows(b) for b in batches), [])) == list(range(n))
    assert {len(b) for b in batches} == {-(-n // 8)} == {len(parts[0])}  # every device takes every step
    for step in zip(*batches, strict=True):
        assert sum(len(batch.user) for batch in step) == step[0].total
        assert {batch.total for batch in step} == {step[0].total}
    for batch in sum(batches, []):
        assert (batch.item == batch.user + 1000).all()
        assert (batch.rating == batch.user).all()
        assert (batch.position == batch.user).all()


def test_devices_share_the_batches_of_a_single_device():
    whole = list(loader())
    shares = [list(loader(rank=rank, world_size=2)) for rank in range(2)]
    for batch, left, right in zip(whole, *shares, strict=True):
        assert sorted(batch.user.tolist()) == sorted(left.user.tolist() + right.user.tolist())


def test_seed_and_epoch_determine_the_order():
    one = loader(seed=3)
    first, again = rows(one), rows(one)
    assert first == again != list(range(101))
    one.set_epoch(1)
    second = rows(one)
    assert second != first
    assert sorted(second) == sorted(first)
    other = loader(seed=3)
    other.set_epoch(1)
    assert rows(other) == second
    assert rows(loader(seed=4)) != first


def test_a_pass_resumes_within_an_epoch():
    one = loader()
    passing = iter(one)
    seen = [next(passing) for _ in range(5)]
    fresh = loader()
    fresh.load_state_dict(one.state_dict())
    rest = list(fresh)
    assert rows(seen + rest) == rows(loader())
    assert len(list(fresh)) == len(fresh)  # only one pass is shortened
    for _ in one:
        pass
    assert one.state_dict() == {"served": 0}  # a finished pass leaves nothing to skip
