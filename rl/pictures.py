"""Draw which pixels matter to a policy, with its coordinates and without them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from PIL import Image

from coordconv_apps.training.pictures import Pictures
from coordconv_apps.utils.files import file_name
from coordconv_apps.utils.plotting import as_picture
from rl.data import EVALUATION_SEEDS, RLData
from rl.evaluation.films import image_keys
from rl.evaluation.saliency import coordinate_maps, sample_observations, without_coordinates
from rl.evaluation.saliency_figures import draw_coordinate_maps, draw_saliency
from rl.tasks.base import RLTask

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule

    from rl.evaluation.play import Player

_OBSERVATIONS = 5
_DPI = 90


class RLPictures(Pictures):
    """Draw the saliency of a policy's value and action, and the maps that coordinates add to its first convolution."""

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Play some steps, and draw "attention" and, with coordinates, "coordinates".

        With several images in a Dict, there are pictures for each, such as "attention_camera".
        """
        if not (isinstance(task, RLTask) and isinstance(datamodule, RLData)):
            raise TypeError(f"{type(self).__name__} cannot draw {type(task).__name__} with {type(datamodule).__name__}")
        seed = EVALUATION_SEEDS["test"]
        with closing(datamodule.open_evaluation_envs(task.game, task.env_options, 1, seed)) as env:
            seen = sample_observations(
                task.policy, env, _OBSERVATIONS, deterministic=datamodule.deterministic, seed=seed
            )
        players: dict[str, Player] = {f"coords={task.coords}": task.policy}
        if task.coords != "none":
            players["coordinates taken away"] = without_coordinates(task.policy)
        pictures = {}
        keys = image_keys(task.observation_space)
        for key in keys:
            end = "" if len(keys) == 1 else f"_{file_name(key)}"
            pictures[f"attention{end}"] = as_picture(draw_saliency(players, seen, key=key), _DPI)
            maps = coordinate_maps(task.policy, seen, key)
            if maps is not None:
                pictures[f"coordinates{end}"] = as_picture(draw_coordinate_maps(maps), _DPI)
        return pictures
