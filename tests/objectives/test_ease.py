"""The objective `ease`: its solver in a network, resumption, and its encoder."""

import torch

from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.ease import EaseSettings, EaseSolver
from cflightning.objectives.solver import InteractionColumns
from cflightning.utils.interactions import make_interactions


def solver(epochs=0, state=None):
    """A solver of small random interactions after some epochs."""
    generator = torch.Generator().manual_seed(0)
    user, item = (torch.randint(1, size, (400,), generator=generator, dtype=torch.int32) for size in (40, 30))
    network = EmbeddingDot(40, 30, 6, autoencoder=True).requires_grad_(False)
    made = EaseSolver(InteractionColumns(user, item), network, EaseSettings(l2=5.0), dim=6)
    if state is not None:
        made.load(state)
    for epoch in range(epochs):
        made.train_epoch(epoch, epochs)
    return made


def test_users_are_sums_of_the_encoder():
    trained = solver(2)
    users, items = trained.network.fold()[:2]
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
