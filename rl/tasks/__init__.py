"""The tasks, one method in each file."""

from rl.tasks.a2c import A2C
from rl.tasks.base import RLTask
from rl.tasks.dqn import DQN
from rl.tasks.ppo import PPO

__all__ = ["A2C", "DQN", "PPO", "RLTask"]
