"""Load trained weights from files: state dicts, or checkpoints that contain one, of a network or a part of one."""

from __future__ import annotations

import logging
import pickle
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from coordconv_apps.utils.errors import abbreviate_names
from coordconv_apps.utils.files import check_regular_file

logger = logging.getLogger(__name__)

State = dict[str, Tensor]

_HOLDERS = ("state_dict", "model_state_dict", "model")
"""Keys of the state dict in checkpoints of Lightning, tutorials, and torchvision's training scripts."""

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
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
    try:
        check_regular_file(Path(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights={str(path)!r}: must be a file that torch.load(weights_only=True) opens, of tensors alone"
        ) from error
    except OSError:  # names the file
        raise
    except Exception as error:  # damaged files raise errors of many kinds
        raise ValueError(f"weights={str(path)!r}: must be a file of weights; this one cannot be read") from error
    while isinstance(content, dict) and (key := next((k for k in _HOLDERS if isinstance(content.get(k), dict)), None)):
        content = content[key]
    items = content.items() if isinstance(content, dict) else ()
    state = {_DENSENET_BEFORE_2018.sub(r"\1\2.", str(k)): value for k, value in items if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"weights={str(path)!r}: must hold a state dict")
    prefix = _prefix(state, network.state_dict().keys())
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(_AUXILIARY)
    }


def _prefix(state: State, names: Collection[str]) -> str:
    """Return the prefix of the names in a file before the network's own names."""
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in names:
                found[".".join(parts[:depth])] += 1
    prefix = found.most_common(1)[0][0] if found else ""
    return f"{prefix}." if prefix else ""


def fit_head(state: State, network: nn.Module, head: str) -> None:
    """Remove the last layer ``head`` from a state if the network has another number of classes, and log that."""
    wanted, found = network.get_parameter(f"{head}.weight"), state.get(f"{head}.weight")
    if found is None or found.shape[0] == wanted.shape[0] or found.shape[1:] != wanted.shape[1:]:
        return
    for name in [name for name in state if name.startswith(f"{head}.")]:
        del state[name]
    logger.info("%s is new: %d classes, the weights have %d", head, wanted.shape[0], found.shape[0])


def load_weights(network: nn.Module, state: State, path: object, head: str) -> None:
    """Load a state into a network; all of the last layer ``head`` and coordinate weights may be missing.

    Raises:
        ValueError: They do not fit the network; ``path`` is the file that the message names.
    """
    own = network.state_dict()
    # These may be missing: a new head, coordinate weights, which start at 0, and batch counts, which old files lack.
    optional = (".coord_weight", ".num_batches_tracked")
    new_head = () if f"{head}.weight" in state else (f"{head}.weight", f"{head}.bias")
    missing = own.keys() - state.keys() - {*new_head}
    complaints = {
        "not in the file": [name for name in own if name in missing and not name.endswith(optional)],
        "not in the network": [name for name in state if name not in own],
        "of another shape": [name for name in own if name in state and own[name].shape != state[name].shape],
    }
    listed = "; ".join(f"{abbreviate_names(names, 3)} {words}" for words, names in complaints.items() if names)
    if listed:
        raise ValueError(f"weights={str(path)!r}: must be of the same network: {listed}")
    network.load_state_dict(state, strict=False)
