"""Base class of all tasks: training means, exact resuming, and the hooks of ``export``.

A task reads top to bottom in one order: configure, one shared step, train/validate/test/predict, optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import Metric

from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.checkpoint_io import saved_class_path
from coordconv_apps.training.divergence import CHECK_EVERY, Diverged, Loss, Moment, find_divergence
from coordconv_apps.training.lightning_internals import logs_this_step
from coordconv_apps.training.resumed_settings import OptimizerSettings, apply_changed_settings, optimizer_settings
from coordconv_apps.training.trainer_access import batch_share
from coordconv_apps.utils.argument_checks import Allowed, check_ranges
from coordconv_apps.utils.config_files import class_path
from coordconv_apps.utils.distributed import gather_ranks
from coordconv_apps.utils.errors import UserError, one_line
from coordconv_apps.utils.random_state import RandomState, random_state, restore_random_state
from coordconv_apps.utils.seeds import mix_seeds
from coordconv_apps.utils.torch_files import check_torch_file
from coordconv_apps.utils.warning_filters import filter_warnings

AnyTask = TypeVar("AnyTask", bound="Task")

CHECKPOINT_KEY = "coordconv_apps"


class ExportInterface(NamedTuple):
    """What users of an exported network need to know.

    Attributes:
        inputs: Meaning and range of each input by name, in the order of the network's arguments.
        outputs: Meaning and range of each output by name, in order.
        class_names: Name of each class by label; empty if there are no classes or their names are unknown.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    class_names: dict[int, str] = {}  # noqa: RUF012  # never changed


class Task(LightningModule):
    """A network with its loss, metrics and optimizer.

    Args:
        coords: Coordinates that the network gets: ``none`` is the plain-convolution baseline, ``xy`` adds the
            position, ``xyr`` the position and the distance from the centre.

    Attributes:
        monitor: Metric that selects ``checkpoints/best.ckpt``, such as ``"val/iou"``.
        monitor_mode: Whether the largest (``"max"``) or the smallest (``"min"``) value is best; the latest of equal
            ones wins.
        headline: Metric that comparisons plot, and in which `monitor_mode` values are best; None for `monitor`.
        epoch_line: Metrics in the line that is printed after an epoch, in this order; None for all of them.
        changeable_args: Names of constructor arguments that may differ from the checkpoint's; other differences are
            errors.
        initial_weight_args: Names of constructor arguments that only select the weights to start from, and may be
            None. They are set to None when a checkpoint is loaded.
        import_args: Names of constructor arguments whose values may name code to import, as ``module:name``. From a
            checkpoint, which may come from a stranger, such a value is refused unless the user gives it, too.
        args_from_data: Names of constructor arguments whose default, None, the command line replaces by the data's
            attribute of the same name.
        ranges: Allowed values of constructor arguments, by name; None is allowed for all of them.
        replaced_trainer_args: For a task that steps its optimizers itself: the trainer's arguments that do not work
            then, with the task's own argument, such as ``{"gradient_clip_val": "model.max_grad_norm"}``.
        find_unused_parameters: Whether DDP looks for parameters that a backward pass does not use; None: only if the
            task steps its optimizers itself, since each of them then uses a part of the parameters.
        divergence_args: Names of constructor arguments that, besides the learning rate ``lr``, make a training diverge
            if they are too large. Further learning rates (``..._lr``), and others above 1, are named when it does.
        precisions: Allowed values of ``trainer.precision``; None allows all of Lightning's.
        run_facts: Facts to report beside the metrics in ``summary.json`` and at the end of a command, by name.

    Raises:
        ValueError: An argument is out of its range.

    All arguments of a subclass are in ``self.hparams`` once it has called ``super().__init__(coords)``; they must be
    plain values, except those in ``initial_weight_args``. A subclass that has one of this class's hooks (``on_...``)
    calls ``super()`` in it.
    """

    monitor: ClassVar[str] = "val/loss"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"
    headline: str | None = None
    epoch_line: ClassVar[tuple[str, ...] | None] = None
    changeable_args: ClassVar[frozenset[str]] = frozenset({"lr", "weight_decay"})
    initial_weight_args: ClassVar[frozenset[str]] = frozenset()
    args_from_data: ClassVar[frozenset[str]] = frozenset()
    ranges: ClassVar[dict[str, Allowed]] = {}
    import_args: ClassVar[frozenset[str]] = frozenset()
    replaced_trainer_args: ClassVar[Mapping[str, str]] = {}
    find_unused_parameters: ClassVar[bool | None] = None
    divergence_args: ClassVar[tuple[str, ...]] = ("weight_decay",)
    precisions: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, coords: Coords = "none") -> None:
        super().__init__()
        # Without initial weights: a checkpoint opens without their files.
        self.save_hyperparameters(ignore=list(self.initial_weight_args))
        check_ranges(self.hparams, self.ranges)
        self.coords: Coords = coords
        self.run_facts: dict[str, float | str] = {}
        self._train_sums: dict[str, Tensor] = {}
        self._recent_losses: list[Loss] = []  # of the steps since the last check
        self._unchecked_steps = 0
        self._fresh_settings: list[OptimizerSettings] = []
        self._restored: dict[str, Any] | None = None
        self._before_validation: RandomState | None = None
        self._epoch_steps: int | None = None  # training steps in an epoch; None if it has no end

    @classmethod
    def load_from_checkpoint(
        cls: type[AnyTask],
        checkpoint_path: Any,  # noqa: ANN401  # Lightning's
        map_location: Any = None,  # noqa: ANN401  # torch's
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **arguments: Any,  # noqa: ANN401  # of the task
    ) -> AnyTask:
        """Load a task as Lightning does, but run no code from the checkpoint, which may come from a stranger.

        Args:
            checkpoint_path: The file.
            map_location: Device for the weights, as in `torch.load`.
            hparams_file: Constructor arguments, for checkpoints without them.
            strict: Whether all weights must be there.
            weights_only: Whether to open the checkpoint as plain data, as in `torch.load`.
            **arguments: Constructor arguments in place of the checkpoint's.

        Raises:
            UserError: An argument of `import_args` in the checkpoint names code to import, and is not in ``arguments``;
                or the checkpoint is one of another class, and does not fit this one; or it would take more memory or
                time than its size allows.
        """
        if weights_only and "://" not in str(checkpoint_path):  # Lightning downloads others
            check_torch_file(checkpoint_path, str(checkpoint_path))
        if weights_only and (names := cls.import_args - arguments.keys()):
            _refuse_code(checkpoint_path, names)
        try:
            with filter_warnings():
                # _instantiator: the command line's would create what a {class_path: ...} in the arguments names.
                task: AnyTask = super().load_from_checkpoint(
                    checkpoint_path, map_location, hparams_file, strict, weights_only, _instantiator=None, **arguments
                )
        except (TypeError, ValueError, RuntimeError) as error:
            written_by = saved_class_path(checkpoint_path)
            if written_by in (None, class_path(cls)):
                raise
            raise UserError(
                f"{checkpoint_path}: a checkpoint of {written_by}, which {cls.__name__} cannot load: {one_line(error)}"
            ) from error
        return task

    @property
    def uses_baseline_network(self) -> bool:
        """Whether ``coords=none`` trains a network of its own: the argument ``baseline`` in place of ``network``."""
        return self.coords == "none" and self.hparams.get("baseline") is not None

    def arm_argument(self, name: str) -> str:
        """Return the name of the argument that this arm uses: for a baseline ``baseline_<name>``, if that is set."""
        own = f"baseline_{name}"
        return own if self.uses_baseline_network and self.hparams.get(own) is not None else name

    @property
    def arm_network(self) -> Any:  # noqa: ANN401  # one of the application's names
        """Name of the network that this arm trains."""
        return self.hparams["baseline" if self.uses_baseline_network else "network"]

    def parameter_count(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Put the networks into evaluation mode without gradients, and return them to their modes on exit."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True

    # ---------------------------------------------------------------- logging

    def log_train(self, values: Mapping[str, Tensor], batch_size: int) -> None:
        """Log scalars such as ``{"train/loss": loss}``: each as ``name_step``, and its mean over the epoch as ``name``.

        Both are means over all processes, weighted by their batch sizes. All processes call this together. Unlike the
        mean of ``self.log(..., on_epoch=True)``, that over the epoch survives an interruption within it.

        Raises:
            Diverged: A scalar of the latest steps is NaN or infinite.
        """
        now = self._moment()
        several = self._trainer is not None and self._trainer.world_size > 1
        logged = self.mean_over_processes(values, batch_size) if several and logs_this_step(self.trainer) else values
        for name, value in values.items():
            self.log(f"{name}_step", logged[name], on_step=True, on_epoch=False, prog_bar=True, batch_size=batch_size)
            self.add_to_mean(name, value.detach().to(self._sums_dtype) * batch_size, batch_size)
            self._recent_losses.append(Loss(now, name, value.detach()))
        self._unchecked_steps += 1
        if self._unchecked_steps >= CHECK_EVERY:
            self._raise_if_diverged()

    def add_to_mean(self, name: str, total: Tensor | float, count: Tensor | float) -> None:
        """Add ``count`` values, given their sum, to the mean over the epoch and all processes, without logging them."""
        if name not in self._train_sums:
            self._train_sums[name] = torch.zeros(2, dtype=self._sums_dtype, device=self.device)
        self._train_sums[name][0] += total
        self._train_sums[name][1] += count

    @property
    def _sums_dtype(self) -> torch.dtype:
        return torch.float32 if self.device.type == "mps" else torch.float64

    def mean_over_processes(self, values: Mapping[str, Tensor], weight: float) -> Mapping[str, Tensor]:
        """Return the mean of each scalar over all processes, with the ``weight`` of each. They call this together."""
        if self.trainer.world_size == 1:
            return values
        own = [value.detach().float() for value in values.values()]
        sums = torch.stack([*own, torch.ones_like(own[0])]) * weight
        *totals, total_weight = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return {name: total / total_weight for name, total in zip(values, totals, strict=True)}

    def _raise_if_diverged(self, weights: Iterable[Tensor] = ()) -> None:
        """Raise `Diverged` if losses since the last check, or weights, are NaN or infinite.

        All processes call this together. Only where a scaler skips bad steps do bad losses alone need the weights.
        """
        losses, self._recent_losses, self._unchecked_steps = self._recent_losses, [], 0
        scaled = self._trainer is not None and self._trainer.precision == "16-mixed"
        own = find_divergence(losses, self.parameters() if scaled else weights, self._moment(), scaled=scaled)
        found = next((each for each in gather_ranks(own) if each is not None), None)
        if found is not None:
            raise self.divergence_error(found)

    def learning_rates(self) -> dict[str, Any]:
        """Return the learning rates among the constructor's arguments, by name."""
        further = [name for name in self.divergence_args if name.endswith("_lr")]
        return {name: rate for name in (self.arm_argument("lr"), *further) if (rate := self.hparams.get(name))}

    def divergence_error(self, found: str) -> Diverged:
        """Return the error that ends a training in which something is NaN or infinite; ``found`` says what."""
        large = {name: value for name in self.divergence_args if (value := self.hparams.get(name) or 0.0) > 1}
        return Diverged(found, self.learning_rates() | large)

    def _moment(self) -> Moment:
        optimizers = [] if self._trainer is None else self._trainer.optimizers
        return Moment(self.global_step, tuple(optimizer.param_groups[0]["lr"] for optimizer in optimizers))

    def log_epoch(self, name: str, value: float) -> None:
        """Log the mean of a value of a training epoch over all processes. All processes call this together.

        Values of an epoch that the training stops within are reported but not logged: a resumed run completes them.
        """
        if self.trainer.is_last_batch:
            self.log(name, value, sync_dist=True)
        else:
            self.trainer.callback_metrics[name] = torch.tensor(value)

    def on_train_epoch_end(self) -> None:
        """Log the means of `log_train` and `add_to_mean` over the epoch and all processes, if they have values."""
        self._raise_if_diverged()
        for name, sums in sorted(self._train_sums.items()):
            total, weight = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
            if weight:
                self.log_epoch(name, total / weight)
        self._train_sums.clear()
        self.count_bad_images()

    def on_predict_epoch_end(self) -> None:
        """Count unreadable images."""
        self.count_bad_images()

    def count_bad_images(self) -> None:
        """Count the image files that any process had to do without, each once, in `run_facts`."""
        data = getattr(self.trainer, "datamodule", None)
        skipped = data.skipped_images() if isinstance(data, DataModule) else None
        if skipped is not None:
            self.run_facts["bad_images"] = len(set().union(*gather_ranks(skipped)))

    # -------------------------------------------------------------- processes

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # as in Lightning
        """Compute the gradients, so that their mean over the processes is that over the samples of all processes.

        ``loss`` is a mean over the samples of this process, which has fewer of them in some last steps of an epoch.
        """
        share = 1.0 if self._trainer is None else batch_share(self._trainer)
        super().backward(loss if share == 1 else loss * share, *args, **kwargs)

    # ----------------------------------------------------------------- resume

    def on_fit_start(self) -> None:
        """Reset all metrics, and store the optimizers' settings, before a checkpoint overwrites them."""
        self._reset_metrics()
        self._fresh_settings = optimizer_settings(self.trainer)

    def on_train_start(self) -> None:
        """Restore the training means and random numbers from a checkpoint, and apply changed settings.

        Every process draws random numbers of its own: the latents or the dropout of its samples are independent.
        """
        if self.global_rank:
            torch.manual_seed(mix_seeds(torch.initial_seed(), self.global_rank))
        # Here, since Lightning's GradientAccumulationScheduler changes accumulate_grad_batches within a training.
        batches, accumulated = self.trainer.num_training_batches, self.trainer.accumulate_grad_batches
        steps = self._epoch_steps = None if batches == math.inf else math.ceil(batches / accumulated)
        restored, self._restored = self._restored, None
        if restored is None:
            return
        before = restored.get("epoch_steps")  # None in older checkpoints
        # Where max_steps ends the training, schedules do not depend on epochs.
        by_epochs = self.trainer.estimated_stepping_batches != self.trainer.max_steps
        pace = steps / before if steps and before and by_epochs else 1.0
        apply_changed_settings(self.trainer, restored["optimizers"], self._fresh_settings, pace)
        # This process continues its own sums and those of processes that are no more; a process that is new has zeros
        # of the same names, because all processes reduce the sums together.
        ranks = restored["ranks"]
        continued = ranks[self.global_rank :: self.trainer.world_size]
        for name, sums in ranks[0]["train_sums"].items():
            parts = [torch.zeros_like(sums), *(rank["train_sums"][name] for rank in continued)]
            self._train_sums[name] = torch.stack(parts).sum(0).to(self.device)
        if continued:
            restore_random_state(continued[0]["random"], self.device)

    def on_validation_start(self) -> None:
        """Store the random state: an interrupted validation is repeated from its beginning."""
        if self.trainer.state.fn != TrainerFn.FITTING:  # a training may have metrics of its training steps
            self._reset_metrics()
        self._raise_if_diverged()
        self._before_validation = random_state(self.device)

    def on_validation_end(self) -> None:
        """Restore the random state: training does not depend on the number of validations."""
        if self._before_validation is not None:
            restore_random_state(self._before_validation, self.device)
            self._before_validation = None

    def on_test_start(self) -> None:
        """Reset all metrics."""
        self._reset_metrics()

    def _reset_metrics(self) -> None:
        """Reset all metrics: an interrupted evaluation leaves samples, and an evaluation inference tensors.

        With ``trainer.precision=bf16-true``, Lightning converts their sums, too, which then stop growing after a few
        hundred samples.
        """
        for module in self.modules():
            if isinstance(module, Metric):
                if self.dtype in (torch.bfloat16, torch.float16):
                    module.to(torch.float32)
                module.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of this class on every process to a checkpoint. All processes call this together.

        Raises:
            Diverged: Losses or weights are NaN or infinite. Nothing is written then.
        """
        self._raise_if_diverged(self.parameters())
        own = {
            "random": self._before_validation or random_state(self.device),
            "train_sums": {name: sums.cpu() for name, sums in self._train_sums.items()},
        }
        checkpoint[CHECKPOINT_KEY] = {
            "ranks": gather_ranks(own),
            "optimizers": self._fresh_settings,
            "epoch_steps": self._epoch_steps,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of this class until training starts."""
        self._restored = checkpoint.get(CHECKPOINT_KEY)

    # ----------------------------------------------------------------- export

    def export_module(self) -> nn.Module:
        """Return the network to export: plain tensors in, plain tensors out, batch dimension first."""
        raise ValueError(f"export: {type(self).__name__} does not define export_module()")

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return inputs of `export_module`, in the sizes that the exported files take."""
        raise ValueError(f"export: {type(self).__name__} does not define example_inputs()")

    def export_interface(self) -> ExportInterface:
        """Return names and descriptions of the inputs and outputs of `export_module`."""
        raise ValueError(f"export: {type(self).__name__} does not define export_interface()")

    def export_more(self, folder: Path) -> dict[Path, float]:
        """Write further formats of the application; return each file's largest difference from the outputs."""
        return {}


def _refuse_code(checkpoint_path: Any, names: Iterable[str]) -> None:  # noqa: ANN401  # Lightning's
    """Raise `UserError` if a checkpoint has ``module:name``, which names code, for one of the arguments."""
    checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    if hasattr(checkpoint_path, "seek"):
        checkpoint_path.seek(0)
    for key in ("hparams", "module_arguments", "hyper_parameters"):  # Lightning also takes those of its early versions
        saved = checkpoint.get(key) or {}
        for name in sorted(names):
            if ":" in str(saved.get(name, "")):
                raise UserError(
                    f"{name}={saved[name]!r}: names code to import, which a checkpoint may not;"
                    f" pass {name}={saved[name]!r} yourself if you trust it"
                )
