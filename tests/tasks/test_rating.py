"""Training: it comes close to the best possible error, resumes exactly, and its checkpoints are self-contained."""

import math

import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from cflightning import EmbeddingDotTask, EmbeddingMLPTask, RatingsDataModule
from cflightning.checkpoint.format import FORMAT, locate_checkpoint, read_checkpoint
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.splits.options import SplitOptions
from cflightning.engines.schedule import one_cycle
from cflightning.errors import CheckpointError, ConfigError, DataError
from cflightning.tasks.loading import load_task
from cflightning.testing import TaskContract

SMALL = {"num_users": 60, "num_items": 40, "num_ratings": 1200}


class TestEmbeddingDotTask(TaskContract):
    def make(self):
        return EmbeddingDotTask(dim=4, learning_rate=0.03)


class TestEmbeddingMLPTask(TaskContract):
    def make(self):
        return EmbeddingMLPTask(dim=4, hidden=(8,), learning_rate=0.03)


def data(**options):
    options = {
        "source": "synthetic",
        "synthetic": SMALL,
        "batch_size": 100,
        "split": SplitOptions(val_fraction=0.05),
        **options,
    }
    return RatingsDataModule(**options)


def trainer(epochs=2, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": epochs, "enable_checkpointing": False, **quiet, **options})


def parameters(task):
    return torch.cat([p.detach().reshape(-1) for p in task.network.parameters()])


def test_planted_factors_are_found_up_to_the_noise():
    made = {"num_users": 400, "num_items": 100, "num_ratings": 20_000, "dim": 2, "noise": 0.3}
    module = data(synthetic=made, batch_size=1000)
    task = EmbeddingDotTask(dim=4, learning_rate=0.05, l2=0.002)
    fit = trainer(6)
    fit.fit(task, module)
    [metrics] = fit.test(task, module, verbose=False)
    floor = math.sqrt(module.table.noise_floor[module.split.test].mean())
    assert 1 <= metrics["test/rmse"] / floor < 1.15
    ratings = module.table.ratings
    assert metrics["test/rmse"] < 0.6 * ratings[module.split.test].std()


def test_metrics_equal_those_of_the_predictions():
    module, task, fit = data(), EmbeddingDotTask(dim=4), trainer()
    fit.fit(task, module)
    [metrics] = fit.test(task, module, verbose=False)
    frame = module.table.frame.iloc[module.split.test]
    users, items = module.vocabulary.users.indices(frame["user"]), module.vocabulary.items.indices(frame["item"])
    with torch.no_grad():
        scores = task.eval()(torch.from_numpy(users), torch.from_numpy(items)).numpy()
    off = scores.astype(float) - frame["rating"].to_numpy()
    assert metrics["test/rmse"] == pytest.approx(math.sqrt((off**2).mean()), abs=1e-9)
    assert metrics["test/mae"] == pytest.approx(abs(off).mean(), abs=1e-9)


def test_training_loss_is_the_mean_squared_error_before_each_step():
    # With a learning rate of zero nothing changes, so the epoch's loss is that of the untrained network.
    module, task, fit = data(), EmbeddingDotTask(dim=4, learning_rate=0.0, svdpp="none"), trainer(1)
    fit.fit(task, module)
    frame = module.table.frame.iloc[module.split.train]
    users, items = module.vocabulary.users.indices(frame["user"]), module.vocabulary.items.indices(frame["item"])
    with torch.no_grad():
        scores = task.train()(torch.from_numpy(users), torch.from_numpy(items)).numpy()
    expected = ((scores.astype(float) - frame["rating"].to_numpy()) ** 2).mean()
    assert float(fit.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)


def test_global_bias_starts_at_the_mean_rating_and_is_not_decayed():
    module, task, fit = data(), EmbeddingDotTask(dim=4, learning_rate=0.0, weight_decay=1.0), trainer(1)
    fit.fit(task, module)
    start = float(task.network.scale(task.network.global_bias.detach()))
    assert start == pytest.approx(module.mean_rating, abs=1e-4)
    decayed = {id(p) for group in fit.optimizers[0].param_groups if group["weight_decay"] for p in group["params"]}
    assert id(task.network.global_bias) not in decayed
    assert id(task.network.user_factors.weight) in decayed


def test_the_seed_determines_the_result_and_the_global_random_state_stays():
    state = torch.random.get_rng_state()
    results = []
    for seed in (1, 1, 2):
        task = EmbeddingDotTask(dim=4, seed=seed)
        trainer().fit(task, data())
        results.append(parameters(task))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # resuming writes into it
@pytest.mark.parametrize("inside", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, inside):
    every = {"every_n_train_steps": 13} if inside else {"every_n_epochs": 1}

    def saving():
        saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **every)
        return trainer(4, callbacks=[saver], enable_checkpointing=True)

    whole, straight = EmbeddingDotTask(dim=4), saving()
    straight.fit(whole, data())
    steps = len(data().train_dataloader())
    assert 13 % steps != 0  # so the first checkpoint lies inside an epoch
    stopped = tmp_path / f"step={13 if inside else 2 * steps}.ckpt"
    expected = float(straight.callback_metrics["val/rmse"])
    task, again = EmbeddingDotTask(dim=4), saving()
    again.fit(task, data(), ckpt_path=stopped, weights_only=True)
    assert again.global_step == straight.global_step == 4 * steps
    assert torch.equal(parameters(task), parameters(whole))
    assert float(again.callback_metrics["val/rmse"]) == expected


def test_resuming_with_more_epochs_follows_the_longer_schedule(tmp_path):
    first = trainer(2)
    first.fit(EmbeddingDotTask(dim=4), data())
    first.save_checkpoint(tmp_path / "two.ckpt")
    second = trainer(5)
    second.fit(EmbeddingDotTask(dim=4), data(), ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert second.current_epoch == 5


def test_one_cycle_rises_then_falls_and_stays():
    rates = [one_cycle(step, 100) for step in range(120)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == rates[25] == pytest.approx(1)
    assert rates[99] == pytest.approx(1e-3)
    assert rates[119] == rates[99]
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert all(0 < one_cycle(step, total) <= 1 for total in (1, 2, 3) for step in range(5))


def test_an_open_number_of_epochs_keeps_the_learning_rate(caplog):
    fit = trainer(-1, max_time={"seconds": 1})
    fit.fit(EmbeddingDotTask(dim=4, learning_rate=0.01), data())
    assert "the learning rate stays at 0.01" in caplog.text
    assert fit.optimizers[0].param_groups[0]["lr"] == 0.01


# The checkpoint -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint with string ids and titles."""
    module = data()
    frame = module.table.frame.assign(
        user=lambda f: "u" + f["user"].astype(str).str.zfill(3), title=lambda f: "Film " + f["item"].astype(str)
    )
    task, fit = EmbeddingDotTask(dim=4), trainer()
    options = {"table": TableFormat(title="title"), "split": SplitOptions(val_fraction=0.05)}
    fit.fit(task, RatingsDataModule.from_frame(frame, batch_size=100, **options))
    path = tmp_path_factory.mktemp("checkpoint") / "strings.ckpt"
    fit.save_checkpoint(path)
    return path


def test_a_checkpoint_holds_plain_types_only(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    packed = content["cflightning"]
    assert packed["format"] == FORMAT
    assert packed["users"][0] == "u001"
    assert packed["items"].dtype == torch.int64
    assert packed["titles"][1] == "Film 1"
    assert packed["rating_range"][0] < packed["rating_range"][1]


def test_load_from_checkpoint_restores_the_task(checkpoint):
    task = EmbeddingDotTask.load_from_checkpoint(checkpoint, weights_only=True)
    assert torch.equal(parameters(task), parameters(load_task(checkpoint)))
    assert task.vocabulary.users.values[0] == "u001"


@pytest.fixture
def unnamed(checkpoint, tmp_path):
    """The checkpoint without provenance, for which any data is accepted."""
    content = read_checkpoint(checkpoint)
    del content["cflightning"]["data"]
    torch.save(content, tmp_path / "unnamed.ckpt")
    return tmp_path / "unnamed.ckpt"


def test_vocabulary_comes_from_the_checkpoint_and_not_from_the_data(checkpoint, unnamed, caplog):
    # Fewer users, in another order, and a new one: sizes and indices must be those of the checkpoint.
    frame = pd.DataFrame({"user": ["u007", "zoe", "u003", "u003"], "item": [3, 3, 5, 7], "rating": [2.0, 3, 4, 1]})
    module = RatingsDataModule.from_frame(frame, split=SplitOptions(test_fraction=0.5, val_fraction=0, seed=1))
    task, fit = EmbeddingDotTask(dim=4), trainer()
    [metrics] = fit.test(task, module, ckpt_path=unnamed, verbose=False, weights_only=True)
    assert task.network.num_users == load_task(checkpoint).network.num_users
    rows = frame.iloc[module.split.test]
    reference = load_task(checkpoint)
    users, items = reference.vocabulary.users.indices(rows["user"]), reference.vocabulary.items.indices(rows["item"])
    with torch.no_grad():
        scores = reference(torch.from_numpy(users), torch.from_numpy(items)).numpy()
    assert metrics["test/mae"] == pytest.approx(abs(scores - rows["rating"].to_numpy()).mean(), abs=1e-6)
    predicted = fit.predict(task, module)
    assert len(torch.cat([score for _, score in predicted])) == 4
    assert "predict: 1 of 4 rows have an id not seen in training" in caplog.text


def test_data_with_another_id_type_is_refused(unnamed):
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 3], "rating": [2.0, 3]})
    module = RatingsDataModule.from_frame(frame, split=SplitOptions(test_fraction=0.5, val_fraction=0))
    with pytest.raises(DataError, match="mixed id types"):
        trainer().test(EmbeddingDotTask(dim=4), module, ckpt_path=unnamed, verbose=False, weights_only=True)


def test_invalid_checkpoints_are_refused(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="there is none"):
        read_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}, "evil": RatingsDataModule}, tmp_path / "object.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "object.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="something else"):
        read_checkpoint(tmp_path / "list.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    for change, message in (
        ({"format": FORMAT + 1}, "upgrade cflightning"),
        ({"task": "os.system"}, "was written by the task os.system"),
        ({"users": 3}, "vocabulary cannot be read"),
        ({"rating_range": "x"}, "rating_range cannot be read, got str; was it edited"),
        ({"format": -1}, "checkpoint format -1"),
    ):
        torch.save({**content, "cflightning": {**content["cflightning"], **change}}, tmp_path / "changed.ckpt")
        with pytest.raises(CheckpointError, match=message):
            load_task(tmp_path / "changed.ckpt")
    for change in ({"dim": 5}, {"bogus": 1}):
        torch.save(
            {**content, "hyper_parameters": {**content["hyper_parameters"], **change}}, tmp_path / "changed.ckpt"
        )
        with pytest.raises(CheckpointError, match="does not fit EmbeddingDotTask"):
            load_task(tmp_path / "changed.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    with pytest.raises(CheckpointError, match="has no vocabulary"):
        load_task(tmp_path / "bare.ckpt")


def test_find_returns_the_best_checkpoint_of_a_run(checkpoint, tmp_path):
    assert locate_checkpoint(checkpoint) == checkpoint
    with pytest.raises(CheckpointError, match="does not exist"):
        locate_checkpoint(tmp_path / "no")
    with pytest.raises(CheckpointError, match="train first"):
        locate_checkpoint(tmp_path)
    (tmp_path / "version_0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "version_0" / "checkpoints" / "best.ckpt").touch()
    assert locate_checkpoint(tmp_path / "version_0").name == "best.ckpt"
    with pytest.raises(CheckpointError, match="name one of its runs, such as .*version_0"):
        locate_checkpoint(tmp_path)


def test_a_task_without_a_network_says_how_to_get_one():
    message = r"fit it with a RatingsDataModule .*or load a checkpoint"
    with pytest.raises(CheckpointError, match=message):
        trainer().test(EmbeddingDotTask(dim=4), data())
    with pytest.raises(CheckpointError, match=message):
        trainer(limit_val_batches=0).fit(EmbeddingDotTask(dim=4), [1], val_dataloaders=[1])


def test_constant_ratings_are_refused():
    frame = pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "rating": 4.0})
    with pytest.raises(DataError, match="all 3 of the training part are 4; if that is intended"):
        trainer().fit(
            EmbeddingDotTask(dim=4),
            RatingsDataModule.from_frame(frame, split=SplitOptions(test_fraction=0, val_fraction=0)),
        )


def test_a_data_module_forgets_the_vocabulary_of_another_task():
    frame = pd.DataFrame({"user": range(40), "item": [i % 7 for i in range(40)], "rating": [i % 5 for i in range(40)]})
    first, second = (frame.assign(user=frame["user"] + shift) for shift in (0, 1000))
    task, fit = EmbeddingDotTask(dim=2), trainer(1)
    fit.fit(task, RatingsDataModule.from_frame(first, split=SplitOptions(val_fraction=0.1)))
    other = RatingsDataModule.from_frame(second, split=SplitOptions(val_fraction=0.1))
    fit.test(task, other, verbose=False)
    fresh = EmbeddingDotTask(dim=2)
    trainer(1).fit(fresh, other)
    assert fresh.vocabulary.users.values.min() >= 1000


def test_a_majority_of_unknown_ids_is_warned_of(checkpoint, caplog):
    for users, level in ((["a", "b", "u003"], "WARNING"), (["a", "u007", "u003"], "INFO")):
        frame = pd.DataFrame({"user": users, "item": [3, 3, 5]})
        trainer().predict(load_task(checkpoint), RatingsDataModule.from_frame(frame))
        assert {r.levelname for r in caplog.records if "not seen in training" in r.message} == {level}
        caplog.clear()


def test_the_training_loss_is_a_mean_over_the_rows_of_the_epoch():
    full, part = trainer(1), trainer(1, limit_train_batches=2)
    for fit in (full, part):
        fit.fit(EmbeddingDotTask(dim=4, learning_rate=0.0), data())
    losses = [float(fit.callback_metrics["train/loss"]) for fit in (full, part)]
    assert losses[1] == pytest.approx(losses[0], rel=0.3)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_other_precisions_train(precision):
    fit = trainer(1, precision=precision)
    fit.fit(EmbeddingDotTask(dim=4), data())
    assert math.isfinite(float(fit.callback_metrics["val/rmse"]))


@pytest.mark.parametrize("path", ["os.system", "builtins.print", "torch.nn.Linear", "nowhere.Adam", ""])
@pytest.mark.parametrize("name", ["optimizer", "lr_scheduler"])
def test_only_imported_optimisers_and_schedules_are_instantiated(path, name):
    task = EmbeddingDotTask(dim=4, **{name: {"class_path": path, "init_args": {}}})
    with pytest.raises(ConfigError, match=f"not an imported {name}; import its package first"):
        trainer(1).fit(task, data())


def test_schedules_that_count_steps_are_stepped_every_batch():
    config = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.01, "total_steps": 20}}
    fit = trainer(2)
    fit.fit(EmbeddingDotTask(dim=4, lr_scheduler=config), data(synthetic=SMALL, batch_size=128))
    assert fit.lr_scheduler_configs[0].scheduler.last_epoch == fit.global_step


def test_the_penalty_shrinks_the_vectors():
    sizes = []
    for l2 in (0.0, 0.5):
        task = EmbeddingDotTask(dim=4, l2=l2, weight_decay=0.0, learning_rate=0.02)
        trainer(5).fit(task, data())
        sizes.append(float(task.network.item_factors.weight.detach().norm()))
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"engine": "autograd"}, 0.01),
        ({"engine": "fused"}, 0.1 * math.sqrt(10)),  # with SVD++ terms, for one epoch instead of ten
        ({"engine": "fused", "learning_rate": 0.03}, 0.03),
        ({"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02}}}, 0.02),
    ],
)
def test_the_settings_used_have_no_unresolved_default(tmp_path, options, expected):
    if options.get("engine") == "fused":
        pytest.importorskip("numba", reason="the fused engine needs the extra `fast`")
    task, fit = EmbeddingDotTask(dim=4, objective="mse", **options), trainer(1)
    fit.fit(task, data(batch_size=None))
    used = task.settings_used()
    assert used["learning_rate"] == pytest.approx(expected)
    assert None not in used.values()
    fit.save_checkpoint(tmp_path / "task.ckpt")
    assert load_task(tmp_path / "task.ckpt").settings_used() == used


def test_a_second_fit_of_as_many_steps_trains_the_served_network_of_an_ensemble():
    task = EmbeddingDotTask(dim=4, objective="mse", members=2, engine="autograd")
    served = []
    for _ in range(2):
        trainer(1, limit_val_batches=0).fit(task, data())
        served.append(parameters(task))
    assert not torch.equal(*served)
