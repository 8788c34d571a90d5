"""Batches of interactions: each once, with the same negative samples on any number of devices and after a resume."""

import numpy as np
import pytest
import torch

from cflightning.data.loaders.interactions import InteractionLoader
from cflightning.data.loaders.negative_sampling import InBatchNegatives, UniformNegatives, accidental_hits
from cflightning.errors import ConfigError, DataError

ITEMS = 30
COUNTS = torch.bincount(torch.arange(101) % 29 + 1, minlength=ITEMS)
KINDS = {
    "own": UniformNegatives(ITEMS, 3),
    "shared": UniformNegatives(ITEMS, 6, shared=True),
    "batch": InBatchNegatives(COUNTS),
}


def loader(n=101, kind="own", **options):
    user = torch.arange(n, dtype=torch.int32)
    return InteractionLoader(user, user % 29 + 1, KINDS[kind], **{"batch_size": 8, "shuffle": True, **options})


def same(one, other):
    return all(
        a == b if not isinstance(a, torch.Tensor) else torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [1, 2, 3, 16])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 101])
def test_every_interaction_once_with_the_negatives_of_a_single_device(world, n, kind):
    whole = {}
    for number, batch in enumerate(loader(n, kind)):
        for at, position in enumerate(batch.position.tolist()):
            whole[position] = number, batch.negatives[at] if kind == "own" else batch.negatives
    parts = [list(loader(n, kind, rank=rank, world_size=world)) for rank in range(world)]
    assert {len(part) for part in parts} == {-(-n // 8)}
    seen = []
    for part in parts:
        for number, batch in enumerate(part):
            assert batch.user.dtype == batch.item.dtype == batch.negatives.dtype == torch.int64
            assert torch.equal(batch.user, batch.position) and torch.equal(batch.item, batch.position % 29 + 1)
            for at, position in enumerate(batch.position.tolist()):
                seen.append(position)
                assert whole[position][0] == number
                assert torch.equal(whole[position][1], batch.negatives[at] if kind == "own" else batch.negatives)
    assert sorted(seen) == list(range(n))
    for step in zip(*parts, strict=True):
        assert sum(len(batch.user) for batch in step) == step[0].total


@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_epoch_determine_order_and_samples(kind):
    one = loader(kind=kind, seed=3)
    first, again = list(one), list(one)
    assert all(map(same, first, again))
    one.set_epoch(1)
    second = list(one)
    assert not any(map(same, first, second))
    other = loader(kind=kind, seed=3)
    other.set_epoch(1)
    assert all(map(same, second, other))
    assert not any(map(same, first, loader(kind=kind, seed=4)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [1, 2])
def test_a_pass_resumes_within_an_epoch(kind, world):
    one = loader(kind=kind, rank=world - 1, world_size=world)
    whole = list(one)
    passing = iter(one)
    for _ in range(5):
        next(passing)
    fresh = loader(kind=kind, rank=world - 1, world_size=world)
    fresh.load_state_dict(one.state_dict())
    rest = list(fresh)
    assert len(rest) == len(whole) - 5 and all(map(same, whole[5:], rest))
    assert len(list(fresh)) == len(fresh)
    assert one.state_dict() == {"served": 5}
    assert fresh.state_dict() == {"served": 0}


def test_without_shuffling_the_order_is_that_of_the_columns():
    one = loader(shuffle=False)
    assert torch.cat([batch.position for batch in one]).tolist() == list(range(101))
    batches = [batch.negatives for batch in one]
    one.set_epoch(1)
    assert not any(
        torch.equal(a, b.negatives) for a, b in zip(batches, one, strict=True)
    )  # the samples change all the same


@pytest.mark.parametrize("shared", [True, False])
def test_uniform_negatives_are_uniform_and_never_unknown(shared):
    item = torch.ones(4000, dtype=torch.int64)
    drawn = UniformNegatives(6, 20_000 if shared else 5, shared).draw(item, torch.Generator().manual_seed(0))
    assert drawn.items.shape == ((20_000,) if shared else (4000, 5))
    assert drawn.log_q is None
    counts = np.bincount(drawn.items.flatten(), minlength=6)
    assert counts[0] == 0 and len(counts) == 6
    assert ((counts[1:] - 4000) ** 2 / 4000).sum() < 18.5  # chi-square, 4 degrees of freedom: 1 in 1000
    assert UniformNegatives(2, 3).draw(item[:2], torch.Generator()).items.tolist() == [[1, 1, 1]] * 2


def test_sampling_does_not_use_the_global_generator():
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(before, torch.get_rng_state())


def test_in_batch_negatives_are_sampled_by_popularity():
    for batch in loader(kind="batch", rank=1, world_size=3):
        assert len(batch.negatives) == batch.total
        torch.testing.assert_close(batch.log_q.exp(), COUNTS[batch.negatives] / 101)
        own = accidental_hits(batch.item, batch.negatives)
        assert own.any(1).all()  # its own choice, at least


def test_accidental_hits_are_the_chosen_item():
    item = torch.tensor([4, 2, 9])
    assert accidental_hits(item, torch.tensor([2, 4, 4])).tolist() == [
        [False, True, True],
        [True, False, False],
        [False] * 3,
    ]
    assert accidental_hits(item, torch.tensor([[4, 2], [4, 2], [1, 1]])).tolist() == [
        [True, False],
        [False, True],
        [False] * 2,
    ]


def test_invalid_arguments_are_refused():
    for num_items, m in ((1, 3), (5, 0)):
        with pytest.raises(ConfigError, match="m must be at least 1, got"):
            UniformNegatives(num_items, m)
    with pytest.raises(DataError, match="one of the training part, got 1 others"):
        InBatchNegatives(torch.tensor([0, 5, 0])).draw(torch.tensor([1, 2]), torch.Generator())
    with pytest.raises(DataError, match=r"two columns of one length, got \[3\] and \[2\]"):
        InteractionLoader(torch.ones(3), torch.ones(2), KINDS["own"], batch_size=2)
