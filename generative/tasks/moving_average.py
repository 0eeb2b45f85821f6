"""Exponential moving average of networks, with warm-up.

The callback `coordconv_apps.training.weight_averaging.Averaging` does not fit here. It averages the whole task,
including the discriminator of a GAN, and uses the average during validation only, while samples are also drawn at other
times. It also has no warm-up: a decay of 0.999 takes thousands of steps to forget the initial weights, and a quick
start has six thousand.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from coordconv_apps.training.weight_averaging import Tensors, ema_update_fn


def moving_average(networks: nn.Module, decay: float) -> AveragedModel:
    """Return an average that starts from the networks' weights; its ``update_parameters`` adds their next weights.

    The first updates have a smaller decay, ``(1 + n) / (10 + n)``. Buffers are averaged, too.
    """

    def update(averages: Tensors, values: Tensors, updates: Tensor | int) -> None:
        number = int(updates)
        ema_update_fn(min(decay, (1 + number) / (10 + number)))(averages, values, number)

    return AveragedModel(networks, multi_avg_fn=update, use_buffers=True).requires_grad_(False)
