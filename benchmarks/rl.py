"""Measure the speed of environments, training and extractors against Stable-Baselines3 (SB3), in turns.

    python benchmarks/rl.py                 # every table
    python benchmarks/rl.py --only training
    python benchmarks/rl.py --effort 4      # four times as long, and steadier

environments: Atari steps per second, with random actions, of `rl.envs.atari.AtariVecEnv` and of SB3's `make_atari_env`
with `VecFrameStack`, in one process and in one per game. The upper bound is ale-py's own `AtariVectorEnv`, which has
the same emulators but none of the handling of lives, FIRE and SB3's infos. EnvPool has a column if it is installed; it
handles lives and FIRE, but not SB3's infos.

training: steps per second of whole trainings, with the settings of `rl/configs/<algorithm>_atari.yaml`: ours without
and with coordinates, in single precision and in bf16-mixed, which is fast on CPUs with AVX512-BF16 or AMX, through the
command line with its loggers and checks, against `learn` of SB3's A2C and PPO with `CnnPolicy`, `make_atari_env` and
`VecFrameStack`, without logger or progress bar, as is its default. A second table shows where the time goes. The time
before the second rollout does not count, and there are no evaluations. Both arms are also compared by CPU time, which
other programs hardly affect.

extractors: forward and backward passes of `CoordConvNatureCNN`, relative to those of SB3's `NatureCNN`.

Each contender runs in its own process. The processes take turns: one runs while the others sleep. Ratios are medians
over the rounds, so that the load of a whole round does not affect them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple
from unittest import mock

import ale_py
import numpy as np
import torch
import yaml
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Box, Discrete
from jsonargparse.typing import PositiveFloat, PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from benchmarks.timing import in_turns, median_ratio, verdict
from coordconv_apps.cli.app import run
from coordconv_apps.runs.environment import device_name
from rl.data import RLData
from rl.envs.atari import AtariVecEnv
from rl.envs.roms import find_game
from rl.envs.threads import share_cores
from rl.extractors import CoordConvNatureCNN
from rl.learning.timings import Timings
from rl.sb3_objects import optimizer_arguments
from rl.tasks import RLTask

CONFIGS = Path(__file__).resolve().parents[1] / "rl" / "configs"

ENVIRONMENTS_BAR = 2.3
"""Lower bound for the speed-up of the environments over the faster of SB3's."""
TRAINING_BARS = {"cpu": 2.5, "gpu": 3.0}
"""Lower bounds for the speed-up of training over SB3 with its default environments, on 2 cores and on 16 with a GPU."""
COORDS_BAR = 0.97
"""Lower bound for training steps per second with coordinates, divided by those without."""

OURS = "ours"
STOCK: dict[str, type[DummyVecEnv | SubprocVecEnv]] = {"DummyVecEnv": DummyVecEnv, "SubprocVecEnv": SubprocVecEnv}
"""SB3's kinds of environments; the first is its default."""
EMULATORS = "ale-py"
"""ale-py's vector environment, unchanged."""
ENVPOOL = "EnvPool"
PEERS = (EMULATORS, ENVPOOL) if importlib.util.find_spec("envpool") else (EMULATORS,)
"""Environments without what SB3 needs."""
ARMS = {
    "none": ["--model.coords=none"],
    "xy": ["--model.coords=xy"],
    "none, bf16-mixed": ["--model.coords=none", "--trainer.precision=bf16-mixed"],
    "xy, bf16-mixed": ["--model.coords=xy", "--trainer.precision=bf16-mixed"],
}
"""Flags of our trainings by name."""
PARTS = ("acting", "environment", "updating")


# ------------------------------------------------------------------ taking turns


class Turn(NamedTuple):
    """Measurements of a turn."""

    steps: int  # of all environments
    seconds: float  # wall-clock time
    processor: float  # CPU seconds of this process
    parts: dict[str, float]  # seconds of each of `PARTS`; empty for environments alone

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self.steps / self.seconds


class Baton:
    """Make a process wait for its turns; the first turn ends at the first call of `goes_on`.

    The pipe sends the seconds of the next turn, or None to end.
    """

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.began, self.began_processor = time.perf_counter(), time.process_time()
        self.seconds, self.steps, self.parts = 0.0, 0, dict.fromkeys(PARTS, 0.0)

    def goes_on(self, steps: int, parts: Mapping[str, float]) -> bool:
        """Wait for the next turn if this one is over, given the steps and seconds so far; return False at the end."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        passed = time.perf_counter() - self.began
        if passed < self.seconds:
            return True
        spent = {name: value - self.parts[name] for name, value in parts.items()}
        self.pipe.send(Turn(steps - self.steps, passed, time.process_time() - self.began_processor, spent))
        seconds = self.pipe.recv()
        if seconds is None:
            return False
        self.seconds, self.steps, self.parts = seconds, steps, dict(parts)
        self.began, self.began_processor = time.perf_counter(), time.process_time()
        return True


Contender = Callable[[Baton], None]
"""Play or train until `Baton.goes_on` returns False."""


def in_its_process(pipe: Connection, threads: int, contender: Contender) -> None:
    """Run one contender; the target of its process."""
    torch.set_num_threads(threads)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        contender(Baton(pipe))


@contextlib.contextmanager
def as_launched(name: str) -> Iterator[None]:
    """Set the environment variables that `python -m rl` sets, and that programs with SB3 do not."""
    with mock.patch.dict(os.environ):
        if name in ARMS:
            share_cores()
        yield


def race(contenders: Mapping[str, Contender], options: argparse.Namespace) -> dict[str, list[Turn]]:
    """Let contenders take turns, and return the turns of each by name, after one round that does not count."""
    context = multiprocessing.get_context("spawn")  # torch takes its settings from the environment when it is loaded
    pipes: dict[str, Connection] = {}
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    names = list(contenders)
    try:
        for name, contender in contenders.items():
            pipes[name], far_end = context.Pipe()
            with as_launched(name):
                context.Process(target=in_its_process, args=(far_end, options.threads, contender)).start()
            far_end.close()  # so that the end of the process closes the pipe
        for name in names:
            pipes[name].recv()
        for number in range(-1, options.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                pipes[name].send(options.seconds)
                turn = pipes[name].recv()
                if number >= 0:
                    turns[name].append(turn)
    finally:
        for pipe in pipes.values():
            with contextlib.suppress(OSError):  # of a process that has failed
                pipe.send(None)
        for process in multiprocessing.active_children():
            process.join()
    return turns


def ratio(above: Sequence[Turn], below: Sequence[Turn]) -> float:
    """Return the median speed-up of the first turns over the second."""
    return median_ratio([turn.rate for turn in above], [turn.rate for turn in below])


def median_rate(turns: Sequence[Turn]) -> float:
    """Return the median of steps per second."""
    return statistics.median(turn.rate for turn in turns)


# ------------------------------------------------------------------ environments


def registered_name(game: str) -> str:
    """Return a game's name as others register it, such as ``MsPacman``."""
    return "".join(map(str.capitalize, find_game(game).split("_")))


def stock_envs(kind: str, game: str, count: int, frame_stack: int = 4) -> VecEnv:
    """Make environments of one of the kinds in `STOCK`, as users of SB3 do."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for each game
    # With SB3's default start method, each process would first import all that this file imports.
    arguments = {"start_method": "fork"} if kind == "SubprocVecEnv" else {}
    envs = make_atari_env(
        f"{registered_name(game)}NoFrameskip-v4", count, seed=0, vec_env_cls=STOCK[kind], vec_env_kwargs=arguments
    )
    return VecFrameStack(envs, frame_stack)


def envpool_envs(game: str, count: int) -> Any:  # noqa: ANN401  # EnvPool is optional
    """Make EnvPool's environments, with the preprocessing of the others."""
    settings = {"num_envs": count, "episodic_life": True, "reward_clip": True, "seed": 0}
    return importlib.import_module("envpool").make_gymnasium(f"{registered_name(game)}-v5", **settings)


def play(baton: Baton, kind: str, game: str, count: int) -> None:
    """Play with random actions in environments of a kind: `OURS`, one of `PEERS`, or one of `STOCK`."""
    envs: Any
    if kind == EMULATORS:
        envs = AtariVectorEnv(find_game(game), count, use_fire_reset=False)
    elif kind == OURS:
        envs = AtariVecEnv(game, count, seed=0)
    else:
        envs = envpool_envs(game, count) if kind == ENVPOOL else stock_envs(kind, game, count)
    space = envs.single_action_space if kind == EMULATORS else envs.action_space
    assert isinstance(space, Discrete)
    rng, most, steps = np.random.default_rng(0), int(space.n), 0
    envs.reset()
    while baton.goes_on(steps, {}):
        for _ in range(20):
            envs.step(rng.integers(most, size=count))
        steps += 20 * count
    envs.close()


def environments_table(options: argparse.Namespace) -> None:
    """Print environment steps per second of ours and of SB3's, and their ratios."""
    print(f"environments: steps per second, {options.num_envs} games, random actions")
    heads = "".join(f"{kind:>16}{'ratio':>8}" for kind in STOCK)
    print(f"{'game':12}{OURS:>10}{heads}{'bar':>6}{'':8}" + "".join(f"{kind:>10}{'ratio':>8}" for kind in PEERS))
    for game in options.games:
        turns = race(
            {kind: partial(play, kind=kind, game=game, count=options.num_envs) for kind in (OURS, *STOCK, *PEERS)},
            options,
        )
        ratios = {kind: ratio(turns[OURS], turns[kind]) for kind in STOCK}
        columns = "".join(f"{median_rate(turns[kind]):16,.0f}{value:8.2f}" for kind, value in ratios.items())
        met = verdict(min(ratios.values()) >= ENVIRONMENTS_BAR)
        row = f"{game:12}{median_rate(turns[OURS]):10,.0f}{columns}{ENVIRONMENTS_BAR:6.1f} {met:7}"
        peers = (f"{median_rate(turns[kind]):10,.0f}{ratio(turns[OURS], turns[kind]):8.2f}" for kind in PEERS)
        print(row + "".join(peers), flush=True)


# ------------------------------------------------------------------ training


class TakeTurns(Callback):
    """Train with Lightning while it has the baton."""

    baton: ClassVar[Baton]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Wait for the next turn when this one is over."""
        assert isinstance(pl_module, RLTask)
        if not self.baton.goes_on(pl_module.timesteps, vars(pl_module.timings)):
            trainer.should_stop = True


def train_ours(baton: Baton, algorithm: str, arm: str, game: str, accelerator: str) -> None:
    """Train with the algorithm's config and the flags of one of `ARMS` through the command line."""
    TakeTurns.baton = baton
    with tempfile.TemporaryDirectory() as runs:
        args = ["fit", f"--config={CONFIGS / algorithm}_atari.yaml", f"--runs_dir={runs}"]
        args += [*ARMS[arm], f"--model.game={game}"]
        args += [f"--trainer.accelerator={accelerator}", "--trainer.devices=1", "--trainer.limit_val_batches=0"]
        run("rl", RLTask, RLData, args, callbacks=[TakeTurns])  # no pictures: they belong to evaluations


class StockTurns(BaseCallback):
    """Train by SB3's `learn` while it has the baton."""

    def __init__(self, baton: Baton, timings: Timings) -> None:
        super().__init__()
        self.baton, self.timings = baton, timings
        self.ends = False

    def _on_rollout_start(self) -> None:
        self.ends = not self.baton.goes_on(self.num_timesteps, vars(self.timings))

    def _on_step(self) -> bool:
        return not self.ends


def timed(
    function: Callable[..., Any], part: Literal["acting", "environment", "updating"], timings: Timings
) -> Callable[..., Any]:
    """Wrap a function so that the seconds of its calls are added to those of a part."""

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as the function
        with timings.measure(part):
            return function(*args, **kwargs)

    return call


def stock_algorithm(algorithm: str, envs: VecEnv, device: str) -> A2C | PPO:
    """Make SB3's algorithm with its `CnnPolicy` and the settings of our config."""
    path = CONFIGS / f"{algorithm}_atari.yaml"
    model: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["init_args"]
    names = ["n_steps", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm"]
    if algorithm == "a2c":
        settings = {name: model[name] for name in names} | {
            "policy_kwargs": optimizer_arguments(model["optimizer"], model["optimizer_eps"])
        }
        return A2C("CnnPolicy", envs, learning_rate=model["lr"], device=device, seed=0, **settings)
    settings = {name: model[name] for name in [*names, "n_epochs", "batch_size", "normalize_advantage"]}
    rate, clip_range = (LinearSchedule(model[name], 0.0, 1.0) for name in ("lr", "clip_range"))
    return PPO("CnnPolicy", envs, learning_rate=rate, clip_range=clip_range, device=device, seed=0, **settings)


def train_stock(baton: Baton, algorithm: str, kind: str, game: str, accelerator: str) -> None:
    """Train by SB3's `learn`, with environments of one of the kinds in `STOCK`."""
    config = yaml.safe_load((CONFIGS / f"{algorithm}_atari.yaml").read_text(encoding="utf-8"))
    envs = stock_envs(kind, game, config["data"]["num_envs"], config["model"]["init_args"]["frame_stack"])
    stock: Any = stock_algorithm(algorithm, envs, "cuda" if accelerator == "gpu" else "cpu")
    timings, policy = Timings(), stock.policy
    policy.forward, policy.predict_values = (
        timed(call, "acting", timings) for call in (policy.forward, policy.predict_values)
    )
    stock.env.step = timed(stock.env.step, "environment", timings)
    stock.train = timed(stock.train, "updating", timings)
    stock.learn(config["model"]["init_args"]["total_timesteps"], callback=StockTurns(baton, timings))
    envs.close()


def training_table(options: argparse.Namespace) -> None:
    """Print steps per second of trainings, their ratios, and where the time goes."""
    bar, game = TRAINING_BARS[options.accelerator], options.games[0]
    first = next(iter(STOCK))
    print(f"training: steps per second, {game}, {options.threads} threads; then milliseconds per 1,000 steps")
    heads = "".join(f"{part:>13}" for part in (*PARTS, "other"))
    head = f"{'training':30}{'steps/s':>9}{'x SB3':>7}{'bar':>6}{'':8}{'xy / none':>9}{'bar':>6}{'':8}"
    print(f"{head}{'of processor':>12}{heads}")
    for algorithm in options.algorithms:
        common = {"algorithm": algorithm, "game": game, "accelerator": options.accelerator}
        contenders = {kind: partial(train_stock, kind=kind, **common) for kind in STOCK}
        contenders |= {arm: partial(train_ours, arm=arm, **common) for arm in ARMS}
        turns = race(contenders, options)
        for name, own in turns.items():
            times = ratio(own, turns[first])
            row = f"{algorithm}: {f'{OURS}, {name}' if name in ARMS else f'SB3, {name}':25}"
            row += f"{median_rate(own):9,.0f}{times:7.2f}"
            row += f"{bar:6.1f} {verdict(times >= bar):7}" if name in ARMS else " " * 14
            row += against_plain(own, turns["none"]) if name == "xy" else " " * 35
            print(row + "".join(f"{value:13.1f}" for value in where_time_goes(own)), flush=True)


def against_plain(coords: Sequence[Turn], none: Sequence[Turn]) -> str:
    """Return the table's columns with the ratios of both arms, by wall-clock and by CPU time."""
    share = ratio(coords, none)
    spent = [[turn.processor / turn.steps for turn in turns] for turns in (none, coords)]
    return f"{share:9.3f}{COORDS_BAR:6.2f} {verdict(share >= COORDS_BAR):7}{median_ratio(*spent):12.3f}"


def where_time_goes(turns: Sequence[Turn]) -> list[float]:
    """Return the milliseconds per 1,000 steps of each of `PARTS`, and of the rest."""
    steps, seconds = sum(turn.steps for turn in turns), sum(turn.seconds for turn in turns)
    parts = [sum(turn.parts[part] for turn in turns) for part in PARTS]
    return [1e6 * value / steps for value in (*parts, seconds - sum(parts))]


# ------------------------------------------------------------------ extractors


def both_ways(extractor: nn.Module, images: torch.Tensor) -> None:
    """Compute features and gradients."""
    extractor(images).sum().backward()


def extractors_table(options: argparse.Namespace) -> None:
    """Print images per second, forward and backward, with and without coordinates."""
    torch.set_num_threads(options.threads)
    device = "cuda" if options.accelerator == "gpu" else "cpu"
    print(f"extractors: images per second, forward and backward, 84 x 84 x 4, {options.threads} threads")
    print(f"{'batch':8}{'NatureCNN':>12}{'xy, first':>12}{'ratio':>8}{'xy, all':>12}{'ratio':>8}")
    space = Box(0, 255, (4, 84, 84), np.uint8)
    torch.manual_seed(0)
    extractors: dict[str, nn.Module] = {
        "none": NatureCNN(space),
        "first": CoordConvNatureCNN(space, coords="xy", where="first"),
        "all": CoordConvNatureCNN(space, coords="xy", where="all"),
    }
    for batch in (16, 80, 256):
        images = torch.rand(batch, 4, 84, 84, device=device)
        runs: dict[str, Callable[[], object]] = {}
        runs |= {name: partial(both_ways, network.to(device), images) for name, network in extractors.items()}
        times = in_turns(runs, 3 * options.effort, device)
        none, first, everywhere = (batch / statistics.median(own) for own in times.values())
        ratios = [median_ratio(times["none"], times[name]) for name in ("first", "all")]
        print(f"{batch:<8}{none:12,.0f}{first:12,.0f}{ratios[0]:8.3f}{everywhere:12,.0f}{ratios[1]:8.3f}", flush=True)


TABLES: dict[str, Callable[[argparse.Namespace], None]] = {
    "environments": environments_table,
    "training": training_table,
    "extractors": extractors_table,
}


def main() -> None:
    """Print the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description="Ratios of reinforcement learning, measured in one run.")
    parser.add_argument("--only", choices=list(TABLES), help="print this table alone")
    parser.add_argument("--effort", type=PositiveFloat, default=1.0, help="how long to measure, 1 is about six minutes")
    parser.add_argument("--games", nargs="+", default=["pong", "breakout"], help="of Atari; the first is trained on")
    parser.add_argument("--num_envs", type=PositiveInt, default=8, help="games at once, for the table of environments")
    parser.add_argument("--algorithms", nargs="+", default=["a2c", "ppo"], choices=["a2c", "ppo"], help="to train with")
    parser.add_argument("--rounds", type=PositiveInt, default=7, help="turns of each that is compared")
    parser.add_argument("--seconds", type=PositiveFloat, default=1.0, help="of a turn, which ends with a whole rollout")
    parser.add_argument("--threads", type=PositiveInt, default=os.cpu_count(), help="threads of a training")
    parser.add_argument("--accelerator", default="cpu", choices=list(TRAINING_BARS), help="as Lightning's trainer has")
    options = parser.parse_args()
    options.rounds = max(1, round(options.rounds * options.effort))
    device = torch.device("cuda" if options.accelerator == "gpu" else "cpu")
    print(f"{device_name(device, 1)}, {os.cpu_count()} cores, torch {torch.__version__}")
    for name, table in TABLES.items():
        if options.only in (None, name):
            table(options)


if __name__ == "__main__":
    main()
