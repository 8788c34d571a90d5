"""The objective `ease`: its solver in a network, resumption, and its encoder."""

import pytest
import torch

from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.ease import EaseSettings, EaseSolver
from cflightning.objectives.solver import InteractionColumns
from cflightning.utils.interactions import make_interactions


def solver(epochs=0, state=None, weight=None, rating=None, **settings):
    """A solver of small random interactions after some epochs."""
    generator = torch.Generator().manual_seed(0)
    user, item = (torch.randint(1, size, (400,), generator=generator, dtype=torch.int32) for size in (40, 30))
    network = EmbeddingDot(40, 30, 6, autoencoder=True).requires_grad_(False)
    columns = InteractionColumns(user, item, weight, rating)
    made = EaseSolver(columns, network, EaseSettings(l2=5.0, **settings), dim=6)
    if state is not None:
        made.load(state)
    for epoch in range(epochs):
        made.train_epoch(epoch, epochs)
    return made


def test_users_are_sums_of_the_encoder():
    trained = solver(2)
    users, items = trained.network.tables()[:2]
    by_user = make_interactions(*trained.interactions[:2], 40, 30).by_user
    assert users.any()
    assert items.any()
    torch.testing.assert_close(users, by_user.sums(trained.network.encoder))


def test_a_resumed_solver_continues_bit_for_bit():
    full, half = solver(3), solver(2)
    resumed = solver(1, state=half.state)
    for one, other in zip(full.network.state_dict().values(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert 0 < full.loss() < 1


def test_a_network_without_encoder_has_none_in_its_state():
    assert "encoder" not in EmbeddingDot(4, 3, 2).state_dict()
    assert EmbeddingDot(4, 3, 2, autoencoder=True).state_dict()["encoder"].shape == (3, 2)


RATING = torch.linspace(0, 1, 400)


def test_ratings_weigh_the_interactions():
    by_rating = solver(2, rating=RATING, rating_weight=0.8)
    by_weight = solver(2, weight=1 + 0.8 * (RATING - 0.5))
    for one, other in zip(by_rating.network.tables()[:2], by_weight.network.tables()[:2], strict=True):
        assert torch.equal(one, other)
    assert by_rating.settings.rating_weight == 0.8


@pytest.mark.parametrize("columns", [{}, {"weight": torch.ones(400), "rating": RATING}])
def test_ratings_have_no_effect_beside_weights_or_if_there_are_none(columns):
    trained = solver(2, **columns)
    assert trained.settings.rating_weight == 0
    assert torch.equal(trained.network.encoder, solver(2, weight=torch.ones(400)).network.encoder)


@pytest.mark.parametrize("value", [-0.1, 2.5, float("nan")])
def test_a_rating_weight_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match="rating_weight: must be 0 to 2"):
        solver(rating=RATING, rating_weight=value)
