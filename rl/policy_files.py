"""Save policies as files: Stable-Baselines3's zip, and a safe format of tensors and JSON.

SB3's zip stores the class of the policy, its spaces and its schedules with cloudpickle, so that ``A2C.load`` runs any
code that the author of the file put there. The safe format holds tensors, which torch loads with
``weights_only=True``, and JSON, which names classes from a fixed list. `load_safe` runs nothing from the file.
"""

from __future__ import annotations

import io
import json
import pickle
import reprlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.dqn.policies import CnnPolicy, DQNPolicy, MultiInputPolicy
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from coordconv_apps.runs.environment import package_versions
from coordconv_apps.utils.errors import one_line
from coordconv_apps.utils.files import atomic_write, check_regular_file
from coordconv_apps.utils.torch_files import UnboundedFile, check_torch_file
from rl.evaluation.play import Player, policy_of
from rl.extractors import CoordConvCombinedExtractor, CoordConvNatureCNN
from rl.policies import (
    CoordConvCnnPolicy,
    CoordConvDQNMultiInputPolicy,
    CoordConvDQNPolicy,
    CoordConvMultiInputPolicy,
)
from rl.sb3_internals import UNNEEDED_STATE
from rl.space_json import space_from_json, space_to_json

FORMAT, VERSION = "coordconv-apps policy", 1
DESCRIPTION_NAME, TENSORS_NAME = "policy.json", "tensors.pt"

MAX_DESCRIPTION_BYTES = 2**20
"""Upper bound for the description in a file that is loaded."""
MAX_LAYERS = 64
"""Upper bound for the layers of each head of a policy that is loaded."""
MAX_SIZE = 2**16 - 1
"""Upper bound for the size of each of them."""
MAX_SHARING = 3
"""Upper bound for the bytes of all tensors over those in the file: SB3 names a shared extractor three times."""


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
"""Classes that a file may name. Names are looked up here and never imported."""

EXTRACTORS: dict[str, type[nn.Module]] = _by_name(
    CoordConvNatureCNN, CoordConvCombinedExtractor, NatureCNN, CombinedExtractor
)
ACTIVATIONS: dict[str, type[nn.Module]] = _by_name(nn.Tanh, nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU)

_EXTRACTOR_ARGUMENTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("features_dim", "cnn_output_dim"), (int,)),
    "normalized_image": (bool,),
    **dict.fromkeys(("coords", "where", "coord_init"), (str,)),
    "coord_scale": (float, int),
}


def export_zip(algorithm: BaseAlgorithm, path: Path | str) -> None:
    """Write SB3's zip, which ``A2C.load``, ``PPO.load`` or ``DQN.load`` opens, atomically.

    The zip contains the optimizer's state, but neither environments nor buffers. To open it, this package must be
    installed, as with every policy that is not SB3's own.

    Example:
        >>> import tempfile
        >>> from stable_baselines3 import A2C
        >>> from rl.envs.catch import CatchVecEnv
        >>> model = A2C("CoordConvCnnPolicy", CatchVecEnv(2), device="cpu")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_zip(model, f"{folder}/policy.zip")
        ...     type(A2C.load(f"{folder}/policy.zip", device="cpu").policy).__name__
        'CoordConvCnnPolicy'
    """
    with atomic_write(Path(path), "wb") as file:
        algorithm.save(file, exclude=UNNEEDED_STATE)  # type: ignore[arg-type]  # any file opened for bytes


def export_safe(player: Player, path: Path | str) -> None:
    """Write a policy in the safe format, a zip of tensors and JSON, atomically.

    The file has everything needed to act, and to continue training with a new optimizer.

    Args:
        player: Policy of one of the classes in `POLICIES`, or an algorithm with one.
        path: The file, with its suffix.

    Raises:
        ValueError: The class of the policy, or of a part of it, is not listed here.
    """
    policy = policy_of(player)
    description = {
        "format": FORMAT,
        "version": VERSION,
        **_describe(policy),
        "algorithm": None if policy is player else type(player).__name__,
        "packages": package_versions(),
    }
    copies: dict[tuple[int, torch.Size], Tensor] = {}  # tensors that share their memory share it in the file, too
    tensors = {
        name: copies.setdefault((value.data_ptr(), value.shape), value.detach().cpu())
        for name, value in policy.state_dict().items()
    }
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    with atomic_write(Path(path), "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(DESCRIPTION_NAME, json.dumps(description, indent=2, allow_nan=False) + "\n")
        archive.writestr(TENSORS_NAME, buffer.getvalue())


def load_safe(path: Path | str) -> BasePolicy:
    """Load a policy from the safe format. No code in the file runs, whoever wrote it.

    Memory is bounded by the size of the file: its parts must be stored uncompressed, and building networks
    stops at the first parameter that exceeds the number of values in the file. Spaces have at most 2**22 elements
    in all, and heads at most 64 layers.

    Returns:
        The policy, in evaluation mode, on the CPU. Its optimizer is new, with a learning rate of 0.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has another format, names a class that is not listed here, or declares more than it holds.

    Example:
        >>> import tempfile
        >>> from rl import CoordConvCnnPolicy
        >>> from rl.envs.catch import CatchVecEnv
        >>> env = CatchVecEnv(2)
        >>> policy = CoordConvCnnPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_safe(policy, f"{folder}/policy.safe.zip")
        ...     loaded = load_safe(f"{folder}/policy.safe.zip")
        >>> actions, _ = loaded.predict(env.reset(), deterministic=True)
        >>> actions.shape
        (2,)
    """
    content, encoded = _read(path)
    try:
        description = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {DESCRIPTION_NAME} in it is not valid JSON") from error
    if not isinstance(description, dict):
        raise ValueError(f"{path}: {DESCRIPTION_NAME} in it must be an object, not a {type(description).__name__}")
    found = (description.get("format"), description.get("version"))
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path}: format and version are {reprlib.repr(found)}; must be {(FORMAT, VERSION)}")
    try:
        check_torch_file(io.BytesIO(encoded), f"{path}: {TENSORS_NAME} in it")
        tensors = torch.load(io.BytesIO(encoded), map_location="cpu", weights_only=True)
    except UnboundedFile:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {TENSORS_NAME} in it is damaged, or would run code, and was not loaded") from error
    except Exception as error:  # damaged files raise errors of many kinds
        raise ValueError(f"{path}: {TENSORS_NAME} in it is damaged") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{path}: must hold tensors by name")
    if sum(value.nbytes for value in tensors.values()) > MAX_SHARING * len(encoded):
        raise ValueError(f"{path}: the tensors declare more values than the file holds")
    return _build(path, description, tensors)


def _describe(policy: BasePolicy) -> dict[str, Any]:
    """Describe a policy without its tensors, as plain values for JSON."""
    if getattr(policy, "use_sde", False):
        raise ValueError("use_sde=True: must be False; the safe format does not support state-dependent exploration")
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


def _build(path: Path | str, description: dict[str, Any], tensors: dict[str, Tensor]) -> BasePolicy:
    """Build the policy that a file describes; its author may be anyone."""
    _check(str(path), description)
    kind = POLICIES[description["policy"]]
    arguments = {
        "net_arch": description["net_arch"],
        "activation_fn": ACTIVATIONS[description["activation"]],
        "features_extractor_class": EXTRACTORS[description["extractor"]],
        "features_extractor_kwargs": dict(description["extractor_arguments"]),
        "normalize_images": description["normalize_images"],
        "share_features_extractor": description["share_features_extractor"],
    }
    if not issubclass(kind, ActorCriticPolicy):
        del arguments["share_features_extractor"]
    try:
        observations, actions = (
            space_from_json(description[key], key) for key in ("observation_space", "action_space")
        )
        limit = sum(value.numel() for value in tensors.values())
        with _limit_parameters(limit), torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
            policy = kind(observations, actions, lambda _: 0.0, **arguments)
        policy.load_state_dict(tensors)
    # SB3 asserts that spaces fit its networks; torch raises a RuntimeError of many lines where shapes differ.
    except (ValueError, TypeError, AttributeError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: does not describe a policy: {one_line(error)[:300]}") from error
    policy.set_training_mode(False)
    return policy


@contextmanager
def _limit_parameters(limit: int) -> Iterator[None]:
    """Raise `ValueError` when modules are built with more parameters than ``limit``, before any is initialized."""
    count = 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        count += 0 if parameter is None else parameter.numel()
        if count > limit:
            raise ValueError(f"its networks have more parameters than the {limit:,} values in the file")

    handle = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _check(source: str, description: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a description lacks an entry, or names a class that is not listed here."""
    for key, known in (("policy", POLICIES), ("activation", ACTIVATIONS), ("extractor", EXTRACTORS)):
        value = description.get(key)
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{source}: {key}={reprlib.repr(value)}: must be one of {', '.join(known)}")
    for key in ("normalize_images", "share_features_extractor"):
        if not isinstance(description.get(key), bool):
            raise ValueError(f"{source}: {key}={reprlib.repr(description.get(key))}: must be true or false")
    arch = description.get("net_arch")
    heads = list(arch.values()) if isinstance(arch, dict) and set(arch) <= {"pi", "vf"} else [arch]
    if not all(
        isinstance(head, list)
        and len(head) <= MAX_LAYERS
        and all(type(size) is int and 0 < size <= MAX_SIZE for size in head)
        for head in heads
    ):
        sizes = f"a list of at most {MAX_LAYERS} sizes from 1 to {MAX_SIZE}"
        raise ValueError(f"{source}: net_arch={reprlib.repr(arch)}: must be {sizes}, or one list each for pi and vf")
    arguments = description.get("extractor_arguments")
    if not isinstance(arguments, dict):
        raise ValueError(f"{source}: extractor_arguments={reprlib.repr(arguments)}: must be a dictionary of arguments")
    for key, value in arguments.items():
        if type(value) not in _EXTRACTOR_ARGUMENTS.get(key, ()):
            allowed = ", ".join(f"{name} ({kinds[0].__name__})" for name, kinds in _EXTRACTOR_ARGUMENTS.items())
            raise ValueError(f"{source}: extractor_arguments {key}={reprlib.repr(value)}: must be one of {allowed}")


def _check_stored(entry: zipfile.ZipInfo, limit: int) -> None:
    """Raise `BadZipFile` if a part of a zip is compressed, as `export_safe` writes none, or larger than a limit."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > limit:
        raise zipfile.BadZipFile(f"{entry.filename}: {entry.file_size} bytes")


def _read(path: Path | str) -> tuple[bytes, bytes]:
    """Return the description and the tensors in a file of the safe format, both encoded."""
    expected = "must be a policy that export_safe wrote"
    check_regular_file(Path(path))
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in (DESCRIPTION_NAME, TENSORS_NAME) if name not in archive.namelist()]
            if missing:
                raise ValueError(f"{path}: {expected}; the zip has no {' and no '.join(missing)}")
            for name, limit in ((DESCRIPTION_NAME, MAX_DESCRIPTION_BYTES), (TENSORS_NAME, Path(path).stat().st_size)):
                _check_stored(archive.getinfo(name), limit)
            description, tensors = archive.read(DESCRIPTION_NAME), archive.read(TENSORS_NAME)
        with zipfile.ZipFile(io.BytesIO(tensors)) as archive:  # as torch.save writes it
            for entry in archive.infolist():
                _check_stored(entry, len(tensors))
        return description, tensors
    # Damaged, encrypted, or compressed by a method that Python does not know.
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path}: {expected}; it is not a readable, uncompressed zip file") from error
