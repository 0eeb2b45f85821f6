"""Load trained weights from files into classifiers, also those of another number of classes."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from torch import nn

from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.weight_files import State, load_fitting_state, part_of_state, read_state

logger = logging.getLogger(__name__)

AUXILIARY = ("AuxLogits", "aux1", "aux2")
"""Auxiliary heads of Inception and GoogLeNet, which they have for training only."""

_DENSENET_BEFORE_2018 = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def read_weights(path: Path, network: nn.Module) -> State:
    """Read the weights of a network from a file, by the network's own parameter names.

    Args:
        path: A state dict, or a checkpoint that contains one. The network may be part of a larger module there, such
            as a Lightning task or a parallel or compiled network; the rest is left out.
        network: The network without stem and coordinates.

    Raises:
        ValueError: The file is not of this kind, or contains more than tensors and plain values.
    """
    state = {_DENSENET_BEFORE_2018.sub(r"\1\2.", name): value for name, value in read_state(path, "weights").items()}
    own = part_of_state(state, network.state_dict().keys())
    return {name: value for name, value in own.items() if name.partition(".")[0] not in AUXILIARY}


def fit_head(state: State, network: nn.Module, head: str) -> None:
    """Remove the last layer ``head`` from a state if the network has another number of classes, and say so."""
    wanted, found = network.get_parameter(f"{head}.weight"), state.get(f"{head}.weight")
    if found is None or found.shape[0] == wanted.shape[0] or found.shape[1:] != wanted.shape[1:]:
        return
    for name in [name for name in state if name.startswith(f"{head}.")]:
        del state[name]
    warn_of_new_head(head, wanted.shape[0], found.shape[0])


def warn_of_new_head(head: str, num_classes: int, of_weights: int) -> None:
    """Say once that the last layer ``head`` starts from random values, since trained weights are of other classes."""
    if is_main_process():
        line = "weights: the last layer %s is new: %d classes, the weights have %d"
        logger.warning(line, head, num_classes, of_weights)


def load_weights(network: nn.Module, state: State, path: object, head: str) -> None:
    """Load a state into a network, see `load_fitting_state`; all of the last layer ``head`` may be missing.

    Raises:
        ValueError: They do not fit the network; ``path`` is the file that the message names.
    """
    new = () if f"{head}.weight" in state else (f"{head}.weight", f"{head}.bias")
    load_fitting_state(network, state, "the same network", f"weights={str(path)!r}", new)
