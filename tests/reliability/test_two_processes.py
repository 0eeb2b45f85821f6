"""Two processes against one with the same global batch: the same losses, weights and metrics.

Steps must not draw random numbers for this, because each process draws its own (`docs/reliability.md`). Double
precision shows that only rounding differs: Adam amplifies that of single precision, as it divides by small gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor

from coordconv_apps.coordinates.data import NotSoClevrBatch
from coordconv_apps.coordinates.not_so_clevr import all_centers
from coordconv_apps.coordinates.tasks import CoordinateClassification, CoordinateRegression, CoordinateRendering
from coordconv_apps.data.loaders import TrainBatches
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.task import Task
from generative.datasets import ImageBatch
from generative.models.encoder import Posterior
from generative.tasks import VAE
from tests.helpers import forked
from tests.helpers.processes import TWO_PROCESSES
from tests.helpers.runs import load, rows
from tests.reliability.applications import APPLICATIONS, CPU, TOY, flags

STEPS = 50


def draw_nothing() -> None:
    """Replace what training steps draw at random by what is the same for every sample."""
    import torchvision.models.detection._utils as torchvision_sampler

    import detection.losses
    from generative.models.encoder import Posterior
    from generative.tasks import GAN

    def rising(shape: torch.Size, device: torch.device) -> Tensor:
        return torch.linspace(0, 1, shape[-1], device=device).expand(shape).clone()

    def fixed(task: GAN, number: int, **options: Any) -> Tensor:  # noqa: ANN401  # torch's
        options.pop("generator", None)
        return torch.linspace(-1, 1, task.latent_size, **options).expand(number, -1)

    replacements: list[tuple[object, str, object]] = [
        (detection.losses, "torch", Torch(rand=rising)),
        (torchvision_sampler, "torch", Torch(randperm=torch.arange)),
        (Posterior, "sample", lambda posterior: posterior.mean + 0.5),
        (GAN, "_draw_noise", fixed),
    ]
    for owner, name, replacement in replacements:
        setattr(owner, name, replacement)


class Torch:
    """The module torch with some other functions."""

    def __init__(self, **functions: Any) -> None:  # noqa: ANN401  # torch's
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # torch's
        return getattr(torch, name)


class Case(NamedTuple):
    """An application, settings of this test, and how far losses may be apart, relative to those above 1."""

    application: str
    settings: list[str]
    tolerance: float = 1e-6


DOUBLE = "trainer.precision=64-true"
SLOWLY = "model.lr=0.00001"  # where there is no double precision
CLASSES = f"""
    model.network=squeezenet1_1 data.image_size=32 data.mixup=0 model.average=null model.optimizer=sgd model.lr=0.01
    trainer.limit_train_batches=1.0 {DOUBLE}
"""
# In coordinates, proposals and generative, one process has more samples than the other in the last step of an epoch.
CASES = {
    "coordinates": Case("coordinates", flags(f"model.loss=full data.split=uniform data.test_fraction=0.3 {DOUBLE}")),
    "proposals": Case("proposals", flags(f"data.num_train=29 {SLOWLY}"), 1e-5),
    "detection": Case("detection", flags(SLOWLY), 1e-5),
    "classification": Case("classification", [*flags(CLASSES), "--model.network_args={dropout: 0}"]),
    "vae": Case("vae", flags(f"data.num_train=37 {SLOWLY}"), 1e-5),
    "gan": Case("gan", flags(f"data.num_train=37 model.norm=false {SLOWLY} model.discriminator_lr=0.00001"), 1e-5),
    "rl": Case("rl", flags(f"model.total_timesteps=832 {SLOWLY}"), 1e-5),
}


def fit(case: Case, runs: Path, processes: int) -> Path:
    """Train for `STEPS` steps, each with 8 samples in all."""
    application = TOY if case.application == "toy" else APPLICATIONS[case.application]
    steps = 2 * STEPS if case.application == "gan" else STEPS  # Lightning counts those of both networks
    length = flags(f"data.batch_size={8 // processes} trainer.max_epochs=100 trainer.max_steps={steps}")
    if case.application == "rl":  # it counts its steps and samples itself
        length = []
    runs.mkdir()
    command = ["fit", f"--runs_dir={runs}", *application.settings, *CPU, *case.settings, *length]
    forked.run(
        application.module,
        *command,
        *(TWO_PROCESSES if processes > 1 else []),
        log=runs / "log.txt",
        processes=processes,
        before=draw_nothing,
    )
    (run,) = runs.glob("*/*/version_0")
    assert read_summary(run)["world_size"] == processes
    return run


def losses(run: Path) -> dict[str, list[float]]:
    """Return the logged losses by name: of steps, and of epochs."""
    table = rows(run)
    names = [name for name in table[0] if name.startswith("train/")]
    return {name: [float(row[name]) for row in table if row[name]] for name in names}


def check(case: Case, folder: Path) -> None:
    """Assert that losses of each step and epoch, and the weights in the end, agree."""
    one, two = (fit(case, folder / f"of_{processes}", processes) for processes in (1, 2))
    alone, together = losses(one), losses(two)
    assert alone.keys() == together.keys()
    assert max(map(len, alone.values())) >= min(STEPS, 26)
    worst = 0.0
    for name, values in alone.items():
        assert len(values) == len(together[name])
        for value, other in zip(values, together[name], strict=True):
            worst = max(worst, abs(value - other) / max(abs(value), 1))
    weights, others = load(one)["state_dict"], load(two)["state_dict"]
    apart = max(
        (weight - others[name]).abs().max().item() for name, weight in weights.items() if weight.is_floating_point()
    )
    print(f"{case.application}: losses apart by at most {worst:.1e}, weights by {apart:.1e}")
    assert worst <= case.tolerance
    assert apart <= case.tolerance


GRADIENTS: dict[str, Callable[[], Task]] = {
    "classification": lambda: CoordinateClassification("xy", canvas_size=16, square_size=3),
    "rendering": lambda: CoordinateRendering("xy", canvas_size=16, square_size=3),
    "regression": lambda: CoordinateRegression("xy", canvas_size=16, square_size=3),
    "vae": lambda: VAE("xy", image_size=16, latent_size=4, width=2, encoder_width=2, kl_warmup=0.0),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_parts_average_to_those_of_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is a mean over samples, so the parts of two processes count by their numbers of samples, 4 and 3."""
    monkeypatch.setattr(Posterior, "sample", lambda posterior: posterior.mean + 0.5)
    torch.manual_seed(0)
    task = GRADIENTS[name]().double()
    monkeypatch.setattr(type(task), "log_train", lambda *unused: None)
    samples = torch.rand(7, 3, 16, 16).double() if name == "vae" else all_centers(16, 3)[:7, None]

    def gradients(part: slice) -> list[Tensor]:
        task.zero_grad()
        chosen = samples[part]
        batch = ImageBatch(chosen, torch.arange(len(chosen))) if name == "vae" else NotSoClevrBatch(chosen)
        cast("Any", task).training_step(batch, 0).backward()
        return [weight.grad.clone() for weight in task.parameters() if weight.grad is not None]

    whole, first, second = (gradients(part) for part in (slice(7), slice(4), slice(4, 7)))
    assert any(gradient.abs().max() > 1e-3 for gradient in whole)
    ranks = [TrainBatches(7, 4, 0, rank, 2) for rank in (0, 1)]
    shares = [batches.share(0) for batches in ranks]
    for expected, one, other in zip(whole, first, second, strict=True):
        torch.testing.assert_close((one * shares[0] + other * shares[1]) / 2, expected)


def test_two_processes_give_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    check(Case("toy", flags(f"data.samples=29 model.dropout=0 {DOUBLE}")), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_losses_of_one_with_the_same_global_batch(tmp_path: Path, name: str) -> None:
    check(CASES[name], tmp_path)


EVALUATED = {
    "detection": ([], []),
    "proposals": ([], []),
    "classification": (flags("trainer.limit_test_batches=1.0"), flags("data.eval_batch_size=7")),
    "vae": ([], []),
    "coordinates": ([], flags("data.eval_batch_size=5")),
    "rl": ([], flags("data.test_episodes=5 data.num_eval_envs=3")),
}
"""Settings of the training, and of the evaluation. No set has a number of samples that two processes can halve."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EVALUATED)
def test_two_processes_give_the_metrics_of_one_on_a_set_that_does_not_divide(tmp_path: Path, name: str) -> None:
    application = APPLICATIONS[name]
    log = tmp_path / "log.txt"
    where = [f"--runs_dir={tmp_path}", "--name=run"]
    forked.run(application.module, "fit", *where, *application.settings, *CPU, *EVALUATED[name][0], log=log)
    metrics = []
    for processes in (1, 2):
        command = ["test", *where, "--ckpt_path=last", *EVALUATED[name][1], *(TWO_PROCESSES if processes > 1 else [])]
        forked.run(application.module, *command, log=log, processes=processes)
        folder = max(tmp_path.rglob("test_*"), key=lambda path: path.name)
        assert read_summary(folder)["world_size"] == processes
        metrics.append(read_summary(folder)["metrics"])
    print(name, *metrics, sep="\n")
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-6, abs=1e-6, nan_ok=True)
