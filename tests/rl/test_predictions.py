"""Films and tables of episodes, and two processes that play them as one does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import rl.pictures
import rl.predictions
from coordconv_apps.runs.summary import read_summary
from rl.__main__ import main
from rl.data import EVALUATION_SEEDS, PREDICTION_SEED, RLData
from rl.envs.catch import CatchVecEnv
from rl.evaluation.episodes import play_episodes
from rl.evaluation.films import Film, film_episode
from rl.pictures import RLPictures
from rl.tasks import A2C
from tests.helpers import forked
from tests.helpers.processes import TWO_PROCESSES
from tests.helpers.refusals import refusal
from tests.helpers.runs import metrics_of
from tests.rl.test_app import CPU, TINY, episodes_of, newest, run_folder

GAMES = ["--data.balls=2", "--data.paddle=5", "--data.eval_max_steps=null"]
"""Games of 23 steps."""


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RLPictures, "draw", lambda *unused: {})


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> list[Film]:
    """Those that are made from now on."""
    made: list[Film] = []

    def film(*args: Any, **kwargs: Any) -> Film:  # noqa: ANN401  # handed on
        made.append(film_episode(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(rl.predictions, "film_episode", film)
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with a short run in it."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RLPictures, "draw", lambda *unused: {})
        main(["fit", f"--runs_dir={runs}", "--episode_writer.film=false", *TINY, *GAMES])
    return runs


def arguments_of(runs: Path, *more: str) -> list[str]:
    return [f"--runs_dir={runs}", "--ckpt_path=best", *CPU, *more]


def length_of(path: Path) -> int:
    with Image.open(path) as film:
        return int(getattr(film, "n_frames", 1))


def test_no_film_is_made_if_none_is_wanted(trained: Path) -> None:
    assert not list(run_folder(trained, "default", 0).rglob("*.gif"))


@pytest.mark.usefixtures("no_pictures")
def test_the_film_is_of_the_first_episode_of_the_test(trained: Path, films: list[Film]) -> None:
    main(["test", *arguments_of(trained)])
    folder = newest(trained, "default")
    (film,) = films
    first = episodes_of(folder)[0]
    assert first["seed"] == str(EVALUATION_SEEDS["test"])
    assert (film.scores[-1], film.length, film.complete) == (float(first["score"]), int(first["length"]), True)
    assert length_of(folder / "pictures" / "episode.gif") == len(film.frames) == 24


@pytest.mark.usefixtures("no_pictures")
def test_a_bound_on_evaluations_is_one_on_films(trained: Path, films: list[Film]) -> None:
    main(["validate", *arguments_of(trained, "--data.eval_max_steps=7")])
    (film,) = films
    assert (film.length, film.complete) == (7, False)
    assert {(row["length"], row["complete"]) for row in episodes_of(newest(trained, "default"))} == {("7", "0")}


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_predict_films_as_many_episodes_as_asked_for(
    trained: Path, capsys: pytest.CaptureFixture[str], deterministic: str
) -> None:
    capsys.readouterr()
    main(["predict", *arguments_of(trained, "--data.predict_episodes=3", f"--data.deterministic={deterministic}")])
    told = re.findall(r"episode (\d): score (\S+) in (\d+) steps: (\S+)", capsys.readouterr().out)
    folder = newest(trained, "default") / "predictions"
    assert sorted(path.name for path in folder.iterdir()) == ["000.gif", "001.gif", "002.gif"]
    task = A2C.load_from_checkpoint(run_folder(trained, "default", 0) / "checkpoints" / "best.ckpt")
    for number, (name, score, length, path) in enumerate(told):
        seed = PREDICTION_SEED + number
        env = CatchVecEnv(1, seed, balls=2, paddle=5)
        played = play_episodes(task.policy, env, 1, deterministic=deterministic == "true", seed=seed)
        assert (name, score, length) == (str(number), f"{played.scores[0]:g}", "23")
        assert path == str(folder / f"{number:03d}.gif")
        assert length_of(folder / f"{number:03d}.gif") == 24
    assert len(told) == 3
    films = {(folder / f"{number:03d}.gif").read_bytes() for number in range(3)}
    assert len(films) == 3, "each is of another game"


@pytest.mark.usefixtures("no_pictures")
def test_ataris_games_are_filmed_in_colour_and_evaluated_without(
    tmp_path: Path, films: list[Film], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    plain = RLData.open_evaluation_envs

    def opened(*args: Any) -> Any:  # noqa: ANN401  # handed on
        env = plain(*args)
        modes.append(env.render_mode)
        return env

    monkeypatch.setattr(RLData, "open_evaluation_envs", opened)
    arguments = [f"--runs_dir={tmp_path}", *TINY, "--model.game=breakout", "--model.image_size=36"]
    arguments += ["--data.eval_max_steps=400", "--data.test_episodes=1", "--data.num_eval_envs=1"]
    main(["test", *arguments, "--allow_random_weights"])
    assert modes == [None, "rgb_array"]
    (film,) = films
    (row,) = episodes_of(newest(tmp_path, "default"))
    assert (float(row["score"]), row["complete"], film.complete) == (film.scores[-1], "1", True)
    assert film.frames.shape == (film.length, 210, 160, 3)
    assert (film.frames != film.frames[..., :1]).any(axis=(1, 2, 3)).all()
    assert length_of(newest(tmp_path, "default") / "pictures" / "episode.gif") > 1


def test_films_and_pictures_do_not_change_a_training(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl.pictures, "_OBSERVATIONS", 1)
    main(["fit", f"--runs_dir={tmp_path}", *TINY, *GAMES, "--rl_pictures.every_n_epochs=1"])
    drawn = {path.name for path in (run_folder(tmp_path, "default", 0) / "pictures").iterdir()}
    assert drawn == {"attention.png", "coordinates.png", "episode.gif"}
    states = [
        torch.load(run_folder(runs, "default", 0) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for runs in (trained, tmp_path)
    ]
    for name, weight in states[0].items():
        assert torch.equal(weight, states[1][name]), name


@pytest.mark.usefixtures("no_pictures")
def test_an_environment_that_breaks_in_a_film_is_reported_in_one_line(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, seen = CatchVecEnv.step_wait, [0]

    def broken(env: CatchVecEnv) -> Any:  # noqa: ANN401  # handed on
        seen[0] += 1
        if seen[0] == 9:
            raise OSError("the ball is lost")
        return step(env)

    monkeypatch.setattr(CatchVecEnv, "step_wait", broken)
    told = refusal(capsys, main, ["predict", *arguments_of(trained)])
    assert told == "model.game=catch: environment 0 failed in step 9: OSError: the ball is lost"


# ------------------------------------------------------------------ two processes


def by_two_processes(folder: Path, *command: str) -> str:
    """Run a command in two processes, and return what both print."""
    log, errors = folder / "log.txt", folder / "errors.txt"
    forked.run("rl", *command, *TWO_PROCESSES, log=log, errors=errors, processes=2)
    assert errors.read_text() == ""
    return log.read_text()


@pytest.mark.usefixtures("no_pictures")
def test_two_processes_play_the_games_of_one(trained: Path, tmp_path: Path) -> None:
    # Three environments with five episodes: one process has one of them, the other one two.
    command = ["test", *arguments_of(trained, "--data.num_eval_envs=3", "--data.test_episodes=5")]
    by_two_processes(tmp_path, *command)
    together = newest(trained, "default")
    main(command)
    alone = newest(trained, "default")
    assert read_summary(together)["world_size"] == 2
    assert metrics_of(alone) == pytest.approx(metrics_of(together))
    assert episodes_of(alone) == episodes_of(together)
    assert len(episodes_of(alone)) == 5
    assert {row["human_normalised"] for row in episodes_of(alone)} == {""}, "Catch by other rules than its own"
    assert len({row["score"] for row in episodes_of(alone)}) > 1, "a test of nothing else"
    films = [(run / "pictures" / "episode.gif").read_bytes() for run in (alone, together)]
    assert films[0] == films[1]


def test_two_processes_share_a_prediction(trained: Path, tmp_path: Path) -> None:
    told = by_two_processes(tmp_path, "predict", *arguments_of(trained, "--data.predict_episodes=3"))
    predicted = newest(trained, "default") / "predictions"
    assert sorted(path.name for path in predicted.iterdir()) == ["000.gif", "001.gif", "002.gif"]
    assert sorted(re.findall(r"^episode (\d): score", told, re.MULTILINE)) == ["0", "1", "2"]


def test_each_process_trains_in_as_many_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RLData, "_processes", lambda data: (1, 2))
    data = RLData(num_envs=3)
    allowed = "must be a multiple of the number of processes, 2 (trainer.devices times trainer.num_nodes)"
    with pytest.raises(ValueError, match=f"^data.num_envs=3: {re.escape(allowed)}$"):
        data.setup("fit")
    data.setup("test")
    RLData(num_envs=4).setup("fit")


# ------------------------------------------------------------------ pictures


def test_coordinates_are_drawn_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl.pictures, "_OBSERVATIONS", 1)
    plain = RLPictures().draw(A2C(coords="none"), RLData())
    drawn = RLPictures().draw(A2C(coords="xy"), RLData())
    assert list(plain) == ["attention"]
    assert list(drawn) == ["attention", "coordinates"]
    assert drawn["attention"].height > plain["attention"].height, "once more with the coordinates taken away"
