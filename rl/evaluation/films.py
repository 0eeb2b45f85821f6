"""Film one episode and write it as a GIF."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw
from stable_baselines3.common.preprocessing import is_image_space

from coordconv_apps.utils.errors import one_line
from coordconv_apps.utils.files import atomic_write
from coordconv_apps.utils.fonts import pillow_font, readable
from rl.envs.images import is_channels_last
from rl.evaluation.play import evaluation_mode, play
from rl.observations import observation_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import VecEnv

    from rl.evaluation.play import Player

STEPS_PER_SECOND = 15.0
"""Steps of an Atari agent: the console shows 60 frames a second, and the agent acts on every fourth."""

MAX_BYTES = 2_000_000
"""Largest size of a GIF."""

MAX_STEPS = 30_000
"""Default of the largest number of steps in a film. Atari games are cut off before."""

_WIDTH = 256
"""Frames are enlarged by the integer factor that brings them nearest to this width, in pixels."""

_COLOURS = 128
"""Number of colours of the palette that all frames share: those of an Atari."""

_PALETTE_FRAMES = 32
"""Number of frames sampled for the palette if all frames together have too many colours."""

_BAR, _FONT_SIZE, _MARGIN = 24, 14, 6
_BACKGROUND, _TEXT_COLOUR = "#20242a", "#eceff1"
_SHORTEST, _LONGEST, _LAST = 20, 200, 1000  # display times of frames in milliseconds; viewers slow down below 20


class Film(NamedTuple):
    """Frames and scores of one episode."""

    frames: NDArray[np.uint8]  # (T, H, W, 3)
    scores: NDArray[np.float64]  # (T,), sum of the rewards before each frame; the last is the score of the episode
    every: int  # steps between frames; the last frame may come after fewer
    length: int  # of the episode, in steps of the agent
    complete: bool  # whether the episode ended by itself


def image_keys(space: spaces.Space[Any]) -> list[Any]:
    """Return the keys of the images in a Dict space; ``[None]`` for a space of images; raise `ValueError` for others.

    Images are uint8, 0 to 255. If there are none, all arrays of three axes are taken for images.
    """
    parts: Mapping[Any, spaces.Space[Any]] = space.spaces if isinstance(space, spaces.Dict) else {None: space}
    for any_range in (False, True):
        keys = [key for key, part in parts.items() if is_image_space(cast("spaces.Box", part), False, any_range)]
        if keys:
            return keys
    raise ValueError(f"observation_space={one_line(str(space))}: must be an image, or a Dict with one in it")


def newest_frame(observation: Any, space: spaces.Space[Any]) -> NDArray[np.uint8]:  # noqa: ANN401  # or a dict
    """Return the newest frame of an observation as an RGB image, uint8 ``(H, W, 3)``.

    It consists of the last three channels where the number of channels is a multiple of three, otherwise of the last
    channel in grey. The observation has no batch axis: an image with its channels first or last, or a dict, whose
    images are shown beside each other.

    Example:
        >>> from gymnasium import spaces
        >>> stack = np.zeros((4, 84, 84), np.uint8)
        >>> newest_frame(stack, spaces.Box(0, 255, stack.shape, np.uint8)).shape
        (84, 84, 3)
    """
    if isinstance(space, spaces.Dict):
        return _side_by_side([newest_frame(observation[key], space[key]) for key in image_keys(space)])
    image_keys(space)  # raises
    image, box = observation, cast("spaces.Box", space)
    if box.dtype != np.uint8:
        low, high = float(box.low.min()), float(box.high.max())
        if not np.isfinite([low, high]).all():
            low, high = float(image.min()), float(image.max())
        image = ((image - low) / max(high - low, 1e-6) * 255).clip(0, 255).round().astype(np.uint8)
    image = np.moveaxis(image, -1 if is_channels_last(box) else 0, -1)
    image = image[..., -3:] if image.shape[-1] % 3 == 0 else image[..., -1:]
    picture: NDArray[np.uint8] = np.broadcast_to(image, (*image.shape[:2], 3)).copy()
    return picture


def _side_by_side(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Join frames of any sizes, from left to right: each is enlarged by the largest integer that fits the tallest."""
    height = max(len(frame) for frame in frames)
    zoomed = [frame.repeat(height // len(frame), 0).repeat(height // len(frame), 1) for frame in frames]
    return np.concatenate([np.pad(frame, ((0, height - len(frame)), (0, 0), (0, 0))) for frame in zoomed], axis=1)


def film_episode(
    player: Player,
    env: VecEnv,
    *,
    deterministic: bool,
    seed: int,
    max_frames: int = 600,
    max_steps: int = MAX_STEPS,
    rendered: bool = False,
    show: Callable[[NDArray[np.uint8]], None] | None = None,
) -> Film:
    """Play one episode in the first environment and record its frames.

    Each frame shows the state before a step with the score so far; the last frame shows the end of the episode. The
    frame rate of a long episode is halved until it fits ``max_frames``.

    Args:
        player: Policy or algorithm. Its networks are in evaluation mode meanwhile.
        env: Environments. They are seeded and reset.
        deterministic: Whether to take the most probable actions instead of sampling.
        seed: As for `rl.evaluation.episodes.play_episodes`, whose first episode this is.
        max_frames: Largest number of frames, an even number.
        max_steps: Steps after which the episode is cut off.
        rendered: Whether to film what the environment renders instead of the player's observations. After the end, an
            environment renders the next episode already, so that the last frame is the one before the last step, with
            the final score.
        show: Called with the frame of every step, uint8 ``(H, W, 3)``, before the film is complete.

    Raises:
        ValueError: ``rendered`` is set and the environment renders no images.
    """
    if rendered and env.render_mode != "rgb_array":
        raise ValueError(f"rendered=True: the environment's render_mode is {env.render_mode}; must be rgb_array")
    space = env.observation_space
    frames: list[NDArray[np.uint8]] = []
    scores: list[float] = []
    every, score = 1, 0.0
    rendering: list[Any] = []

    def render() -> None:
        rendering[:] = [np.array(env.get_images()[0], np.uint8)]

    steps = play(player, env, deterministic=deterministic, seed=seed, before=render if rendered else None)
    with evaluation_mode(player):
        for number, step in enumerate(steps):
            if number % every == 0 and len(frames) == max_frames - 1:  # one is for the end
                frames, scores, every = frames[::2], scores[::2], 2 * every
            if number % every == 0 or show is not None:
                frame = rendering[0] if rendered else newest_frame(observation_at(step.observations, 0), space)
            if show is not None:
                show(frame)
            if number % every == 0:
                frames.append(frame)
                scores.append(score)
            score += float(step.rewards[0])
            if step.over[0] or number + 1 == max_steps:
                break
    reported = step.infos[0].get("episode", {}) if step.over[0] else {}
    ending = step.infos[0].get("terminal_observation")
    if number % every if rendered else ending is not None:
        frames.append(rendering[0] if rendered else newest_frame(ending, space))
        scores.append(score)
    scores[-1] = float(reported.get("r", score))
    return Film(np.stack(frames), np.array(scores), every, number + 1, bool(step.over[0]))


def make_gif(film: Film, title: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Encode a film as a GIF: the frames, enlarged, below a bar with a title and the score.

    Films with few frames of a long episode play faster than `STEPS_PER_SECOND`.

    Args:
        film: The film.
        title: Title, such as the game's name.
        max_bytes: Every other frame is dropped until the file is no larger.
    """
    zoom = max(1, round(_WIDTH / film.frames.shape[2]))

    def titled(number: int) -> Image.Image:
        return _titled(film.frames[number], title, f"score {film.scores[number]:.10g}", zoom)

    count = len(film.frames)
    samples = [titled(round(place)) for place in np.linspace(0, count - 1, min(_PALETTE_FRAMES, count))]
    palette = _shared_palette(film.frames, samples)
    # One at a time, because all of them in full colour would take hundreds of megabytes.
    pictures = [titled(number).quantize(palette=palette, dither=Image.Dither.NONE) for number in range(count)]
    shown = 1000 * film.every / STEPS_PER_SECOND
    while True:
        buffer = io.BytesIO()
        durations = [round(min(max(shown, _SHORTEST), _LONGEST))] * (len(pictures) - 1) + [_LAST]
        pictures[0].save(
            buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False
        )
        content = buffer.getvalue()
        if len(content) <= max_bytes or len(pictures) <= 2:
            return content
        pictures, shown = [*pictures[:-1:2], pictures[-1]], 2 * shown


def write_gif(path: Path, film: Film, title: str) -> None:
    """Write a film as a GIF, atomically."""
    content = make_gif(film, title)
    with atomic_write(path, "wb") as file:
        file.write(content)


def _titled(frame: NDArray[np.uint8], title: str, score: str, zoom: int) -> Image.Image:
    """Return a frame below a bar with the title on the left and the score on the right, which hides a long title."""
    height, width = frame.shape[:2]
    picture = Image.new("RGB", (width * zoom, height * zoom + _BAR), _BACKGROUND)
    picture.paste(Image.fromarray(frame).resize((width * zoom, height * zoom), Image.Resampling.NEAREST), (0, _BAR))
    draw, middle, title = ImageDraw.Draw(picture), _BAR // 2, readable(title)
    draw.text((_MARGIN, middle), title, _TEXT_COLOUR, pillow_font(title, _FONT_SIZE), anchor="lm")
    place, font = (picture.width - _MARGIN, middle), pillow_font(score, _FONT_SIZE)
    left = draw.textbbox(place, score, font, anchor="rm")[0]
    draw.rectangle((left - _MARGIN, 0, picture.width, _BAR - 1), _BACKGROUND)
    draw.text(place, score, _TEXT_COLOUR, font, anchor="rm")
    return picture


def _shared_palette(frames: NDArray[np.uint8], samples: Sequence[Image.Image]) -> Image.Image:
    """Return one palette for all frames: frames with palettes of their own flicker and take more bytes.

    If the frames have few colours, as drawn games do, the palette has all of them, including a flash in a single
    frame. Otherwise it comes from the sample frames.
    """
    seen = np.zeros(2**24, bool)
    for frame in frames:
        seen[frame.astype(np.int32) @ np.array([2**16, 2**8, 1], np.int32)] = True
    (found,) = np.nonzero(seen)
    if len(found) > _COLOURS:
        pixels = np.concatenate([np.asarray(picture) for picture in samples])
    else:
        drawn = np.stack([found >> 16, found >> 8 & 255, found & 255], -1).astype(np.uint8)
        pixels = np.concatenate([drawn, np.asarray(samples[0])[:_BAR].reshape(-1, 3)])[None]
    return Image.fromarray(pixels).quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
