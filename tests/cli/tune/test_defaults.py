"""Search spaces of the objectives."""

import pytest


def test_every_objective_has_a_search_space():
    from cflightning import EmbeddingDotTask, RatingsDataModule
    from cflightning.cli.tune.defaults import default_ranges
    from cflightning.errors import ConfigError

    module = RatingsDataModule(source="synthetic", synthetic={"num_users": 30, "num_items": 20, "num_ratings": 300})
    for objective in ("mse", "bce", "bpr", "softmax", "ccl", "ials", "svd"):
        for engine in ("auto", "autograd") if objective in ("bce", "softmax") else ("auto",):
            task = EmbeddingDotTask(objective=objective, engine=engine)
            found = default_ranges(task, module, set())
            assert {"model.dim"} < set(found)
            assert any(name.startswith("model.ranking.") for name in found) == (objective != "mse")
    left = default_ranges(EmbeddingDotTask(objective="ials"), module, {"model.l2", "model.dim"})
    assert set(left) == {"model.ranking.weight", "trainer.max_epochs"}
    with pytest.raises(ConfigError, match="tune: needs a range"):
        default_ranges(
            EmbeddingDotTask(objective="ials"), module, {"model.ranking.weight", *left, "model.l2", "model.dim"}
        )
