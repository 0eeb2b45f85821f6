"""A film shows one episode from its first to its last frame, in a file of bounded size."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import VecTransposeImage

from rl.envs.atari import AtariVecEnv
from rl.evaluation.episodes import play_episodes
from rl.evaluation.films import Film, film_episode, image_keys, make_gif, newest_frame
from rl.evaluation.play import play
from tests.rl.tiny import SIDE, make_a2c, make_env


def stills(content: bytes) -> list[NDArray[np.uint8]]:
    with Image.open(io.BytesIO(content)) as gif:
        found = []
        for number in range(getattr(gif, "n_frames", 1)):
            gif.seek(number)
            found.append(np.asarray(gif.convert("RGB")))
    return found


def test_film_is_the_first_episode_frame_by_frame() -> None:
    model = make_a2c()
    env = make_env(2)
    film = film_episode(model, env, deterministic=False, seed=3)
    episode = play_episodes(model, env, 2, deterministic=False, seed=3)
    assert film.length == episode.lengths[0] > 2
    assert film.complete
    assert film.every == 1
    assert len(film.frames) == len(film.scores) == film.length + 1
    assert film.scores[0] == 0
    assert film.scores[-1] == pytest.approx(episode.scores[0])
    rewards = []
    for frame, step in zip(film.frames, play(model, env, deterministic=False, seed=3), strict=False):
        np.testing.assert_array_equal(frame, np.stack([step.observations[0, 1]] * 3, axis=-1))
        rewards.append(step.rewards[0])
        if step.over[0]:
            np.testing.assert_array_equal(film.frames[-1][..., 0], step.infos[0]["terminal_observation"][1])
            break
    np.testing.assert_allclose(np.diff(film.scores), rewards, rtol=1e-5)


def test_long_episodes_are_filmed_at_fewer_frames() -> None:
    model = make_a2c()
    full = film_episode(model, make_env(2), deterministic=True, seed=0)
    assert full.length >= 5
    few = film_episode(model, make_env(2), deterministic=True, seed=0, max_frames=4)
    assert 2 < len(few.frames) <= 4
    assert few.every >= 2
    np.testing.assert_array_equal(few.frames[:-1], full.frames[: -1 : few.every])
    np.testing.assert_array_equal(few.scores[:-1], full.scores[: -1 : few.every])
    np.testing.assert_array_equal(few.frames[-1], full.frames[-1])
    assert (few.length, few.scores[-1]) == (full.length, full.scores[-1])


def test_films_are_cut_and_say_so() -> None:
    film = film_episode(make_a2c(), make_env(2), deterministic=True, seed=0, max_steps=1)
    assert (film.length, film.complete, len(film.frames)) == (1, False, 1)


def test_what_is_rendered_is_filmed_instead() -> None:
    env = make_env(2, render_mode="rgb_array")
    film = film_episode(make_a2c(), env, deterministic=True, seed=0, rendered=True)
    assert film.frames.shape[1:] == (SIDE, SIDE + 2, 3)
    # The game draws the number of steps that are left.
    assert film.frames[:, 0, 0, 0].tolist() == list(range(film.length, 0, -1))
    seen = film_episode(make_a2c(), make_env(2), deterministic=True, seed=0)
    assert (film.length, film.complete) == (seen.length, seen.complete)
    np.testing.assert_array_equal(film.scores, [*seen.scores[:-2], seen.scores[-1]])


def test_what_is_rendered_is_filmed_to_the_last_step() -> None:
    env = make_env(2, render_mode="rgb_array")
    film = film_episode(make_a2c(), env, deterministic=True, seed=0, rendered=True, max_frames=4)
    kept = list(range(film.length, 0, -film.every))
    assert film.every > 1
    assert len(film.frames) == len(film.scores) <= 4
    assert film.frames[:, 0, 0, 0].tolist() == (kept if kept[-1] == 1 else [*kept, 1])


def test_a_film_in_colour_is_of_the_episode_that_one_of_observations_shows() -> None:
    options: dict[str, Any] = {"episodic_life": False, "clip_rewards": False, "repeat_action_probability": 0.25}
    player = A2C("CnnPolicy", AtariVecEnv("breakout", 1), seed=0, device="cpu")
    settings: dict[str, Any] = {"deterministic": False, "seed": 4, "max_frames": 1000}
    plain = film_episode(player, AtariVecEnv("breakout", 1, **options), **settings)
    env = AtariVecEnv("breakout", 1, render_mode="rgb_array", **options)
    film = film_episode(player, env, rendered=True, **settings)
    assert (film.length, film.complete) == (plain.length, plain.complete) == (len(film.frames), True)
    np.testing.assert_array_equal(film.scores, [*plain.scores[:-2], plain.scores[-1]])
    assert film.scores[-1] > 0
    greys = (film.frames @ np.array([0.299, 0.587, 0.114])).mean((1, 2))
    np.testing.assert_allclose(greys, plain.frames[:-1, ..., 0].mean((1, 2)), atol=0.5)
    with Image.open(io.BytesIO(make_gif(film, "breakout"))) as gif:
        assert gif.size == (320, 420 + 24)


def test_an_environment_that_renders_nothing_cannot_be_filmed_in_colour() -> None:
    with pytest.raises(ValueError, match="rendered=True: the environment's render_mode is None; must be rgb_array"):
        film_episode(make_a2c(), make_env(2), deterministic=True, seed=0, rendered=True)


# ------------------------------------------------------------------------ frames


def test_newest_frame_is_the_last_of_a_stack() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (4, 40, 50), dtype=np.uint8)
    for image in (stack, np.moveaxis(stack, 0, -1)):
        frame = newest_frame(image, spaces.Box(0, 255, image.shape, np.uint8))
        np.testing.assert_array_equal(frame, np.stack([stack[3]] * 3, axis=-1))


def test_newest_frame_of_colours_is_in_colour() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (6, 40, 50), dtype=np.uint8)
    for image in (stack, stack[3:], np.moveaxis(stack, 0, -1)):
        frame = newest_frame(image, spaces.Box(0, 255, image.shape, np.uint8))
        np.testing.assert_array_equal(frame, np.moveaxis(stack[3:], 0, -1))


@pytest.mark.parametrize("high", [1.0, np.inf])
def test_other_numbers_become_bytes(high: float) -> None:
    image = np.linspace(0, 1, 40 * 40, dtype=np.float32).reshape(1, 40, 40)
    space = spaces.Box(0.0 if high == 1 else -np.inf, high, image.shape, np.float32)
    np.testing.assert_array_equal(newest_frame(image, space)[..., 1], np.round(image[0] * 255).astype(np.uint8))


def test_image_of_a_dict_is_found() -> None:
    env = VecTransposeImage(make_env(2, kind="dict", shape=(SIDE, SIDE, 3)))
    assert image_keys(env.observation_space) == ["image"]
    observation: Any = env.observation_space.sample()
    np.testing.assert_array_equal(
        newest_frame(observation, env.observation_space), np.moveaxis(observation["image"], 0, -1)
    )


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.Dict({"vector": spaces.Box(-1, 1, (3,))})])
def test_observations_without_an_image_are_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"^observation_space=.*: must be an image, or a Dict with one in it$"):
        image_keys(space)


# ------------------------------------------------------------------------- files


def noisy_film(count: int, side: int = 84) -> Film:
    """A grey ground with a ball and paddles that move, as in Pong, and some noise."""
    generator = np.random.default_rng(0)
    frames = np.full((count, side, side, 3), 87, np.uint8)
    for number in range(count):
        x, y = (number * 3) % (side - 4), (number * 2) % (side - 4)
        frames[number, y : y + 3, x : x + 2] = 236
        frames[number, y : y + 12, 6:9] = 147
        frames[number, generator.integers(0, side - 12) :, -9:-6] = 110
    return Film(frames, np.arange(count, dtype=np.float64) - 20, 2, 2 * count, True)


def test_gif_shows_the_frames_enlarged_below_the_score() -> None:
    film = noisy_film(12)
    pictures = stills(make_gif(film, "Pong"))
    assert len(pictures) == 12
    for frame, picture in zip(film.frames, pictures, strict=True):
        body = picture[-3 * 84 :]
        assert body.shape == (252, 252, 3)
        shades = np.abs(body[1::3, 1::3].astype(int) - frame.astype(int))
        assert shades.max() <= 8, "few colours, but near to the true ones"
    bars = [picture[: -3 * 84] for picture in pictures]
    assert all((bar != bars[0]).any() for bar in bars[1:]), "the score changes"
    with Image.open(io.BytesIO(make_gif(film, "Pong"))) as gif:
        assert gif.info["loop"] == 0
        assert gif.info["duration"] == pytest.approx(1000 * 2 / 15, abs=10)


def test_gif_of_a_long_film_stays_small() -> None:
    film = noisy_film(100)
    full = make_gif(film, "Pong")
    small = make_gif(film, "Pong", max_bytes=len(full) // 3)
    assert len(small) <= len(full) // 3
    assert 10 <= len(stills(small)) < len(stills(full)) == 100
    np.testing.assert_array_equal(stills(small)[-1], stills(full)[-1])


@pytest.mark.parametrize("title", ["Pong", "my_games:LunarLander-v3, coords=xyr"])
def test_scores_are_shown_in_all_digits(title: str) -> None:
    film = noisy_film(1)
    bars = [
        stills(make_gif(film._replace(scores=np.array([score])), title))[0][: -3 * 84] for score in (1234567, 1234568)
    ]
    assert (bars[0] != bars[1]).any()


def test_a_flash_has_its_colour() -> None:
    film = noisy_film(100)
    film.frames[49] = (12, 200, 34)
    shown = stills(make_gif(film, "Pong"))[49][-3 * 84 :].astype(int)
    assert np.abs(shown - (12, 200, 34)).max() <= 8


def test_many_colours_become_few_that_are_near() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 84, 84, 3), np.uint8)
    film = Film(frames, np.zeros(3), 1, 3, True)
    pictures = stills(make_gif(film, "Noise"))
    assert 64 < len(np.unique(np.concatenate(pictures).reshape(-1, 3), axis=0)) <= 128
    errors = [np.abs(p[-3 * 84 :][1::3, 1::3].astype(int) - f) for p, f in zip(pictures, frames, strict=True)]
    assert np.mean(errors) < 40
