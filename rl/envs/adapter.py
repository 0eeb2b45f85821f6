"""Use Gymnasium's vector environments with Stable-Baselines3."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from rl.envs.actions import game_actions, zero_based

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium
    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn


def _single_info(infos: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the info of one environment from gymnasium's arrays, which have a mask ``_key`` for each ``key``."""
    row: dict[str, Any] = {}
    for key, values in infos.items():
        mask = infos.get(f"_{key}")
        if (key.startswith("_") and key[1:] in infos) or not (mask is None or mask[index]):
            continue
        value = _single_info(values, index) if isinstance(values, Mapping) else _element(values, index)
        row[key] = value.item() if isinstance(value, np.generic) else value
    return row


def _element(batch: Any, index: int) -> Any:  # noqa: ANN401  # observations and infos of any kind
    """Return a copy of one environment's element of a batch."""
    if isinstance(batch, dict):
        return {key: _element(value, index) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_element(value, index) for value in batch)
    is_batch = isinstance(batch, list) or (isinstance(batch, np.ndarray) and batch.ndim > 0)
    return deepcopy(batch[index] if is_batch else batch)


def _replace(batch: Any, fresh: Any, chosen: NDArray[np.bool_]) -> None:  # noqa: ANN401  # observations of any kind
    """Replace the chosen rows of a batch by those of another batch, in place."""
    if isinstance(batch, dict):
        for key, value in batch.items():
            _replace(value, fresh[key], chosen)
    elif isinstance(batch, tuple):
        for element, fresh_element in zip(batch, fresh, strict=True):
            _replace(element, fresh_element, chosen)
    else:
        batch[chosen] = fresh[chosen]


def _has_layer(vector_env: VectorEnv[Any, Any, Any], wrapper: type[VectorWrapper]) -> bool:
    """Return whether a vector environment is wrapped in ``wrapper``, at any depth."""
    while isinstance(vector_env, VectorWrapper):
        if isinstance(vector_env, wrapper):
            return True
        vector_env = vector_env.env
    return False


def _is_atari(base: VectorEnv[Any, Any, Any]) -> bool:
    """Return whether it is ale-py's. It cannot be if ale-py has not been imported, so this does not import it."""
    module = sys.modules.get("ale_py.vector_env")
    return module is not None and isinstance(base, module.AtariVectorEnv)


def _check_mode(vector_env: VectorEnv[Any, Any, Any], resets_in_parts: bool | None) -> AutoresetMode:
    mode, base = vector_env.metadata.get("autoreset_mode"), vector_env.unwrapped
    if not isinstance(mode, AutoresetMode):
        raise ValueError(f"vector_env={vector_env}: metadata['autoreset_mode']={mode!r} must be one of AutoresetMode's")
    if getattr(base, "batch_size", base.num_envs) != base.num_envs:
        raise ValueError(f"vector_env={vector_env}: batch_size must be num_envs, so that every step has all of them")
    if mode is not AutoresetMode.NEXT_STEP:
        return mode
    if resets_in_parts is None:
        resets_in_parts = isinstance(base, (SyncVectorEnv, AsyncVectorEnv)) or _is_atari(base)
    if not resets_in_parts:
        raise ValueError(
            f"vector_env={vector_env}: autoreset_mode NextStep needs resets of single environments (reset_mask), "
            'which it lacks; make it with vectorization_mode="sync", "async" or autoreset_mode="SameStep"'
        )
    if isinstance(base, AsyncVectorEnv) and not base.shared_memory:
        # Its processes would reset again in the next step instead of acting.
        raise ValueError(
            f"vector_env={vector_env}: autoreset_mode NextStep needs shared_memory=True; or pass "
            'autoreset_mode="SameStep" where it is made (gymnasium.make_vec(..., vector_kwargs=...))'
        )
    return mode


class VectorEnvAdapter(VecEnv):
    """Adapter from gymnasium's vector environments to Stable-Baselines3's `VecEnv`.

    Observations, rewards (float32), ends of episodes and infos are those of Stable-Baselines3's `DummyVecEnv` over
    `Monitor` for the same environments. If the environments report "episode" themselves (`Monitor` or gymnasium's
    `RecordEpisodeStatistics` inside), it is kept, so that scores are sums of unmodified rewards.

    Policies of Stable-Baselines3 count discrete actions from 0. The adapter converts these to the actions of the game.

    Autoreset modes: same-step mode is used as it is. In next-step and disabled mode, the adapter resets the
    environments that ended before it returns from the step, so that no step is lost or added. Wrappers that rely on the
    extra step of next-step mode, such as gymnasium's `RecordEpisodeStatistics`, are correct in same-step mode only; in
    the other modes the adapter counts episodes itself.

    ale-py's `AtariVectorEnv` clips rewards and scores by default, and with ``episodic_life=True`` it starts a new game
    for every life. `rl.envs.atari.AtariVecEnv` does neither.

    Args:
        vector_env: Vector environment with spaces that Stable-Baselines3 supports. Closing the adapter closes it.
        resets_in_parts: Whether its ``reset`` supports ``options={"reset_mask": ...}``, which next-step mode needs.
            None: True for gymnasium's `SyncVectorEnv` and `AsyncVectorEnv` and ale-py's `AtariVectorEnv`.

    Raises:
        ValueError: ``vector_env`` is not a vector environment, or its autoreset mode cannot be supported exactly.

    Example:
        >>> import gymnasium
        >>> import rl  # registers CoordConv/Catch-v0
        >>> env = VectorEnvAdapter(gymnasium.make_vec("CoordConv/Catch-v0", 2))
        >>> env.reset().shape
        (2, 1, 84, 84)
        >>> env.close()
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any], resets_in_parts: bool | None = None) -> None:
        if not isinstance(vector_env, VectorEnv):
            raise ValueError(f"vector_env={vector_env}: must be a gymnasium.vector.VectorEnv")
        if _has_layer(vector_env, DictInfoToList):
            raise ValueError(f"vector_env={vector_env}: must give infos as they are, without DictInfoToList")
        self.mode = _check_mode(vector_env, resets_in_parts)
        self.vector_env, self._base = vector_env, vector_env.unwrapped
        self._has_episodes = self.mode is AutoresetMode.SAME_STEP or not _has_layer(vector_env, RecordEpisodeStatistics)
        self._actions: Any = None
        self._stepping = False
        self._created = time.time()
        actions = zero_based(vector_env.single_action_space)
        super().__init__(vector_env.num_envs, vector_env.single_observation_space, actions)
        if "render_fps" in vector_env.metadata:
            cast("dict[str, Any]", self.metadata)["render_fps"] = vector_env.metadata["render_fps"]
        self._scores = np.zeros(self.num_envs, np.float64)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._parallel: tuple[Callable[[Any], object], Callable[[], Any]] | None = None  # send and receive
        if isinstance(vector_env, AsyncVectorEnv):
            self._parallel = (vector_env.step_async, vector_env.step_wait)
        elif _is_atari(vector_env):
            self._parallel = (vector_env.send, vector_env.recv)  # type: ignore[attr-defined]  # of AtariVectorEnv

    def reset(self) -> VecEnvObs:
        """Start new episodes, with the seeds of `seed` and the options of `set_options`, which must all be the same."""
        if any(options != self._options[0] for options in self._options):
            raise ValueError(f"options={self._options}: must be the same for all environments")
        self._drop_step()
        seed: Any = self._seeds[0]  # SB3 and gymnasium both count up from the first seed
        if seed is not None and _is_atari(self._base):
            seed = np.array(self._seeds) % 2**31  # the largest seed of the emulators
        observations, infos = self.vector_env.reset(seed=seed, options=deepcopy(self._options[0]) or None)
        self.reset_infos = [_single_info(infos, index) for index in range(self.num_envs)]
        self._scores[:], self._lengths[:] = 0, 0
        self._reset_seeds()
        self._reset_options()
        copied: VecEnvObs = deepcopy(observations)
        return copied

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step; it runs in the background if the vector environment supports that."""
        self._actions = game_actions(actions, self.vector_env.single_action_space)
        if self._parallel is not None:
            self._parallel[0](self._actions)
        self._stepping = True

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step."""
        self._stepping = False
        answer = self.vector_env.step(self._actions) if self._parallel is None else self._parallel[1]()
        observations, rewards, terminated, truncated, batch = answer
        observations = deepcopy(observations)  # some vector environments reuse their arrays
        dones = np.logical_or(terminated, truncated)
        self._scores += rewards
        self._lengths += 1
        infos = self._infos(observations, dones, dict(batch))
        for index, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(truncated[index] and not terminated[index])
        self._scores[dones], self._lengths[dones] = 0, 0
        if self.mode is not AutoresetMode.SAME_STEP and dones.any():
            fresh, fresh_batch = self.vector_env.reset(options={"reset_mask": dones.copy()})
            _replace(observations, fresh, dones)
            for index in np.flatnonzero(dones).tolist():
                self.reset_infos[index] = _single_info(fresh_batch, index)
        return observations, np.array(rewards, np.float32), dones, infos

    def _infos(self, observations: Any, dones: NDArray[np.bool_], batch: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: ANN401  # of any kind
        """Return the info of each environment; where an episode ended, the one from before the reset."""
        last, final_infos, *_ = (batch.pop(n, None) for n in ("final_obs", "final_info", "_final_obs", "_final_info"))
        infos = [_single_info(batch, index) for index in range(self.num_envs)]
        for index in np.flatnonzero(dones).tolist():
            info, final = infos[index], observations
            if self.mode is AutoresetMode.SAME_STEP:
                if last is None:
                    raise ValueError(f"vector_env={self.vector_env}: autoreset_mode SameStep needs infos['final_obs']")
                final = last
                self.reset_infos[index] = {key: value for key, value in info.items() if key != "episode"}
                if final_infos is not None:
                    own = {"episode": info["episode"]} if "episode" in info else {}
                    info = own | _single_info(final_infos, index)
            info["terminal_observation"] = _element(final, index)
            if not self._has_episodes or "episode" not in info:
                score, length = round(float(self._scores[index]), 6), int(self._lengths[index])
                info["episode"] = {"r": score, "l": length, "t": round(time.time() - self._created, 6)}
            infos[index] = info
        return infos

    def _drop_step(self) -> None:
        if self._stepping:
            self._stepping = False
            if self._parallel is not None:
                self._parallel[1]()

    def close(self) -> None:
        """Close the vector environment."""
        self._drop_step()
        self.vector_env.close()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Return an image of each environment if ``render_mode`` is "rgb_array"."""
        pictures: Any = self.vector_env.render()
        return [None] * self.num_envs if pictures is None else list(pictures)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each environment, or of the vector environment if it has no environments inside."""
        chosen = list(self._get_indices(indices))
        if attr_name == "render_mode":
            return [self.vector_env.render_mode for _ in chosen]
        if isinstance(self._base, SyncVectorEnv):
            return [self._base.envs[index].get_wrapper_attr(attr_name) for index in chosen]
        if isinstance(self._base, AsyncVectorEnv):
            # A missing attribute would end the processes.
            if not all(self._base.call("has_wrapper_attr", attr_name)):
                raise AttributeError(f"{self._base}: its environments have no attribute {attr_name!r}")
            values = self._base.get_attr(attr_name)
            return [values[index] for index in chosen]
        return [getattr(self.vector_env, attr_name) for _ in chosen]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:  # noqa: ANN401  # as in SB3
        """Set an attribute of environments; raise `ValueError` where there are none inside."""
        if not isinstance(self._base, (SyncVectorEnv, AsyncVectorEnv)):
            self._reject(f"attr_name={attr_name!r}")
        chosen = set(self._get_indices(indices))
        everywhere = len(chosen) == self.num_envs
        values = [value] * self.num_envs if everywhere else self.get_attr(attr_name)
        self._base.set_attr(attr_name, [value if index in chosen else values[index] for index in range(self.num_envs)])

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:  # noqa: ANN401  # as in SB3
        """Call a method of environments; raise `ValueError` where there are none inside, or only all can be called."""
        chosen = list(self._get_indices(indices))
        if isinstance(self._base, SyncVectorEnv):
            return [method(*args, **kwargs) for method in self.get_attr(method_name, chosen)]
        if not isinstance(self._base, AsyncVectorEnv):
            self._reject(f"method_name={method_name!r}")
        if sorted(chosen) != list(range(self.num_envs)):
            raise ValueError(f"indices={chosen}: must be all environments, an AsyncVectorEnv cannot call some of them")
        results = self._base.call(method_name, *args, **kwargs)
        return [results[index] for index in chosen]

    def _reject(self, argument: str) -> NoReturn:
        raise ValueError(f"{argument}: {self._base} has no environments inside; use adapter.vector_env itself")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return True for `Monitor`, whose work is done here; other wrappers are found in a `SyncVectorEnv` only."""
        chosen = list(self._get_indices(indices))
        if wrapper_class is Monitor or not isinstance(self._base, SyncVectorEnv):
            return [wrapper_class is Monitor for _ in chosen]
        return [is_wrapped(self._base.envs[index], wrapper_class) for index in chosen]
