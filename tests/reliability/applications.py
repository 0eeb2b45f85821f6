"""Tiny trainings of every application, with all that a checkpoint holds: schedules, averages, dropout, random draws."""

from __future__ import annotations

from typing import NamedTuple

CPU = ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", "--seed_everything=0"]


class Application(NamedTuple):
    """A module to run, its tiny settings, and names of the columns of ``metrics.csv`` that hold times."""

    module: str
    settings: list[str]
    times: tuple[str, ...] = ()


def flags(settings: str) -> list[str]:
    """Return ``"a=1 b=2"`` as ``["--a=1", "--b=2"]``."""
    return [f"--{setting}" for setting in settings.split()]


DIGITS = """
    data.source=uci data.num_train=24 data.num_val=4 data.num_test=5 data.batch_size=4
    model.coords=xy trainer.max_epochs=6
"""
SHAPES = """
    data.radius=2 data.image_size=16 data.num_train=40 data.num_val=20 data.num_test=21 data.batch_size=4
    model.image_size=16 model.width=2 model.latent_size=4 model.average=0.9 model.coords=xy trainer.max_epochs=6
"""
CLASSES = """
    data.source=digits data.image_size=8 data.crop=padded data.padding=1 data.mixup=0.2 data.batch_size=16
    model.network=mobilenet_v2 model.coords=xyr model.average=0.9
    trainer.limit_train_batches=8 trainer.limit_val_batches=2 trainer.max_epochs=8
"""
CENTERS = """
    data.canvas_size=16 data.square_size=3 data.split=quadrant
    model.canvas_size=16 model.square_size=3 model.coords=xy model.loss=sampled model.others=16
    model.stop_when_perfect=false trainer.max_epochs=8
"""
GAMES = """
    data.num_envs=2 data.steps_per_epoch=64 data.num_eval_envs=2 data.eval_episodes=3 data.test_episodes=3
    data.eval_max_steps=24 model=PPO model.coords=xy model.total_timesteps=384 model.n_steps=8 model.batch_size=8
    model.n_epochs=1 model.lr_schedule=linear trainer.max_epochs=-1
"""

APPLICATIONS = {
    "detection": Application("detection", flags(f"{DIGITS} trainer.check_val_every_n_epoch=2")),
    "proposals": Application("detection", flags(f"model=RegionProposals {DIGITS}")),
    "classification": Application("classification", [*flags(CLASSES), "--model.network_args={width_mult: 0.1}"]),
    "gan": Application("generative", flags(f"{SHAPES} model.discriminator_width=2")),
    "vae": Application("generative", flags(f"model=VAE {SHAPES} model.encoder_width=2")),
    "coordinates": Application("coordconv_apps.coordinates", flags(CENTERS), ("val/seconds",)),
    "rl": Application("rl", flags(GAMES), ("time/fps", "time/acting", "time/environment", "time/updating")),
}
"""Every application, by name. Each training takes a few seconds."""

TOY = Application("tests.toy", flags("trainer.max_epochs=20 model.coords=xy"))
"""The application of the tests."""
