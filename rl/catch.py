"""The former path of `rl.envs.catch`, kept for programs that import `Catch` from here."""

from rl.envs.catch import Catch

__all__ = ["Catch"]
