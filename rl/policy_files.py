"""Trained policies as files: Stable-Baselines3's own zip, and a safe form of tensors and JSON.

Whoever opens SB3's zip with ``A2C.load`` runs whatever code its author put there: the class of the policy, the spaces,
schedules and more are stored as cloudpickle's instructions, which may call anything. A policy of someone unknown should
not be opened so. The safe form holds tensors, which torch loads with ``weights_only=True``, and JSON, which names one
of a few known classes; its loader runs nothing else. `import_zip` reads SB3's zips with the same care.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.dqn.policies import CnnPolicy, DQNPolicy, MultiInputPolicy
from torch import Tensor, nn

from coordconv_apps.runs.environment import package_versions
from coordconv_apps.utils.files import atomic_write
from rl.evaluation.play import policy_of
from rl.extractors import CoordConvCombinedExtractor, CoordConvNatureCNN
from rl.plain import describe
from rl.policies import (
    CoordConvCnnPolicy,
    CoordConvDQNMultiInputPolicy,
    CoordConvDQNPolicy,
    CoordConvMultiInputPolicy,
)
from rl.space_json import space_from_json, space_to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stable_baselines3.common.base_class import BaseAlgorithm

    from rl.evaluation.play import Player

FORMAT, VERSION = "coordconv-apps policy", 1
DESCRIPTION_NAME, TENSORS_NAME = "policy.json", "tensors.pt"


def _by_name(*classes: type) -> dict[str, Any]:
    return {f"{c.__module__}.{c.__qualname__}": c for c in classes}


POLICIES: dict[str, type[BasePolicy]] = _by_name(
    CoordConvCnnPolicy,
    CoordConvMultiInputPolicy,
    CoordConvDQNPolicy,
    CoordConvDQNMultiInputPolicy,
    ActorCriticCnnPolicy,
    MultiInputActorCriticPolicy,
    CnnPolicy,
    MultiInputPolicy,
)
"""The classes that a file may name. Names are looked up here, and never imported."""

EXTRACTORS: dict[str, type[nn.Module]] = _by_name(
    CoordConvNatureCNN, CoordConvCombinedExtractor, NatureCNN, CombinedExtractor
)
ACTIVATIONS: dict[str, type[nn.Module]] = _by_name(nn.Tanh, nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU)

_EXTRACTOR_ARGUMENTS = {
    "features_dim": int,
    "cnn_output_dim": int,
    "normalized_image": bool,
    "coords": str,
    "where": str,
    "coord_init": str,
}

_NOT_NEEDED = (
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
    "ep_info_buffer",
    "ep_success_buffer",
    "tensorboard_log",
)
"""What SB3 would save of the training that is under way, and of the machine's folders, and does without."""


def export_zip(algorithm: BaseAlgorithm, path: Path | str) -> None:
    """Writes SB3's own zip, which ``A2C.load``, ``PPO.load`` or ``DQN.load`` opens; aside first, then in its place.

    This package has to be installed where it is opened, as with every policy that is not SB3's own. The optimizer's
    state is in it, environments and buffers are not.

    Args:
        algorithm: With its policy.
        path: The file, with its ending.
    """
    with atomic_write(Path(path), "wb") as file:
        algorithm.save(file, exclude=_NOT_NEEDED)  # type: ignore[arg-type]  # any file opened for bytes


# --------------------------------------------------------------------- safe form


def export_safe(player: Player, path: Path | str) -> None:
    """Writes the safe form of a policy, aside first, then in its place: a zip of tensors and JSON.

    It has all that is needed to act, and to go on training with a new optimizer.

    Args:
        player: A policy of one of the known classes, or an algorithm with one.
        path: The file, with its ending.

    Raises:
        ValueError: The policy is of another class, or has parts that are not known.
    """
    policy = policy_of(player)
    if policy is None:
        raise ValueError(f"player={type(player).__name__}: must be a policy or an algorithm of Stable-Baselines3")
    description = {
        "format": FORMAT,
        "version": VERSION,
        **_describe(policy),
        "algorithm": None if policy is player else type(player).__name__,
        "packages": package_versions(),
    }
    buffer = io.BytesIO()
    torch.save(_tensors(policy), buffer)
    with atomic_write(Path(path), "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(DESCRIPTION_NAME, json.dumps(description, indent=2, allow_nan=False) + "\n")
        archive.writestr(TENSORS_NAME, buffer.getvalue())


def load_safe(path: Path | str) -> BasePolicy:
    """Opens the safe form of a policy. Nothing in the file is run, whoever wrote it.

    Args:
        path: The file.

    Returns:
        The policy, in evaluation mode, on the CPU. Its optimizer is new, with a learning rate of 0.

    Raises:
        ValueError: It is no such file, or names what is not known.
        OSError: It cannot be read.
    """
    path = Path(path)
    contents = _contents(path, (DESCRIPTION_NAME, TENSORS_NAME), "a policy as export_safe writes it")
    description = _json(path, contents[DESCRIPTION_NAME])
    if description.get("format") != FORMAT or description.get("version") != VERSION:
        found = (description.get("format"), description.get("version"))
        raise ValueError(f"{path}: its format and version are {found}; must be {(FORMAT, VERSION)}")
    return _build(path, description, _load_tensors(path, contents[TENSORS_NAME]))


def _describe(policy: BasePolicy) -> dict[str, Any]:
    """All of a policy but its tensors, as JSON has it."""
    if getattr(policy, "use_sde", False):
        raise ValueError("use_sde=True: must be False; policies with state-dependent exploration have no safe form")
    name = _name(type(policy), POLICIES, "policy")
    assert isinstance(policy, ActorCriticPolicy | DQNPolicy)
    described = {
        "policy": name,
        "observation_space": space_to_json(policy.observation_space, "observation_space"),
        "action_space": space_to_json(policy.action_space, "action_space"),
        "net_arch": policy.net_arch,
        "activation": _name(policy.activation_fn, ACTIVATIONS, "activation_fn"),
        "extractor": _name(policy.features_extractor_class, EXTRACTORS, "features_extractor_class"),
        "extractor_arguments": policy.features_extractor_kwargs,
        "normalize_images": policy.normalize_images,
        "share_features_extractor": getattr(policy, "share_features_extractor", True),
    }
    _check("the policy", described)
    return described


def _name(kind: Any, known: Mapping[str, type], argument: str) -> str:  # noqa: ANN401  # a class
    name = f"{kind.__module__}.{kind.__qualname__}"
    if known.get(name) is not kind:
        raise ValueError(f"{argument}={name}: must be one of {', '.join(known)}")
    return name


def _tensors(policy: BasePolicy) -> dict[str, Tensor]:
    """The state dict on the CPU; parts that share their memory do so in the file, too."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    return {
        name: copies.setdefault((value.data_ptr(), value.shape), value.detach().cpu())
        for name, value in policy.state_dict().items()
    }


def _build(path: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> BasePolicy:
    """The policy that a file describes, whose author may be anyone."""
    _check(str(path), description)
    kind = POLICIES[description["policy"]]
    arguments = {
        "net_arch": description["net_arch"],
        "activation_fn": ACTIVATIONS.get(description["activation"]),
        "features_extractor_class": EXTRACTORS.get(description["extractor"]),
        "features_extractor_kwargs": dict(description["extractor_arguments"]),
        "normalize_images": description["normalize_images"],
        "share_features_extractor": description["share_features_extractor"],
    }
    arguments = {key: value for key, value in arguments.items() if value is not None}
    if not issubclass(kind, ActorCriticPolicy):
        del arguments["share_features_extractor"]
    try:
        observations, actions = (
            space_from_json(description[key], key) for key in ("observation_space", "action_space")
        )
        with torch.random.fork_rng(devices=[]):  # weights are drawn, and overwritten
            policy = kind(observations, actions, lambda _: 0.0, **arguments)
        policy.load_state_dict(tensors)
    # SB3 asserts that spaces fit its networks; torch raises a RuntimeError of many lines where tensors do not.
    except (ValueError, TypeError, AttributeError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot be made into a policy: {' '.join(str(error).split())[:300]}") from error
    policy.set_training_mode(False)
    return policy


def _check(source: str, description: Mapping[str, Any]) -> None:
    """Raises `ValueError` unless a description has all that there must be, and names nothing unknown.

    What is None is as the policy has it by default.
    """
    for key, known in (("policy", POLICIES), ("activation", ACTIVATIONS), ("extractor", EXTRACTORS)):
        value = description.get(key)
        if (value is not None or key == "policy") and (not isinstance(value, str) or value not in known):
            raise ValueError(f"{source}: {key}={value}: must be one of {', '.join(known)}")
    for key in ("normalize_images", "share_features_extractor"):
        if not isinstance(description.get(key), bool):
            raise ValueError(f"{source}: {key}={description.get(key)}: must be true or false")
    arch = description.get("net_arch")
    parts = (
        list(arch.values()) if isinstance(arch, dict) and set(arch) <= {"pi", "vf"} else [[] if arch is None else arch]
    )
    if not all(isinstance(p, list) and all(type(size) is int and 0 < size < 2**16 for size in p) for p in parts):
        raise ValueError(f"{source}: net_arch={arch}: must be a list of sizes, or one each for pi and vf")
    arguments = description.get("extractor_arguments")
    if not isinstance(arguments, dict):
        raise ValueError(f"{source}: extractor_arguments={arguments}: must be arguments by name")
    for key, value in arguments.items():
        if type(value) is not _EXTRACTOR_ARGUMENTS.get(key):
            allowed = ", ".join(f"{name} ({kind.__name__})" for name, kind in _EXTRACTOR_ARGUMENTS.items())
            raise ValueError(f"{source}: extractor_arguments {key}={value!r}: must be one of {allowed}")


def _contents(path: Path, names: tuple[str, ...], what: str) -> dict[str, bytes]:
    """Files in a zip, by name."""
    try:
        with zipfile.ZipFile(path) as archive:
            if missing := [name for name in names if name not in archive.namelist()]:
                raise ValueError(f"{path}: must be {what}; there is no {' and no '.join(missing)} in it")
            return {name: archive.read(name) for name in names}
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        EOFError,
        RuntimeError,
    ) as error:  # damaged, odd or encrypted
        raise ValueError(f"{path}: must be {what}; it is no zip that can be read") from error


def _json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: what should be JSON in it is not") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: its JSON must be an object, not a {type(found).__name__}")
    return found


def _load_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise whatever they stumble over
        raise ValueError(f"{path}: its tensors cannot be read without running code, and are not") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path}: must hold tensors by name")
    return found


# --------------------------------------------------------------------- SB3's zip


def import_zip(path: Path | str) -> BasePolicy:
    """Opens the policy in one of SB3's zips without running the pickled code in it, whoever wrote it.

    SB3 writes beside each pickled value a part of it in plain text. That is enough for the policies known here with
    images of bytes as observations, and with a choice of actions. Others are opened by ``A2C.load`` and the like, which
    run the code.

    Args:
        path: The zip.

    Returns:
        As `load_safe`.

    Raises:
        ValueError: It is no such zip, or has another policy in it.
        OSError: It cannot be read.
    """
    path = Path(path)
    contents = _contents(path, ("data", "policy.pth"), "a zip of Stable-Baselines3")
    data = _json(path, contents["data"])
    try:
        description = describe(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return _build(path, description, _load_tensors(path, contents["policy.pth"]))
