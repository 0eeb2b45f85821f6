"""Each private attribute of Lightning that the package uses is there, and does what the package relies on."""

from __future__ import annotations

import inspect
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from coordconv_apps.training import lightning_internals as internals


def make_trainer(**arguments: object) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **arguments)  # type: ignore[arg-type]


def test_the_root_folder_can_be_replaced(tmp_path: Path) -> None:
    trainer = make_trainer(default_root_dir=tmp_path / "a")
    internals.set_default_root_dir(trainer, str(tmp_path / "b"))
    assert trainer.default_root_dir == str(tmp_path / "b")


def test_the_epoch_loop_can_be_marked_alone() -> None:
    trainer = make_trainer()
    trainer.fit_loop.restarting = True
    inner = trainer.fit_loop.epoch_loop.restarting, trainer.fit_loop.epoch_loop.val_loop.restarting
    internals.mark_as_not_restarting(trainer)
    assert not trainer.fit_loop.restarting
    assert (trainer.fit_loop.epoch_loop.restarting, trainer.fit_loop.epoch_loop.val_loop.restarting) == inner


def test_the_loader_state_is_loaded_once() -> None:
    source = inspect.getsource(type(make_trainer().fit_loop))
    assert source.count("_load_combined_loader_states()") == 1, "Lightning calls it in setup_data alone"
    internals.load_loader_state(make_trainer())  # nothing to load


def test_epochs_are_logged_at_their_last_step() -> None:
    trainer = make_trainer()
    assert internals.epoch_log_step(trainer) == 0
    trainer.fit_loop.epoch_loop._batches_that_stepped = 5
    assert internals.epoch_log_step(trainer) == 4
    source = inspect.getsource(type(trainer.fit_loop).on_advance_end)
    before, after = source.split("update_train_epoch_metrics()")
    assert "_batches_that_stepped -= 1" in before, "metrics of an epoch have the step of its last batch"
    assert "_batches_that_stepped += 1" in after


def test_every_nth_step_is_logged() -> None:
    trainer = make_trainer(log_every_n_steps=3)
    trainer.training = True
    logged = []
    for step in range(6):
        trainer.fit_loop.epoch_loop._batches_that_stepped = step
        logged.append(internals.logs_this_step(trainer))
    assert logged == [False, False, True] * 2


def test_a_checkpoint_is_rewound_to_the_end_of_its_batch() -> None:
    loops = {"fit_loop": make_trainer().fit_loop.state_dict()}
    internals.rewind_to_batch_end(loops)
    assert internals.batches_that_stepped(loops) == -1
    progress = loops["fit_loop"]["epoch_loop.batch_progress"]
    assert [progress[count]["completed"] for count in ("total", "current")] == [-1, -1]
    assert [progress[count]["processed"] for count in ("total", "current")] == [0, 0]


def test_launched_processes_are_those_of_the_launcher() -> None:
    assert internals.launched_processes(make_trainer()) == []
    trainer = make_trainer(strategy="ddp", devices=2)
    launcher = trainer.strategy.launcher
    assert isinstance(launcher, _SubprocessScriptLauncher)
    assert internals.launched_processes(trainer) is launcher.procs


def test_the_averaging_callback_has_what_the_package_overrides() -> None:
    callback = WeightAveraging()
    assert callback._average_model is None
    assert callback._latest_update_step == 0
    assert list(inspect.signature(callback._swap_models).parameters) == ["pl_module"]
