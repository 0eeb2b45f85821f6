"""Exported policies play the same actions, in plain Stable-Baselines3 and from the safe form, which runs no code."""

from __future__ import annotations

import io
import json
import pickle
import resource
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import A2C
from torch import nn

from rl import CoordConvCnnPolicy
from rl.learning.actions import values_and_logits
from rl.policy_files import DESCRIPTION_NAME, TENSORS_NAME, export_safe, export_zip, load_safe
from rl.space_json import space_from_json, space_to_json
from tests.helpers.limits import address_space_limit
from tests.helpers.planted import Planted
from tests.rl.players import KINDS, SMALL, make_player, observe
from tests.rl.tiny import SIDE, make_a2c, make_env


def assert_same(found: Any, expected: Any) -> None:  # noqa: ANN401
    """Two policies are the same: their weights, and what they make of observations."""
    assert type(found) is type(expected)
    observations = observe(expected)
    actions: NDArray[Any] = expected.predict(observations, deterministic=True)[0]
    np.testing.assert_array_equal(found.predict(observations, deterministic=True)[0], actions)
    tensors, _ = expected.obs_to_tensor(observations)
    with torch.no_grad():
        for one, other in zip(values_and_logits(found, tensors), values_and_logits(expected, tensors), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    state = expected.state_dict()
    assert list(found.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    assert found.observation_space == expected.observation_space
    assert found.action_space == expected.action_space


# --------------------------------------------------------------------- safe form


@pytest.mark.parametrize("kind", KINDS)
def test_safe_form_plays_the_same(tmp_path: Path, kind: str) -> None:
    player = make_player(kind)
    path = tmp_path / "new" / "policy.zip"
    export_safe(player, path)
    before = torch.random.get_rng_state()
    found: Any = load_safe(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not found.training
    assert_same(found, player.policy)
    assert found.normalize_images == player.policy.normalize_images
    assert found.activation_fn is player.policy.activation_fn
    assert [p.name for p in path.parent.iterdir()] == ["policy.zip"]
    # Saved again it is the same file, but for the algorithm, which a policy does not know.
    export_safe(found, tmp_path / "again.zip")
    first, again = (json.loads(zipfile.ZipFile(p).read(DESCRIPTION_NAME)) for p in (path, tmp_path / "again.zip"))
    assert first.pop("algorithm") == type(player).__name__
    assert again.pop("algorithm") is None
    assert first == again


def test_safe_form_is_tensors_and_json_alone(tmp_path: Path) -> None:
    player = make_player("a2c")
    export_safe(player, tmp_path / "policy.zip")
    with zipfile.ZipFile(tmp_path / "policy.zip") as archive:
        assert archive.namelist() == [DESCRIPTION_NAME, TENSORS_NAME]
        description = json.loads(archive.read(DESCRIPTION_NAME))
        tensors = torch.load(io.BytesIO(archive.read(TENSORS_NAME)), weights_only=True)
    assert description["policy"] == "rl.policies.CoordConvCnnPolicy"
    assert description["extractor_arguments"] == SMALL
    assert description["observation_space"] == {
        "type": "Box",
        "shape": [2, SIDE, SIDE],
        "dtype": "uint8",
        "low": 0,
        "high": 255,
    }
    assert description["packages"]["torch"] == metadata.version("torch")
    assert set(tensors) == set(player.policy.state_dict())
    # The extractor is in the state dict three times, and once in the file.
    size = sum(p.numel() * p.element_size() for p in player.policy.parameters())
    assert (tmp_path / "policy.zip").stat().st_size < 1.3 * size


class Odd(CoordConvCnnPolicy):
    """A policy of somebody's own."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": Odd}, r"^policy=tests.rl.test_policy_files.Odd: must be one of rl.policies.CoordConvCnnPolicy, .*"),
        ({"policy_kwargs": {"activation_fn": nn.Softplus}}, r"^activation_fn=torch.*Softplus: must be one of .*"),
    ],
)
def test_unknown_classes_are_not_exported(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_safe(make_a2c(**{"policy": CoordConvCnnPolicy, **arguments}), tmp_path / "policy.zip")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------ spaces


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Box(-np.inf, np.inf, (3,), np.float32),
        spaces.Box(np.array([-1, 0.1], np.float32), np.array([np.inf, 1], np.float32)),
        spaces.Box(np.arange(6.0).reshape(2, 3), 7.5, dtype=np.float64),
        spaces.Discrete(6),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([2, 5]),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
        spaces.Box(-1, 1, (2,), np.float16),
        spaces.Box(0, 1, (2,), np.bool_),  # type: ignore[arg-type]  # gymnasium takes it
        spaces.Dict(switches=spaces.MultiBinary(3), dials=spaces.MultiDiscrete([2, 5])),  # not in the order of letters
        spaces.Dict({"image": spaces.Box(0, 255, (1, 40, 40), np.uint8), "number": spaces.Discrete(3)}),
    ],
)
def test_spaces_come_back_from_json(space: spaces.Space[Any]) -> None:
    description = json.loads(json.dumps(space_to_json(space, "space"), allow_nan=False))
    found = space_from_json(description, "space")
    assert found == space
    if isinstance(space, spaces.Dict):
        assert list(cast("spaces.Dict", found)) == list(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(4),
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Dict({"deep": spaces.Dict({"image": spaces.Discrete(2)})}),
    ],
)
def test_other_spaces_are_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(
        ValueError, match=r"^space[^\n]*: must (be a Box of [^\n]*, Discrete, |not be a Dict in )[^\n]*$"
    ):
        space_to_json(space, "space")


BOX = {"type": "Box", "shape": [2, 40, 40], "dtype": "uint8", "low": 0, "high": 255}


@pytest.mark.parametrize(
    "description",
    [
        None,
        [],
        {"type": "Graph"},
        {**BOX, "dtype": "object"},
        {**BOX, "shape": [2**20, 2**20]},
        {**BOX, "shape": [-1]},
        {**BOX, "shape": "ab"},
        {**BOX, "low": [1, 2]},
        {**BOX, "low": "__import__('os')"},
        {**BOX, "low": {}},
        {"type": "Discrete", "n": 0, "start": 0},
        {"type": "Discrete", "n": 2.5, "start": 0},
        {"type": "Dict", "spaces": {"deep": {"type": "Dict", "spaces": {}}}},
        {"type": "Dict", "spaces": {str(i): {**BOX, "shape": [2**20]} for i in range(5)}},
        {"type": "Dict", "spaces": {str(i): {"type": "Discrete", "n": 2**20, "start": 0} for i in range(5)}},
        {"type": "Dict", "spaces": {"dials": {"type": "MultiDiscrete", "nvec": [2**20] * 5, "start": [0] * 5}}},
        {"type": "Dict", "spaces": {"switches": {"type": "MultiBinary", "n": [2**12, 2**12]}}},
        {"type": "MultiDiscrete", "nvec": [2, 2**62], "start": [0, 0]},
    ],
)
def test_no_other_description_becomes_a_space(description: Any) -> None:  # noqa: ANN401
    with pytest.raises(
        ValueError, match=r"^space: does not describe a space; must be a Box of .* 4,194,304 elements in all$"
    ):
        space_from_json(description, "space")


# ----------------------------------------------------------------- foreign files


def rewrite(path: Path, **changes: bytes | None) -> None:
    """Changes files in a zip, names with "_" for a dot; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        contents: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    contents |= {name.replace("_", "."): content for name, content in changes.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)


def redescribe(path: Path, **changes: Any) -> None:  # noqa: ANN401
    description = json.loads(zipfile.ZipFile(path).read(DESCRIPTION_NAME))
    rewrite(path, policy_json=json.dumps({**description, **changes}).encode())


MORE_PARAMETERS = "does not describe a policy: its networks have more parameters than the "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "something"}, "format and version are ('something', 1); must be"),
        ({"version": 2}, "; must be ('coordconv-apps policy', 1)"),
        ({"policy": "os.system"}, "policy='os.system': must be one of rl.policies.CoordConvCnnPolicy, "),
        ({"policy": ["x"]}, "policy=['x']: must be one of"),
        ({"extractor": "torch.load"}, "extractor='torch.load': must be one of rl.extractors.CoordConvNatureCNN, "),
        ({"activation": "builtins.eval"}, "activation='builtins.eval': must be one of"),
        ({"extractor_arguments": {"weights": "x.pt"}}, "extractor_arguments weights='x.pt': must be one of"),
        ({"extractor_arguments": {"features_dim": True}}, "extractor_arguments features_dim=True: must be"),
        ({"extractor_arguments": {"coords": "abc"}}, "coords='abc': must be one of 'none', 'xy', 'xyr'"),
        ({"extractor_arguments": {"features_dim": 8}}, "does not describe a policy: "),
        ({"extractor_arguments": None}, "extractor_arguments=None: must be a dictionary of arguments"),
        ({"net_arch": [2**16]}, "net_arch=[65536]: must be a list of at most 64 sizes from 1 to 65535"),
        (
            {"net_arch": {"qf": [2]}},
            "must be a list of at most 64 sizes from 1 to 65535, or one list each for pi and vf",
        ),
        ({"normalize_images": 1}, "normalize_images=1: must be true or false"),
        ({"observation_space": {"type": "Box"}}, "observation_space: does not describe a space"),
        ({"observation_space": {**BOX, "shape": [2, 20, 20]}}, "does not describe a policy: "),
        ({"action_space": {"type": "Discrete", "n": 4, "start": 0}}, "size mismatch for action_net.weight"),
        ({"action_space": {"type": "Discrete", "n": 2**22, "start": 0}}, MORE_PARAMETERS),
        ({"observation_space": {**BOX, "shape": [1, 1000, 1000]}}, MORE_PARAMETERS),
        ({"extractor_arguments": {"features_dim": 2**22}}, MORE_PARAMETERS),
        ({"net_arch": [60_000] * 64}, MORE_PARAMETERS),
        ({"net_arch": [2] * 65}, "must be a list of at most 64 sizes from 1 to 65535, or one list each for pi and vf"),
        ({"net_arch": json.loads("[" * 500 + "]" * 500)}, "must be a list of at most 64 sizes"),
        ({"policy": "x" * 2**20}, "not a readable, uncompressed zip file"),
    ],
)
@pytest.mark.usefixtures("two_gib_more")
def test_changed_descriptions_are_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "policy.zip"
    export_safe(make_player("a2c"), path)
    redescribe(path, **changes)
    with pytest.raises(ValueError, match=r"^") as caught:
        load_safe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loading_runs_no_code(tmp_path: Path) -> None:
    trap = Planted(tmp_path / "sprung")
    tensors = io.BytesIO()
    torch.save({"weight": trap}, tensors)
    path = tmp_path / "safe.zip"
    export_safe(make_player("a2c"), path)
    rewrite(path, tensors_pt=tensors.getvalue())
    with pytest.raises(ValueError, match=r"tensors\.pt in it is damaged, or would run code, and was not loaded"):
        load_safe(path)
    assert not trap.path.exists()
    cut = io.BytesIO()
    with zipfile.ZipFile(cut, "w") as archive:
        archive.writestr("readme.txt", "hello")
    rewrite(path, tensors_pt=cut.getvalue())
    with pytest.raises(ValueError, match=r"safe\.zip: tensors\.pt in it is damaged$"):
        load_safe(path)
    pickle.loads(pickle.dumps(trap))
    assert trap.path.exists(), "the trap works"


@pytest.fixture
def two_gib_more() -> Iterator[None]:
    """Let the process have 2 GiB more of address space than it has: larger allocations fail."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with address_space_limit(used + 2**31):
        yield


def compressed(content: bytes) -> bytes:
    """Return the zip in ``content`` with its parts compressed."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as target:
        for name in archive.namelist():
            target.writestr(name, archive.read(name))
    return result.getvalue()


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_compressed_files_are_refused_before_they_grow(tmp_path: Path, where: str) -> None:
    path = tmp_path / "bomb.zip"
    export_safe(make_player("a2c"), path)
    if where == "outside":
        path.write_bytes(compressed(path.read_bytes()))
    else:
        rewrite(path, tensors_pt=compressed(zipfile.ZipFile(path).read(TENSORS_NAME)))
    with pytest.raises(ValueError, match="not a readable, uncompressed zip file"):
        load_safe(path)


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "expanded.zip"
    export_safe(make_player("a2c"), path)
    expanded = io.BytesIO()
    torch.save({"weight": torch.zeros(1).expand(2**20, 2**20)}, expanded)
    rewrite(path, tensors_pt=expanded.getvalue())
    with pytest.raises(ValueError, match="the tensors declare more values than the file holds"):
        load_safe(path)


def foreign(path: Path, kind: str) -> None:
    if kind == "no zip":
        path.write_bytes(b"PK\x03\x04 not really")
    elif kind == "zip of SB3":
        export_zip(make_player("a2c"), path)
    elif kind == "cut":
        export_safe(make_player("a2c"), path)
        path.write_bytes(path.read_bytes()[:-5000])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name in (DESCRIPTION_NAME, TENSORS_NAME):
                archive.writestr(name, {"no json": "hello", "no object": "[1, 2]"}[kind])


@pytest.mark.parametrize("kind", ["no zip", "cut", "no json", "no object", "zip of SB3"])
def test_foreign_files_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "foreign.zip"
    foreign(path, kind)
    with pytest.raises(ValueError, match=r"^") as caught:
        load_safe(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------- SB3's zip


@pytest.mark.parametrize("kind", ["a2c", "unshared", "dqn", "dict"])
def test_zip_opens_in_sb3_and_plays_the_same(tmp_path: Path, kind: str) -> None:
    player = make_player(kind)
    path = tmp_path / "new" / "policy.zip"
    export_zip(player, path)
    assert_same(type(player).load(path, device="cpu").policy, player.policy)
    assert [p.name for p in path.parent.iterdir()] == ["policy.zip"]


def test_zip_of_a_training_resumes_in_sb3_and_contains_no_paths(tmp_path: Path) -> None:
    player = make_a2c(tensorboard_log=str(tmp_path / "my folder"))
    player.learn(15)
    path = tmp_path / "policy.zip"
    export_zip(player, path)
    data = json.loads(zipfile.ZipFile(path).read("data"))
    assert "my folder" not in json.dumps(data)
    assert {"env", "rollout_buffer", "_last_obs", "ep_info_buffer"}.isdisjoint(data)
    again = A2C.load(path, make_env(), device="cpu").learn(15, reset_num_timesteps=False)
    assert again.num_timesteps == 30
