"""Exponential moving average of networks, with warm-up.

`coordconv_apps.training.weight_averaging` does not fit here. It averages the whole task, including the discriminator of
a GAN, and uses the average during validation only, while samples are also drawn at other times. It also has no warm-up:
a decay of 0.999 takes thousands of steps to forget the initial weights, and a quick start has six thousand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def moving_average(networks: nn.Module, decay: float) -> AveragedModel:
    """Return an average that starts from the networks' weights; its ``update_parameters`` adds their next weights.

    The first updates have a smaller decay, ``(1 + n) / (10 + n)``. Buffers are averaged, too.
    """

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        if average[0].is_floating_point():
            ema = get_ema_multi_avg_fn(min(decay, (1 + int(updates)) / (10 + int(updates))))
            ema(list(average), list(current), updates)
        else:  # the number of batches that a batch norm has seen
            for old, new in zip(average, current, strict=True):
                old.copy_(new)

    return AveragedModel(networks, multi_avg_fn=update, use_buffers=True).requires_grad_(False)
