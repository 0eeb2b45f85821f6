"""``predict`` of a task in Python: from a checkpoint, as the command line has it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from stable_baselines3.common.evaluation import evaluate_policy

from classification.tasks import Classifier
from coordconv_apps.coordinates import CoordinateClassification, CoordinateRegression, CoordinateRendering
from coordconv_apps.coordinates.not_so_clevr import all_centers, one_hot
from detection import FasterRCNN
from generative.tasks import GAN, VAE
from rl.data import PREDICTION_SEED
from rl.envs.games import open_envs
from rl.tasks import A2C, DQN, PPO
from tests.classification import tiny as classification
from tests.helpers.trainers import OWN_TRAINER

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    *OWN_TRAINER,
    pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped:UserWarning"),
]


@pytest.mark.parametrize("eval_resize", [None, 20])
def test_a_classifier_predicts_as_the_command_does(tmp_path: Path, eval_resize: int | None) -> None:
    folder = classification.save_parts(tmp_path / "images")
    data = classification.data(folder, predict_images=str(folder / "val"), eval_resize=eval_resize)
    task = classification.task(coords="xyr", weights=str(classification.weights_file(tmp_path / "weights.pt")))
    trainer = classification.trainer(tmp_path)
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    outputs = trainer.predict(task, data)
    assert outputs is not None
    expected = torch.cat([batch.probabilities for batch in outputs])  # type: ignore[union-attr]
    paths = [path for batch in outputs for path in batch.paths]  # type: ignore[union-attr]

    loaded = Classifier.load_from_checkpoint(tmp_path / "last.ckpt").train()
    loaded.network.eval()  # a part in another mode stays in it
    modes = [module.training for module in loaded.modules()]
    found = loaded.predict(paths, batch_size=5)
    assert [module.training for module in loaded.modules()] == modes
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found.std(0).max() > 1e-3, "images are told apart"
    torch.testing.assert_close(loaded.predict([Image.open(path) for path in paths]), expected, rtol=1e-5, atol=1e-6)
    assert loaded.class_names == data.class_names
    assert loaded.predict([]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"^batch_size=-1: must be an integer of at least 1$"):
        loaded.predict(paths, batch_size=-1)


def test_a_detector_of_torchvision_sees_photographs_before_any_training() -> None:
    """Such as one with pretrained weights; neither gray nor with inverted ink."""
    size: dict[str, int | float] = {"min_size": 64, "max_size": 64}
    detector = FasterRCNN(num_classes=3, network="fasterrcnn_mobilenet_v3_large_320_fpn", network_args=size)
    seen: list[torch.Tensor] = []
    detector.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    photo = np.full((64, 64, 3), 255, np.uint8)
    photo[10:40, 10:40] = (255, 0, 51)
    detector.predict(photo)
    torch.testing.assert_close(seen[0], torch.from_numpy(photo).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("method", [GAN, VAE])
def test_a_generator_predicts_images(method: type[GAN | VAE]) -> None:
    task = method(coords="xy", image_size=16, width=4)
    first = task.predict(3)
    assert first.shape == (3, 3, 16, 16)
    assert 0 <= first.min() < first.max() <= 1
    assert torch.equal(task.predict(2), first[:2])
    assert not torch.equal(task.predict(2, seed=5), first[:2])
    torch.testing.assert_close(task.predict(task.draw_latents(3, 2)), first)
    for wrong, message in (
        (0, "latents=0: must be an integer of at least 1"),
        (torch.zeros(2, 3), "latents of shape (2, 3)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            task.predict(wrong)


def test_coordinate_tasks_predict_for_centers() -> None:
    centers = [(10, 20), (32, 32)]
    pixels = CoordinateClassification(coords="xy").predict(centers)
    torch.testing.assert_close(pixels.sum((1, 2)), torch.ones(2))
    regression = CoordinateRegression(coords="xy")
    torch.testing.assert_close(
        regression.predict(np.array(centers, np.uint16)), regression.eval()(torch.tensor(centers)[:, None]).detach()
    )
    small = CoordinateRegression(coords="xy", canvas_size=8, square_size=3, coord_gain=0.0)
    everywhere = all_centers(8, 1)  # on the border, too, where no square of the data lies
    images = one_hot(everywhere[:, None], 8)[:, None]
    torch.testing.assert_close(small.predict(everywhere), 8 * small.network(images).detach(), rtol=1e-4, atol=1e-4)
    rendering = CoordinateRendering(coords="xy", objects=2)
    images = rendering.predict([centers])
    assert images.shape == (1, 64, 64)
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize(
    ("centers", "message"),
    [
        ([(1, 2, 3)], "centers of shape (1, 3): must be (N, 2)"),
        ([(1, 64)], "centers=[[1, 64]]: must be integers from 0 to 63"),
        ([(-1, 2)], "centers=[[-1, 2]]: must be integers from 0 to 63"),
        ([(0.5, 2.0)], "centers=[[0.5, 2.0]]: must be integers from 0 to 63"),
    ],
)
def test_wrong_centers_are_refused(centers: list[tuple[float, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        CoordinateClassification(coords="xy").predict(centers)
    with pytest.raises(ValueError, match=re.escape("centers of shape (1, 2): must be (N, 2, 2)")):
        CoordinateRendering(coords="xy", objects=2).predict([(1, 2)])


@pytest.mark.parametrize("method", [A2C, PPO, DQN])
def test_an_rl_task_plays_in_plain_stable_baselines3(method: type[A2C | PPO | DQN]) -> None:
    task = method(game="catch", coords="xy")
    env = open_envs("catch", 2, PREDICTION_SEED, task.env_options)
    observations = env.reset()
    assert isinstance(observations, np.ndarray)
    actions, state = task.predict(observations, deterministic=True)
    assert state is None
    assert np.array_equal(actions, task.policy.predict(observations, deterministic=True)[0])
    scores, lengths = evaluate_policy(task, env, 2, return_episode_rewards=True)
    assert len(scores) == len(lengths) == 2  # type: ignore[arg-type]
    env.close()
