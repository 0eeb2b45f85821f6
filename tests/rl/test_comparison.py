"""What a comparison of games tells, against hand-made runs whose figures are known."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from coordconv_apps.compare.extension import NOTHING, find_extension
from coordconv_apps.compare.jobs import Job
from coordconv_apps.compare.results import Result
from coordconv_apps.utils.plotting import as_png
from rl import comparison
from rl.comparison import AGGREGATES, MEANING, SCALE, extend, extend_over
from rl.envs.catch import BEST_SCORE, RANDOM_SCORE
from rl.evaluation.scores import ATARI_SCORES, human_normalised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

TOO_FEW = "too few seeds for intervals: they need at least 2, found 1"


class Runs:
    """Runs of a comparison, with the files that tell their game."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: list[Result] = []

    def add(self, game: str, arm: str, scores: Sequence[float], value: str | None = None, error: str = "") -> None:
        """Adds a run for each score, of seeds 0, 1 and so on."""
        for seed, score in enumerate(scores):
            job = Job(arm, seed, value)
            folder = self.folder / job.name
            folder.mkdir()
            (folder / "config.yaml").write_text(f"model:\n  game: {game}\n")
            metrics = {"test/score": score, "test/score_std": 1.0}
            if (normalised := human_normalised(game, score)) is not None:
                metrics["test/human_normalised"] = normalised
            self.results.append(Result(job, error, metrics, folders=(folder,)))

    def add_normalised(self, game: str, **arms: Sequence[float]) -> None:
        """Adds runs of a game that the comparison goes over, by their normalised scores."""
        low, high = ATARI_SCORES[game]
        for arm, scores in arms.items():
            self.add(game, arm, [low + score * (high - low) for score in scores], game)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def values(row: Mapping[Job, float]) -> dict[str, float]:
    return {job.name: value for job, value in row.items()}


# ------------------------------------------------------------------ one game


def test_a_game_has_normalised_scores_and_interquartile_means_with_intervals(runs: Runs) -> None:
    runs.add("pong", "none", [1, 2])
    runs.add("pong", "xy", [5, 4])
    extension = extend(runs.results)
    [row] = extension.rows
    expected = {"none-seed0": 21.7, "none-seed1": 22.7, "xy-seed0": 25.7, "xy-seed1": 24.7}
    assert values(row.values) == pytest.approx({name: score / 35.3 for name, score in expected.items()})
    # Of two seeds a quarter of the resamples has one of them twice: the interval goes from one to the other.
    assert list(extension.notes) == [
        "interquartile mean of test/score: none 1.5 [1, 2] (2 seeds), xy 4.5 [4, 5] (2 seeds)",
        "probability that a run of xy scores higher than a run of none: 1.00 [1.00, 1.00]",
        MEANING,
        "few seeds: with 2 seeds, intervals are about 0.71 times as wide as they should be",  # the square root of 1 / 2
        SCALE,
    ]
    assert extension.figures == {}


def test_the_quarters_at_the_ends_do_not_count_and_ten_seeds_are_enough(runs: Runs) -> None:
    runs.add("pong", "none", [-1000, *[3.0] * 6, 4, 1000, 2000])
    runs.add("pong", "xy", [3.0] * 10)
    notes = extend(runs.results).notes
    middle = (3 * 5 + 4) / 6  # two are left out at each end
    assert notes[0].startswith(f"interquartile mean of test/score: none {middle:.5g} [")
    assert notes[0].endswith("xy 3 [3, 3] (10 seeds)")
    share = (1 * 10 + 6 * 10 / 2) / 100  # of pairs in which xy is higher, and half of those that tie
    assert notes[1].startswith(f"probability that a run of xy scores higher than a run of none: {share:.2f} [")
    assert list(notes[2:]) == [MEANING, SCALE]


def test_one_seed_has_no_interval(runs: Runs) -> None:
    runs.add("pong", "none", [1])
    runs.add("pong", "xy", [0])
    assert list(extend(runs.results).notes) == [
        "interquartile mean of test/score: none 1 (1 seed), xy 0 (1 seed)",
        "probability that a run of xy scores higher than a run of none: 0.00",
        TOO_FEW,
        SCALE,
    ]


def test_an_arm_with_one_seed_has_no_interval_beside_one_that_has(runs: Runs) -> None:
    runs.add("pong", "none", [1])
    runs.add("pong", "xy", [3, 4])
    notes = extend(runs.results).notes
    assert notes[0] == "interquartile mean of test/score: none 1 (1 seed), xy 3.5 [3, 4] (2 seeds)"
    assert "too few seeds for some intervals: an arm with one seed has none" in notes


def test_catch_is_normalised_by_random_and_best_play(runs: Runs) -> None:
    runs.add("catch", "none", [RANDOM_SCORE, BEST_SCORE, (RANDOM_SCORE + BEST_SCORE) / 2])
    [row] = extend(runs.results).rows
    assert list(row.values.values()) == pytest.approx([0, 1, 0.5])


def test_a_game_without_published_scores_has_no_normalised_ones(runs: Runs) -> None:
    runs.add("CarRacing-v3", "none", [800, 900])
    extension = extend(runs.results)
    assert list(extension.rows) == []
    assert extension.notes[0] == "interquartile mean of test/score: none 850 [800, 900] (2 seeds)"
    assert SCALE not in extension.notes


def test_failed_runs_count_nowhere(runs: Runs) -> None:
    runs.add("pong", "none", [1, 2])
    runs.add("pong", "xy", [50, 60], error="test failed")
    extension = extend(runs.results)
    assert list(values(extension.rows[0].values)) == ["none-seed0", "none-seed1"]
    assert list(extension.notes[:2]) == ["interquartile mean of test/score: none 1.5 [1, 2] (2 seeds)", MEANING]
    failed = [result for result in runs.results if result.error]
    assert extend(failed) == extend_over(failed) == NOTHING
    assert extend([Result(Job("none", 0))]) == NOTHING, "finished, but there is no score"


# ------------------------------------------------------------------ several games


@pytest.fixture
def games(runs: Runs) -> Runs:
    """Normalised scores: xy is better at the first game, worse at the second, and either at the third."""
    runs.add_normalised("pong", none=[0.1, 0.2], xy=[0.5, 0.7])
    runs.add_normalised("breakout", none=[0.8, 1.0], xy=[0.2, 0.4])
    runs.add_normalised("qbert", none=[1.5, 3.0], xy=[2.0, 2.5])
    return runs


def told(notes: Sequence[str], name: str, count: str = "3 games, 2 seeds of each") -> str:
    start = f"{name} of normalised scores ({count}): "
    [line] = [line for line in notes if line.startswith(start)]
    return line.removeprefix(start)


@pytest.mark.parametrize(
    ("name", "none", "xy"),
    [
        # In order: 0.1 | 0.2 0.8 1.0 1.5 | 3.0 and 0.2 | 0.4 0.5 0.7 2.0 | 2.5
        ("interquartile mean", 3.5 / 4, 3.6 / 4),
        ("mean", 6.6 / 6, 6.3 / 6),
        ("median of the games' means", 0.9, 0.6),
        ("optimality gap", (0.9 + 0.8 + 0.2) / 6, (0.5 + 0.3 + 0.8 + 0.6) / 6),
    ],
)
def test_figures_of_all_games_are_those_by_hand(games: Runs, name: str, none: float, xy: float) -> None:
    line = told(extend_over(games.results).notes, name)
    first, second = line.removeprefix("none ").split(", xy ")
    for text, value in ((first, none), (second, xy)):
        mean, low, high = (float(number) for number in text.replace("[", "").replace("]", "").replace(",", "").split())
        assert mean == pytest.approx(value, abs=6e-4)
        assert low < mean < high


def test_the_interval_of_the_mean_agrees_with_every_resample(games: Runs) -> None:
    scores = np.array([[0.1, 0.8, 1.5], [0.2, 1.0, 3.0]])
    # Of each game, which run is drawn first and which second.
    drawn = np.stack(np.meshgrid(*[[0, 1]] * 6), axis=-1).reshape(-1, 2, 3)
    every = np.take_along_axis(scores[None], drawn, axis=1).mean(axis=(1, 2))
    low, high = np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    assert told(extend_over(games.results).notes, "mean").startswith(f"none 1.100 [{low:.3f}, {high:.3f}], xy ")


def test_arms_are_compared_by_pairs_of_runs_and_by_games(games: Runs) -> None:
    notes = extend_over(games.results).notes
    share = (4 + 0 + 2) / 4 / 3
    start = f"probability that a run of xy scores higher than a run of none: {share:.2f} ["
    [line] = [line for line in notes if line.startswith(start)]
    assert line.endswith("], mean over games")
    assert "xy against none: better in 1, worse in 1, undecided by the interval in 1 games" in notes
    assert notes[-1] == SCALE
    assert MEANING in notes


def test_with_one_seed_games_are_counted_without_intervals(runs: Runs) -> None:
    runs.add_normalised("pong", none=[0.1], xy=[0.5])
    runs.add_normalised("breakout", none=[0.8], xy=[0.2])
    runs.add_normalised("qbert", none=[0.5], xy=[0.7])
    runs.add_normalised("freeway", none=[0.0], xy=[0.0])
    notes = extend_over(runs.results).notes
    line = "xy against none: higher in 2, lower in 1, equal in 1 games; one seed cannot rule out chance"
    assert line in notes
    assert TOO_FEW in notes
    assert told(notes, "mean", "4 games, 1 seed of each") == "none 0.350, xy 0.350"


def test_only_seeds_and_games_that_all_arms_finished_are_put_together(games: Runs) -> None:
    before = extend_over(games.results).notes
    games.add_normalised("seaquest", none=[0.3, 0.4])
    games.add("CarRacing-v3", "none", [800], "CarRacing-v3")
    games.add("CarRacing-v3", "xy", [900], "CarRacing-v3")
    games.add("enduro", "none", [1], "enduro", error="test failed")
    metrics = {"test/score": 7.0, "test/human_normalised": 0.8}
    games.results.append(Result(Job("xy", 2, "pong"), "", metrics, folders=games.results[0].folders))
    notes = extend_over(games.results).notes
    names = ["seaquest (no seed finished by all arms)", "CarRacing-v3 (no normalised scores)"]
    names += ["enduro (no seed finished by all arms)"]
    assert notes[0] == f"omitted from the aggregates over games: {', '.join(names)}"
    assert list(notes[1 : 1 + len(AGGREGATES)]) == list(before[: len(AGGREGATES)])


def test_without_a_common_seed_nothing_is_said_of_all_games(runs: Runs) -> None:
    runs.add_normalised("pong", none=[0.1], xy=[0.5])
    runs.add_normalised("qbert", none=[0.1, 0.2], xy=[0.5, 0.6])
    runs.results = [r for r in runs.results if r.job.value == "pong" or r.job.seed == 1]
    extension = extend_over(runs.results)
    assert extension.notes[0].startswith("no aggregates over games: no seed was finished by all arms")
    assert extension.figures == {}


def test_values_of_another_argument_are_not_put_together(runs: Runs) -> None:
    for value in ("5", "20"):
        runs.add("pong", "none", [1, 2], value)
        runs.add("pong", "xy", [3, 4], value)
    extension = extend_over(runs.results)
    assert list(extension.notes)[::2] == [MEANING, SCALE]
    assert extension.figures == {}


def test_a_report_over_games_explains_itself_once(games: Runs) -> None:
    notes = find_extension("rl", games.results).notes
    for line in (MEANING, SCALE):
        assert sum(line in note for note in notes) == 1
    assert sum(note.startswith("qbert: interquartile mean of test/score: none ") for note in notes) == 1


# ------------------------------------------------------------------ figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures before they are files."""
    figures: list[Figure] = []

    def keep(figure: Figure, **options: Any) -> bytes:  # noqa: ANN401  # what as_png takes
        figures.append(figure)
        return as_png(figure, **options)

    monkeypatch.setattr(comparison, "as_png", keep)
    return figures


def bars(axes: Axes) -> list[tuple[float, float]]:
    """Where each bar begins, and its width."""
    return [(bar.get_x(), bar.get_width()) for bar in axes.patches if isinstance(bar, Rectangle)]


def test_the_figure_of_games_shows_each_difference_from_best_to_worst(games: Runs, drawn: list[Figure]) -> None:
    figures = extend_over(games.results).figures
    assert list(figures) == ["aggregates", "games"]
    for content in figures.values():
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.width > 1000
    [axes] = drawn[1].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["pong", "qbert", "breakout"]
    assert [width for _, width in bars(axes)] == pytest.approx([0.45, 0, -0.6])
    [intervals] = axes.collections
    assert isinstance(intervals, LineCollection)
    ends = np.array([np.asarray(segment)[:, 0] for segment in intervals.get_segments()])
    # Of two runs in each arm: from one's lower less the other's higher to the opposite.
    assert ends == pytest.approx(np.array([[0.3, 0.6], [-1, 1], [-0.8, -0.4]]))


def test_the_figure_of_all_games_shows_each_arm_in_each_panel(games: Runs, drawn: list[Figure]) -> None:
    notes = extend_over(games.results).notes
    assert [axes.get_title() for axes in drawn[0].axes] == list(AGGREGATES)
    for axes in drawn[0].axes:
        lines = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines]
        shown = [
            f"{arm} {x:.3f} [{low:.3f}, {low + width:.3f}]"
            for arm, x, (low, width) in zip(("none", "xy"), lines, bars(axes), strict=True)
        ]
        assert told(notes, axes.get_title()) == ", ".join(shown)


def test_three_arms_and_one_seed_can_be_drawn(runs: Runs, drawn: list[Figure]) -> None:
    for game in ("pong", "qbert"):
        runs.add_normalised(game, none=[0.1], xy=[0.5], xyr=[0.3])
    extend_over(runs.results)
    assert len(drawn[1].axes[0].patches) == 2 * 2, "bars of two arms for each game"
    assert len(drawn[0].axes[0].lines) == 3
    assert len(drawn[0].axes[0].patches) == 0, "no intervals"


def test_one_arm_has_no_differences_to_draw(games: Runs) -> None:
    extension = extend_over([result for result in games.results if result.job.arm == "none"])
    assert list(extension.figures) == ["aggregates"]
    assert not [note for note in extension.notes if "against" in note]
