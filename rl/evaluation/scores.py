"""Reference scores: random actions and a human for Atari games, random and best play for Catch."""

from __future__ import annotations

from typing import NamedTuple

from rl.envs.catch import BALLS, BEST_SCORE, PADDLE, RANDOM_SCORE
from rl.envs.game_options import DEFAULTS, GameOptions
from rl.envs.games import find_kind


class Reference(NamedTuple):
    """Mean episode scores from unclipped rewards: of random actions, and of a human or, for Catch, the best player."""

    random: float
    good: float


ATARI_SCORES = {
    "alien": Reference(227.8, 7127.7),
    "amidar": Reference(5.8, 1719.5),
    "assault": Reference(222.4, 742.0),
    "asterix": Reference(210.0, 8503.3),
    "asteroids": Reference(719.1, 47388.7),
    "atlantis": Reference(12850.0, 29028.1),
    "bank_heist": Reference(14.2, 753.1),
    "battle_zone": Reference(2360.0, 37187.5),
    "beam_rider": Reference(363.9, 16926.5),
    "berzerk": Reference(123.7, 2630.4),
    "bowling": Reference(23.1, 160.7),
    "boxing": Reference(0.1, 12.1),
    "breakout": Reference(1.7, 30.5),
    "centipede": Reference(2090.9, 12017.0),
    "chopper_command": Reference(811.0, 7387.8),
    "crazy_climber": Reference(10780.5, 35829.4),
    "defender": Reference(2874.5, 18688.9),
    "demon_attack": Reference(152.1, 1971.0),
    "double_dunk": Reference(-18.6, -16.4),
    "enduro": Reference(0.0, 860.5),
    "fishing_derby": Reference(-91.7, -38.7),
    "freeway": Reference(0.0, 29.6),
    "frostbite": Reference(65.2, 4334.7),
    "gopher": Reference(257.6, 2412.5),
    "gravitar": Reference(173.0, 3351.4),
    "hero": Reference(1027.0, 30826.4),
    "ice_hockey": Reference(-11.2, 0.9),
    "jamesbond": Reference(29.0, 302.8),
    "kangaroo": Reference(52.0, 3035.0),
    "krull": Reference(1598.0, 2665.5),
    "kung_fu_master": Reference(258.5, 22736.3),
    "montezuma_revenge": Reference(0.0, 4753.3),
    "ms_pacman": Reference(307.3, 6951.6),
    "name_this_game": Reference(2292.3, 8049.0),
    "phoenix": Reference(761.4, 7242.6),
    "pitfall": Reference(-229.4, 6463.7),
    "pong": Reference(-20.7, 14.6),
    "private_eye": Reference(24.9, 69571.3),
    "qbert": Reference(163.9, 13455.0),
    "riverraid": Reference(1338.5, 17118.0),
    "road_runner": Reference(11.5, 7845.0),
    "robotank": Reference(2.2, 11.9),
    "seaquest": Reference(68.4, 42054.7),
    "skiing": Reference(-17098.1, -4336.9),
    "solaris": Reference(1236.3, 12326.7),
    "space_invaders": Reference(148.0, 1668.7),
    "star_gunner": Reference(664.0, 10250.0),
    "surround": Reference(-10.0, 6.5),
    "tennis": Reference(-23.8, -8.3),
    "time_pilot": Reference(3568.0, 5229.2),
    "tutankham": Reference(11.4, 167.6),
    "up_n_down": Reference(533.4, 11693.2),
    "venture": Reference(0.0, 1187.5),
    "video_pinball": Reference(16256.9, 17667.9),
    "wizard_of_wor": Reference(563.5, 4756.5),
    "yars_revenge": Reference(3092.9, 54576.9),
    "zaxxon": Reference(32.5, 9173.3),
}
"""The 57 games of Wang et al. (2016, "Dueling Network Architectures", appendix: up to 30 no-ops at the start).

Copied from DeepMind's DQN Zoo (`dqn_zoo/atari_data.py`). The random scores agree with Google's `reincarnating_rl`
(`atari_scores.py`) except for Video Pinball, where that table has 0. Mnih et al. (2015, Extended Data Table 2) list 49
of the games with the same random scores, rounded differently, and other humans (Pong 9.3, Breakout 31.8); the field
normalises with the table here. The emulators had no sticky actions.
"""


def reference_scores(game: str, options: GameOptions = DEFAULTS) -> Reference | None:
    """Return the reference scores of a game; None where none are published.

    Args:
        game: Name of the game, in any spelling that `rl.envs.games.make_envs` accepts.
        options: Its options. Catch by other rules has no reference, and no Atari game in another mode or difficulty.
    """
    try:
        kind = find_kind(game)
    except (ValueError, ImportError):
        return None
    if kind == "catch" and (options.balls, options.paddle) == (BALLS, PADDLE):
        return Reference(RANDOM_SCORE, BEST_SCORE)
    if kind == "atari":
        from rl.envs.emulator import available_settings  # here: the help of a command does without ale-py
        from rl.envs.roms import find_game

        name = find_game(game)
        if all(value == available_settings(name)[setting][0] for setting, value in options.arguments.items()):
            return ATARI_SCORES.get(name)
    return None


def human_normalised(game: str, score: float, options: GameOptions = DEFAULTS) -> float | None:
    """Normalise a score so that random actions get 0 and a human 1; for Catch, best play gets 1.

    Returns:
        ``(score - random) / (human - random)``, which may be below 0 and above 1; None where `reference_scores` has
        no reference.

    Example:
        >>> round(human_normalised("ALE/Pong-v5", 21.0), 3)
        1.181
    """
    reference = reference_scores(game, options)
    return None if reference is None else (score - reference.random) / (reference.good - reference.random)
