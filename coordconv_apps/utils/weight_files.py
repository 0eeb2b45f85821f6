"""Read trained weights from files that torch saved, state dicts or checkpoints that contain one, and load them."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from coordconv_apps.utils.errors import abbreviate_names
from coordconv_apps.utils.files import check_regular_file
from coordconv_apps.utils.torch_files import UnboundedFile, check_torch_file

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

State = dict[str, Tensor]

_HOLDERS = ("state_dict", "model_state_dict", "model")
"""Keys of the state dict in checkpoints of Lightning, tutorials, and torchvision's training scripts."""

_MAX_DEPTH = 4
"""Largest number of such keys above the state dict; a damaged file may contain itself."""


def read_state(path: Path, argument: str) -> State:
    """Read the state dict in a file that is one, or a checkpoint that contains one.

    Args:
        path: The file.
        argument: The argument that names it, for messages.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The file is not of this kind, or contains more than tensors and plain values, or takes
            more memory or time than its size allows.
    """
    where = f"{argument}={str(path)!r}"
    try:
        check_regular_file(path)
        check_torch_file(path, where)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{where}: must be a file of tensors and plain values, which torch.load(weights_only=True) opens"
        ) from error
    except (OSError, UnboundedFile):  # they name the file
        raise
    except Exception as error:  # damaged files raise errors of many kinds
        raise ValueError(f"{where}: must be a file of weights; this one cannot be read") from error
    for _ in range(_MAX_DEPTH):
        if isinstance(content, dict):
            content = next((content[key] for key in _HOLDERS if isinstance(content.get(key), dict)), content)
    items = content.items() if isinstance(content, dict) else ()
    state = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"{where}: must hold a state dict")
    return state


def read_published(weights: WeightsEnum) -> State:
    """Read the state dict of published weights of torchvision, which are downloaded once.

    Others may be able to write to the cache, and torchvision itself opens the file as a pickle, which can run code.

    Raises:
        OSError: The weights cannot be downloaded.
        RuntimeError: The download is damaged, or the file in the cache contains more than tensors and plain values.
    """
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except pickle.UnpicklingError as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise RuntimeError(f"{file} contains more than tensors and plain values; remove it") from error
    return state


def part_of_state(state: State, names: Collection[str]) -> State:
    """Return the weights of one network from the state of a larger module that contains it, by the network's ``names``.

    The larger module may be a Lightning task, or a parallel or compiled network.

    >>> state = {"module.net.weight": torch.zeros(2), "module.net.bias": torch.zeros(1), "loss": torch.zeros(1)}
    >>> sorted(part_of_state(state, ["weight", "bias"]))
    ['bias', 'weight']
    """
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in names:
                found["".join(f"{part}." for part in parts[:depth])] += 1
    prefix = found.most_common(1)[0][0] if found else ""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def load_fitting_state(network: nn.Module, state: State, name: str, where: str, new: Collection[str] = ()) -> None:
    """Load weights into a network; raise `ValueError` if they do not fit.

    Weights named in ``new`` may be missing, and so may coordinate weights, which start at 0, and batch counts, which
    old files lack. Messages start with ``where``, the argument and its value, and say that weights must be of ``name``.
    """
    own = network.state_dict()
    optional = (".coord_weight", ".num_batches_tracked")
    complaints = {
        "not in the file": [key for key in own if key not in state and key not in new and not key.endswith(optional)],
        "not in the network": [key for key in state if key not in own],
        "of another shape": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    listed = "; ".join(f"{abbreviate_names(keys, 3)} {words}" for words, keys in complaints.items() if keys)
    if listed:
        raise ValueError(f"{where}: must be of {name}: {listed}")
    own.clear()  # an attribute of it holds the versions of the layers, which torchvision's mnasnet requires
    own.update(state)
    network.load_state_dict(own, strict=False)
