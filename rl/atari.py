"""The former path of `rl.envs.atari`, kept for programs that import `AtariVecEnv` from here."""

from rl.envs.atari import AtariVecEnv

__all__ = ["AtariVecEnv"]
