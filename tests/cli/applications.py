"""The applications, as the tests of their command lines need them."""

from __future__ import annotations

from typing import Any

from tests.cli.mutations import Application

SMALL = ("--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu")


def _detection() -> Application:
    from detection import FasterRCNN, RegionProposals
    from detection.__main__ import main
    from detection.data import DetectionData

    tasks: dict[str, Any] = {"mnist": FasterRCNN, "quickstart": FasterRCNN, "mnist_proposals": RegionProposals}
    small = ("--data.source=uci", "--data.num_train=8", "--data.num_val=4", "--data.num_test=4")
    every = "--trainer.check_val_every_n_epoch=1"
    return Application("detection", main, tasks, DetectionData, (*SMALL, *small, every))


def _generative() -> Application:
    from generative import GAN, VAE
    from generative.__main__ import main
    from generative.data import GenerativeData

    tasks: dict[str, Any] = {"dcgan": GAN, "quickstart_dcgan": GAN, "quickstart_vae": VAE, "vae": VAE}
    small = ("--data.num_train=8", "--data.num_val=20", "--data.num_test=20", "--data.batch_size=4")
    sizes = ("--data.image_size=32", "--model.image_size=32", "--data.radius=4")
    return Application("generative", main, tasks, GenerativeData, (*SMALL, *small, *sizes))


def _classification() -> Application:
    from classification import Classifier
    from classification.__main__ import main
    from classification.data import ClassificationData

    tasks: dict[str, Any] = dict.fromkeys(("quickstart", "resnet18_small", "resnet50_imagefolder"), Classifier)
    small = ("--data.source=digits", "--data.image_size=16", "--data.batch_size=4", "--model.network=resnet18")
    return Application("classification", main, tasks, ClassificationData, (*SMALL, *small))


def _rl() -> Application:
    from rl import A2C, DQN, PPO
    from rl.__main__ import main
    from rl.data import RLData

    tasks: dict[str, Any] = {"a2c_atari": A2C, "dqn_atari": DQN, "ppo_atari": PPO, "quickstart": PPO}
    small = ("--model.game=catch", "--data.num_envs=4", "--data.num_eval_envs=2", "--data.eval_episodes=2")
    lengths = ("--data.steps_per_epoch=16", "--model.total_timesteps=16", "--data.eval_max_steps=20")
    dqn = ("--model.learning_starts=4", "--model.buffer_size=64", "--model.batch_size=4")
    return Application("rl", main, tasks, RLData, (*SMALL, *small, *lengths), {"dqn_atari": dqn})


def _coordinates() -> Application:
    from coordconv_apps.coordinates.__main__ import main
    from coordconv_apps.coordinates.data import NotSoClevrData
    from coordconv_apps.coordinates.tasks import CoordinateClassification, CoordinateRegression, CoordinateRendering

    tasks: dict[str, Any] = {
        "classification_uniform": CoordinateClassification,
        "classification_paper": CoordinateClassification,
        "regression_quadrant": CoordinateRegression,
        "rendering_uniform": CoordinateRendering,
    }
    return Application("coordconv_apps.coordinates", main, tasks, NotSoClevrData, SMALL)


APPLICATIONS = {
    "detection": _detection,
    "generative": _generative,
    "classification": _classification,
    "rl": _rl,
    "coordinates": _coordinates,
}
"""Functions that import an application and return it, by its name."""
