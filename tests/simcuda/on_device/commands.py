"""Every command of every application on CUDA devices, with tiny networks and data.

As a program, one of the processes of a training: ``python -m tests.simcuda.on_device.commands FOLDER CASE PRECISION``,
with the environment variables that torchrun sets, and in ``PORTS`` one port for each command.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import classification.__main__
import coordconv_apps.coordinates.__main__
import detection.__main__
import generative.__main__
import rl.__main__
from coordconv_apps.runs.summary import read_summary
from tests.helpers.runs import last_command, load
from tests.simcuda.simulated import races

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
EPOCH = ["--model.coords=xy", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1"]
EPOCH += ["--trainer.check_val_every_n_epoch=1"]
DETECTION = ["--data.source=uci", "--data.num_train=8", "--data.num_val=4", "--data.num_test=4", "--data.batch_size=2"]
CLASSIFICATION = ["--data.source=digits", "--data.image_size=16", "--data.crop=padded", "--data.batch_size=32"]
CLASSIFICATION += ["--model.network=mobilenet_v2", "--model.network_args={width_mult: 0.1}", "--data.mixup=0.2"]
CLASSIFICATION += ["--model.average=0.9", "--trainer.limit_train_batches=6"]
GENERATIVE = ["--model.image_size=16", "--data.image_size=16", "--model.latent_size=4", "--model.width=2"]
GENERATIVE += ["--data.radius=2", "--data.num_train=12", "--data.num_val=20", "--data.num_test=20"]
GENERATIVE += ["--data.batch_size=4"]
GAN = ["--model.discriminator_width=2", "--model.average=0.9", "--model.norm=false", "--model.gradient_penalty=2"]
GAN += ["--model.feature_matching=1"]
COORDINATES = [f"--{part}.{size}" for part in ("model", "data") for size in ("canvas_size=12", "square_size=3")]
COORDINATES += ["--model.stop_when_perfect=false", "--trainer.limit_train_batches=4"]
RL = ["--model.coords=xy", "--model.total_timesteps=64", "--data.num_envs=4", "--data.steps_per_epoch=32"]
RL += ["--data.num_eval_envs=2", "--data.eval_episodes=2", "--data.test_episodes=2", "--data.eval_max_steps=12"]
PPO = ["--model=PPO", "--model.n_steps=8", "--model.batch_size=8", "--model.n_epochs=2", "--model.target_kl=0.5"]
DQN = ["--model=DQN", "--model.buffer_size=64", "--model.learning_starts=8", "--model.batch_size=4"]


@dataclass(frozen=True)
class Case:
    """A task, and the arguments that make it small.

    Attributes:
        main: The application's command line.
        fit: Arguments of ``fit``.
        longer: The argument with which a resumed training is twice as long.
        predict: Arguments of ``predict``, in which ``{images}`` is a folder of images; None: it has no predictions.
        pair: Precision of the training on two devices; those on one device have the others. None: it trains on one
            device in 32-true only.
    """

    main: Callable[[Sequence[str]], None]
    fit: list[str]
    longer: str
    predict: list[str] | None = None
    pair: str | None = None

    @property
    def alone(self) -> list[str]:
        """Precisions of the trainings on one device."""
        return ["32-true"] if self.pair is None else [each for each in PRECISIONS if each != self.pair]


ON_IMAGES = ["--data.predict_images={images}"]
SAMPLES, EPISODES = ["--data.num_predict=4"], ["--data.predict_episodes=2"]
TWICE, TWICE_THE_STEPS = "--trainer.max_epochs=2", "--model.total_timesteps=128"
CASES = {
    "faster-rcnn": Case(
        detection.__main__.main,
        [*DETECTION, *EPOCH, "--model.score_threshold=0"],
        TWICE,
        predict=ON_IMAGES,
        pair="bf16-mixed",
    ),
    "region-proposals": Case(
        detection.__main__.main, ["--model=RegionProposals", *DETECTION, *EPOCH], TWICE, pair="16-mixed"
    ),
    "classification": Case(
        classification.__main__.main, [*CLASSIFICATION, *EPOCH], TWICE, predict=ON_IMAGES, pair="16-mixed"
    ),
    "gan": Case(generative.__main__.main, [*GENERATIVE, *GAN, *EPOCH], TWICE, predict=SAMPLES, pair="16-mixed"),
    "vae": Case(
        generative.__main__.main,
        ["--model=VAE", "--model.encoder_width=2", *GENERATIVE, *EPOCH],
        TWICE,
        predict=SAMPLES,
        pair="bf16-mixed",
    ),
    **{
        name: Case(
            coordconv_apps.coordinates.__main__.main, [f"--model={model}", *COORDINATES, *EPOCH], TWICE, pair=precision
        )
        for name, model, precision in (
            ("coordinate-classification", "CoordinateClassification", "32-true"),
            ("coordinate-regression", "CoordinateRegression", "bf16-mixed"),
            ("coordinate-rendering", "CoordinateRendering", "16-mixed"),
        )
    },
    "a2c": Case(
        rl.__main__.main,
        ["--model=A2C", "--model.n_steps=4", *RL],
        TWICE_THE_STEPS,
        predict=EPISODES,
        pair="bf16-mixed",
    ),
    "ppo": Case(rl.__main__.main, [*PPO, *RL], TWICE_THE_STEPS, predict=EPISODES, pair="32-true"),
    "dqn": Case(rl.__main__.main, [*DQN, *RL], TWICE_THE_STEPS, predict=EPISODES),
}
FIRST_SCALE = 2.0**16
"""Of torch's gradient scaler."""
COMMANDS = ("fit", "resume", "validate", "test", "predict", "export")


def save_images(folder: Path) -> Path:
    """Save three gray images to predict on."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (40 + number, 50), np.uint8)).save(folder / f"{number}.png")
    return folder


def arguments_of(case: Case, command: str, precision: str, devices: int, images: Path) -> list[str] | None:
    """Return the arguments of a command after the name and folder of the run; None if the case lacks it."""
    where = ["--trainer.accelerator=gpu", f"--trainer.devices={devices}", f"--trainer.precision={precision}"]
    where += ["--trainer.strategy=ddp"] if devices > 1 else []
    if command == "fit":
        return [*case.fit, *where]
    if command == "resume":
        return ["--ckpt_path=last", case.longer]
    if command == "predict":
        if case.predict is None:
            return None
        return ["--ckpt_path=best", *where, *(argument.format(images=images) for argument in case.predict)]
    if command == "export":
        return ["--ckpt_path=best"] if devices == 1 else None
    return ["--ckpt_path=best", *where]


def run_commands(
    name: str,
    runs: Path,
    precision: str,
    devices: int = 1,
    launches: Iterator[dict[str, str]] | None = None,
) -> None:
    """Run all commands of a case one after the other, and check what each leaves.

    Args:
        name: Key of `CASES`; also the name of the run.
        runs: Folder of the runs.
        precision: Precision of the training.
        devices: Number of devices.
        launches: With several processes, the environment variables that a launcher sets for each command.
    """
    case = CASES[name]
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    images = save_images(runs / f"images_{rank}")
    weights: dict[str, torch.Tensor] = {}
    for command in COMMANDS:
        arguments = arguments_of(case, command, precision, devices, images)
        if arguments is None:
            continue
        if launches is not None:
            os.environ |= next(launches)
        before = races()
        kind = "fit" if command == "resume" else command
        print(f"--- {name} {precision} {command}", flush=True)
        case.main([kind, f"--runs_dir={runs}", f"--name={name}", *arguments])
        assert races() == before, f"{name} {command}: pinned memory was overwritten while it was copied"
        if rank:
            continue
        run = last_command(next(runs.glob(f"*/{name}")))
        check_summary(run, command, precision, devices)
        if kind == "fit":
            weights = check_progress(load(run), weights)


def check_progress(checkpoint: dict[str, Any], before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Assert that a training changed the weights; return them."""
    weights: dict[str, torch.Tensor] = checkpoint["state_dict"]
    changed = [name for name in weights if name not in before or not torch.equal(weights[name], before[name])]
    # In 16-mixed precision, the gradient scaler skips steps until the gradients do not overflow.
    scale = checkpoint.get("MixedPrecision", {}).get("scale", FIRST_SCALE)
    assert changed or scale < FIRST_SCALE, "the weights are those before the training"
    return weights


def check_summary(folder: Path, command: str, precision: str, devices: int) -> None:
    """Assert that a command finished on the devices, with finite metrics."""
    summary = read_summary(folder)
    assert summary["status"] == "finished", summary["error"]
    if command != "export":
        assert summary["device"] == f"cuda: Simulated GPU x{devices}"
        assert summary["precision"] == precision
    metrics = summary["metrics"]
    assert metrics or command == "predict"
    bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    assert not bad, f"{folder}: {bad}"


def main(folder: str, name: str, precision: str) -> None:
    """Run all commands of a case as one of several processes."""
    own = {variable: os.environ[variable] for variable in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    # Lightning deletes some at the end of a command.
    launches = ({**own, "MASTER_PORT": port} for port in os.environ["PORTS"].split(","))
    run_commands(name, Path(folder), precision, int(own["WORLD_SIZE"]), launches)


if __name__ == "__main__":
    main(*sys.argv[1:])
