"""The application from its command line: every shipped config, resuming, evaluation, export, mistakes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import stable_baselines3
import torch
import yaml
from lightning.pytorch import seed_everything
from PIL import Image

import rl.evaluation.episodes as episodes_module
import rl.evaluation.play as play_module
import rl.pictures
from coordconv_apps.runs.summary import read_summary
from rl.__main__ import main
from rl.data import EVALUATION_SEEDS, RLData
from rl.envs.catch import CatchVecEnv
from rl.envs.checks import BrokenEnvironment
from rl.envs.games import find_kind
from rl.evaluation.episodes import COLUMNS
from rl.evaluation.scores import human_normalised
from rl.pictures import RLPictures
from rl.policy_files import load_safe
from rl.predictions import EpisodeWriter
from rl.tasks import A2C, PPO
from rl.tasks.base import RLTask
from tests.helpers.refusals import refusal
from tests.helpers.runs import last_command, load, metrics_of, rows

CONFIGS = {path.stem: path for path in sorted((Path(__file__).parents[2] / "rl" / "configs").glob("*.yaml"))}
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
EVALUATION = ["--data.num_eval_envs=2", "--data.eval_episodes=3", "--data.test_episodes=3", "--data.eval_max_steps=24"]
SHORT = ["--data.num_envs=2", "--data.steps_per_epoch=32", *EVALUATION, *CPU]
SIZES: dict[str, dict[str, int]] = {
    "rl.A2C": {"n_steps": 8},
    "rl.PPO": {"n_steps": 8, "n_epochs": 2, "batch_size": 8},
    "rl.DQN": {"buffer_size": 64, "learning_starts": 8, "batch_size": 4},
}
TINY = ["--model.coords=xy", "--model.total_timesteps=48", "--model.n_steps=8", *SHORT]
PPO_TINY = ["--model=PPO", "--model.batch_size=8", "--model.n_epochs=1", *TINY]
FIGURES = {"score", "score_std", "score_median", "score_iqm", "length", "episodes", "human_normalised"}


def run_folder(runs: Path, name: str, version: int) -> Path:
    return runs / "rl" / name / f"version_{version}"


def newest(runs: Path, name: str) -> Path:
    return last_command(runs / "rl" / name)


def timesteps(folder: Path, name: str = "last") -> int:
    return int(load(folder, name)["rl"]["timesteps"])


def episodes_of(folder: Path) -> list[dict[str, str]]:
    return rows(folder, "episodes.csv")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and films take longer than all the rest."""
    monkeypatch.setattr(RLPictures, "draw", lambda *unused: {})
    monkeypatch.setattr(EpisodeWriter, "_film_first", lambda *unused: None)


# ------------------------------------------------------------------ shipped configs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("coords", ["none", "xy"])
def test_config_trains_and_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, coords: str) -> None:
    if name == "minigrid":
        pytest.importorskip("minigrid", reason="this config is for those who have the package minigrid")
    monkeypatch.setattr(rl.pictures, "_OBSERVATIONS", 1)
    model: dict[str, Any] = yaml.safe_load(CONFIGS[name].read_text())["model"]
    given = model["init_args"]
    sizes = {**SIZES[model["class_path"]], "total_timesteps": 48}
    atari = find_kind(given["game"]) == "atari"
    if atari:
        sizes["image_size"] = 36
    arguments = [f"--config={CONFIGS[name]}", f"--runs_dir={tmp_path}", f"--model.coords={coords}", *SHORT]
    arguments += [f"--model.{key}={value}" for key, value in sizes.items()]
    # To draw takes longer than all the rest. It is done at the end of one training, and of three tests.
    with monkeypatch.context() as patch:
        if (name, coords) != ("a2c_atari", "none"):
            patch.setattr(RLPictures, "draw", lambda *unused: {})
        main(["fit", *arguments, "--trainer.check_val_every_n_epoch=1"])
    fit = run_folder(tmp_path, name, 0)
    torch.load(fit / "checkpoints" / "best.ckpt", weights_only=True)
    task: RLTask = getattr(rl, model["class_path"].removeprefix("rl."))(**{**given, **sizes, "coords": coords})
    summary = read_summary(fit)
    assert (summary["status"], summary["coords"], summary["epochs"]) == ("finished", coords, 2)
    assert summary["parameters"] == task.parameter_count()
    assert summary["best"]["metric"] == "val/score"
    assert timesteps(fit) == summary["metrics"]["train/timesteps"] == 48
    figures = FIGURES - {"human_normalised"}  # the episodes are cut
    assert {figure for figure in summary["metrics"] if figure.startswith("val/")} == {f"val/{name}" for name in figures}
    assert all(np.isfinite(value) for value in summary["metrics"].values())
    drawn = {"attention.png", "episode.gif"} if name == "a2c_atari" and coords == "none" else {"episode.gif"}
    assert {path.name for path in (fit / "pictures").iterdir()} == drawn
    if coords == "none":
        return  # a test differs in nothing but the network
    drawn = {"attention.png", "coordinates.png", "episode.gif"}
    if name in ("ppo_atari", "minigrid"):
        monkeypatch.setattr(RLPictures, "draw", lambda *unused: {})
        drawn = {"episode.gif"}
    main(["test", "--ckpt_path=best", f"--name={name}", f"--runs_dir={tmp_path}", *CPU])
    tested = newest(tmp_path, name)
    assert set(metrics_of(tested)) == {f"test/{figure}" for figure in figures}
    assert {path.name for path in (tested / "pictures").iterdir()} == drawn
    assert_all_is_written(tested, given["game"])


def assert_all_is_written(tested: Path, game: str) -> None:
    """Pictures that can be opened, a film of several frames, and a table that agrees with the figures."""
    for picture in (path.name for path in (tested / "pictures").iterdir()):
        with Image.open(tested / "pictures" / picture) as image:
            image.load()
            assert getattr(image, "n_frames", 1) > 1 or picture != "episode.gif"
    episodes = episodes_of(tested)
    assert tuple(episodes[0]) == COLUMNS
    first = EVALUATION_SEEDS["test"]
    # Of two environments the later one would play the episode that is left over, but they are stopped before.
    assert [(row["game"], row["seed"]) for row in episodes] == [(game, str(first + i)) for i in (0, 1)]
    figures = metrics_of(tested)
    assert np.mean([float(row["score"]) for row in episodes]) == pytest.approx(figures["test/score"])
    assert np.mean([float(row["length"]) for row in episodes]) == pytest.approx(figures["test/length"])
    for row in episodes:
        normalised = human_normalised(game, float(row["score"])) if row["complete"] == "1" else None
        assert row["human_normalised"] == ("" if normalised is None else str(normalised))


# ------------------------------------------------------------------ repeating and resuming


@pytest.mark.usefixtures("bare")
def test_same_seed_gives_the_same_training(tmp_path: Path, trained: Path) -> None:
    for _ in range(2):
        main(["fit", f"--runs_dir={tmp_path}", "--seed_everything=1", *PPO_TINY])
    runs = [run_folder(tmp_path, "default", 0), run_folder(tmp_path, "default", 1), run_folder(trained, "ppo", 0)]
    checkpoints = [run / "checkpoints" / "last.ckpt" for run in runs]
    states = [torch.load(checkpoint, weights_only=True)["state_dict"] for checkpoint in checkpoints]
    assert all(torch.equal(weight, states[1][name]) for name, weight in states[0].items())
    assert not all(torch.equal(weight, states[2][name]) for name, weight in states[0].items())


@pytest.mark.usefixtures("bare")
def test_a_signal_ends_a_long_validation_at_its_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, played = play_module.play, [0]

    def interrupted(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # handed on
        for played[0], each in enumerate(step(*arguments, **options), start=1):
            if played[0] == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield each

    with monkeypatch.context() as patch:
        patch.setattr(episodes_module, "play", interrupted)
        with pytest.raises(SystemExit) as stopped:
            main(["fit", f"--runs_dir={tmp_path}", "--name=stopped", *PPO_TINY])
    assert (stopped.value.code, played[0]) == (143, 5)
    checkpoint = run_folder(tmp_path, "stopped", 0) / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["run"]["place"] == "validation"
    main(["fit", f"--runs_dir={tmp_path}", "--name=stopped", "--ckpt_path=last"])
    resumed = metrics_of(run_folder(tmp_path, "stopped", 0))
    assert resumed["train/timesteps"] == 48
    assert resumed["val/episodes"] == 2  # data.eval_max_steps ends before the third


@pytest.mark.usefixtures("bare")
def test_the_quickstart_learns(tmp_path: Path) -> None:
    """An easier form of the game: a larger paddle, and a single ball, which chance catches nearly half of the time."""
    game = ["--data.balls=1", "--data.paddle=5", "--model.coords=xy", "--model.lr=0.001", "--model.batch_size=64"]
    game += ["--model.lr_schedule=constant", "--model.coord_init=random"]
    training = ["--model.total_timesteps=3072", "--data.steps_per_epoch=3072", "--model.n_steps=16"]
    evaluation = ["--data.eval_episodes=64", "--data.num_eval_envs=64"]
    arguments = [f"--config={CONFIGS['quickstart']}", f"--runs_dir={tmp_path}", *CPU]
    main(["fit", *arguments, *game, *training, *evaluation])
    figures = metrics_of(run_folder(tmp_path, "quickstart", 0))
    assert figures["val/score"] > 0.6
    assert "val/human_normalised" not in figures, "that would be of the game's own rules"


# ------------------------------------------------------------------ evaluation and export


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with a short run of each algorithm in it: of a game of Atari's, and of Catch."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RLPictures, "draw", lambda *unused: {})
        patch.setattr(EpisodeWriter, "_film_first", lambda *unused: None)
        atari = ["--model.game=breakout", "--model.image_size=36"]
        main(["fit", "--name=a2c", f"--runs_dir={runs}", *atari, *TINY])
        main(["fit", "--name=ppo", f"--runs_dir={runs}", *PPO_TINY])
    return runs


def test_an_epoch_is_saved_before_pictures_that_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> NoReturn:
        raise BrokenEnvironment("there is no film")

    monkeypatch.setattr(EpisodeWriter, "_film_first", fail)
    assert refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", *TINY]) == "there is no film"
    run = run_folder(tmp_path, "default", 0)
    assert timesteps(run) == 48
    assert read_summary(run)["epochs"] == 2


@pytest.mark.usefixtures("bare")
def test_evaluations_are_the_same_each_time_and_deterministic_if_asked_for(trained: Path) -> None:
    found = []
    for deterministic in ("false", "false", "true"):
        arguments = ["--name=ppo", f"--runs_dir={trained}", "--ckpt_path=best", *CPU]
        arguments += ["--data.eval_episodes=8", "--data.eval_max_steps=null", "--data.num_eval_envs=3"]
        main(["validate", *arguments, f"--data.deterministic={deterministic}"])
        folder = newest(trained, "ppo")
        found.append((metrics_of(folder), episodes_of(folder)))
    assert found[0] == found[1]
    assert [row["score"] for row in found[0][1]] != [row["score"] for row in found[2][1]]
    assert found[0][0]["val/episodes"] == 8
    assert {row["complete"] for row in found[0][1]} == {"1"}
    normalised = [float(row["human_normalised"]) for row in found[0][1]]
    assert found[0][0]["val/human_normalised"] == pytest.approx(np.mean(normalised))
    assert {row["length"] for row in found[0][1]} == {"59"}, "whole games, whatever the training's evaluations did"


@pytest.mark.parametrize(("name", "format_"), [("a2c", "onnx"), ("ppo", "plain")])
def test_exported_files_play_the_same_actions(trained: Path, name: str, format_: str) -> None:
    main(["export", f"--name={name}", f"--runs_dir={trained}", "--ckpt_path=last", f"--format={format_}", *CPU])
    files = newest(trained, name) / "export"
    checkpoint = run_folder(trained, name, 0) / "checkpoints" / "last.ckpt"
    kinds: dict[str, type[RLTask]] = {"a2c": A2C, "ppo": PPO}
    task = kinds[name].load_from_checkpoint(checkpoint, map_location="cpu").eval()
    shape = task.policy.observation_space.shape or ()
    images = np.random.default_rng(0).integers(256, size=(32, *shape), dtype=np.uint8)
    with torch.no_grad():  # untrained, a policy has one favourite; its actions are to depend on what it sees
        preferences, values = (output.numpy() for output in task.export_module()(torch.from_numpy(images)))
    expected = task.policy.predict(images, deterministic=True)[0]
    np.testing.assert_array_equal(preferences.argmax(1), expected)
    plain = getattr(stable_baselines3, name.upper()).load(files / "policy.zip", device="cpu")
    np.testing.assert_array_equal(plain.predict(images, deterministic=True)[0], expected)
    assert plain.num_timesteps == 48
    optimizer = torch.load(checkpoint, weights_only=True)["optimizer_states"][0]["state"]
    assert optimizer
    torch.testing.assert_close(plain.policy.optimizer.state_dict()["state"], optimizer, msg="it goes on from there")
    safe = load_safe(files / "policy.safe.zip")
    np.testing.assert_array_equal(safe.predict(images, deterministic=True)[0], expected)
    without_package = type(plain).load(files / "policy_plain.zip", device="cpu").policy
    for loaded in (plain.policy, safe, without_package):
        found = loaded.predict_values(torch.from_numpy(images)).detach().numpy()[:, 0]  # type: ignore[operator]
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5)
    if format_ == "plain":
        program = torch.export.load(files / "network_plain.pt2").module()
        torch.testing.assert_close(program(torch.from_numpy(images))[0], torch.from_numpy(preferences))
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(files / "network.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(["logits", "values"], {"observations": images})
    for output, wanted in zip(outputs, (preferences, values), strict=True):
        np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ mistakes and misfortunes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.game=breakot"], "model.game=breakot: this game does not exist; the closest are breakout"),
        (["--model.game=CartPole-v1"], "model.game=CartPole-v1: observations are Box("),
        (["--model.game=pong", "--model.image_size=20"], "model.image_size=20: must be an integer of at least 36"),
        (["--model=PPO", "--model.batch_size=7"], "model.batch_size=7: must divide model.n_steps times"),
        (["--trainer.gradient_clip_val=1"], "itself; choose model.max_grad_norm"),
        (["--trainer.accumulate_grad_batches=2"], "--trainer.accumulate_grad_batches=2: must be 1"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", *TINY, *arguments])


def test_games_depend_on_seed_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    seed_everything(7)
    assert (RLData().seed, RLData(seed=3).seed) == (7, 3)
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert RLData().seed == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "data.num_envs=0: must be an integer from 1 to 10000"),
        ({"num_eval_envs": 2**31}, "data.num_eval_envs=2147483648: must be an integer from 1 to 10000"),
        ({"num_threads": 2**31}, "data.num_threads=2147483648: must be an integer from 0 to 1000"),
        ({"eval_max_steps": 0}, "data.eval_max_steps=0: must be an integer of at least 1"),
        ({"noop_max": 10**9}, "data.noop_max=1000000000: must be an integer from 0 to 10000"),
        ({"frame_skip": 10**9}, "data.frame_skip=1000000000: must be an integer from 1 to 1000"),
        ({"repeat_action_probability": 2}, r"data.repeat_action_probability=2: must be in \[0, 1\]"),
        ({"balls": 0}, "data.balls=0: must be an integer of at least 1"),
        ({"paddle": 12}, "data.paddle=12: must be an integer from 1 to 11"),
        ({"seed": 2**30}, "data.seed=1073741824: must be below 1073741824"),
    ],
)
def test_data_are_checked_before_anything_is_opened(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        RLData(**options)


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "minigrid", None)  # as if it were not installed
    arguments = [f"--config={CONFIGS['minigrid']}", f"--runs_dir={tmp_path}", *CPU]
    told = refusal(capsys, main, ["fit", *arguments])
    assert told.startswith("model.game=MiniGrid-DoorKey-5x5-v0: needs the package minigrid")


@pytest.mark.usefixtures("bare")
def test_an_environment_that_breaks_in_a_validation_ends_a_run_that_can_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, seen = CatchVecEnv.step_wait, [0]

    def broken(env: CatchVecEnv) -> Any:  # noqa: ANN401  # handed on
        observations, rewards, dones, infos = step(env)
        seen[0] += env.num_envs == 3
        if seen[0] == 21 and env.num_envs == 3:
            rewards[1] = np.nan
        return observations, rewards, dones, infos

    arguments = ["fit", f"--runs_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(CatchVecEnv, "step_wait", broken)
        told = refusal(capsys, main, [*arguments, *TINY, "--data.num_eval_envs=3"])
    assert told == "model.game=catch: environment 1 failed in step 21: its reward is NaN or infinite"
    run = run_folder(tmp_path, "default", 0)
    assert read_summary(run)["status"] == "failed"
    assert timesteps(run) == 32
    main([*arguments, "--ckpt_path=last"])
    summary = read_summary(run)
    assert (summary["status"], summary["epochs"], timesteps(run)) == ("finished", 2, 48)
    assert "val/score" in summary["metrics"]
