"""What a comparison of games tells, against hand-made runs whose figures are known."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy import stats

from coordconv_apps.compare.extension import NOTHING, find_extension
from coordconv_apps.compare.jobs import Job
from coordconv_apps.compare.results import Result
from coordconv_apps.utils.plotting import as_png
from rl import comparison
from rl.comparison import AGGREGATES, MEANING, QUARTERS, SCALE, extend, extend_over
from rl.evaluation.scores import ATARI_SCORES, human_normalised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

TOO_FEW = "too few seeds for intervals: they need at least 3, and some arm has {}"


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
            self.results.append(Result(job, error, metrics, fit_folder=folder))

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


def test_a_game_has_normalised_scores_and_means_with_intervals_of_student(runs: Runs) -> None:
    runs.add("pong", "none", [1, 2, 3])
    runs.add("pong", "xy", [5, 4, 9])
    extension = extend(runs.results)
    [row] = extension.rows
    expected = {"none": (21.7, 22.7, 23.7), "xy": (25.7, 24.7, 29.7)}
    normalised = {
        f"{arm}-seed{seed}": score / 35.3 for arm, scores in expected.items() for seed, score in enumerate(scores)
    }
    assert values(row.values) == pytest.approx(normalised)
    low, high = stats.ttest_1samp([5, 4, 9], 0).confidence_interval()
    assert list(extension.notes) == [
        f"mean of test/score: none 2 [-0.48414, 4.4841] (3 seeds), xy 6 [{low:.5g}, {high:.5g}] (3 seeds)",
        "probability that a run of xy scores higher than a run of none: 1.00",  # all pairs: nothing varies
        MEANING,
        SCALE,
    ]
    assert extension.figures == {}


def test_an_interval_of_a_probability_stays_within_0_and_1(runs: Runs) -> None:
    runs.add("pong", "none", [1, 2, 3, 4])
    runs.add("pong", "xy", [3.5, 5, 6, 7])
    note = extend(runs.results).notes[1]
    assert re.fullmatch(r"probability that .* than a run of none: 0\.94 \[0\.\d\d, 1\.00\]", note)


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_have_no_interval(runs: Runs, seeds: int) -> None:
    runs.add("pong", "none", [1, 2][:seeds])
    runs.add("pong", "xy", [0, 0, 4])
    mean = {1: "1 (1 seed)", 2: "1.5 (2 seeds)"}[seeds]
    notes = extend(runs.results).notes
    assert notes[0].startswith(f"mean of test/score: none {mean}, xy 1.3333 [")
    assert "[" not in notes[1]
    assert list(notes[2:]) == [TOO_FEW.format(seeds), SCALE]


def test_a_game_without_published_scores_has_no_normalised_ones(runs: Runs) -> None:
    runs.add("CarRacing-v3", "none", [800, 900])
    extension = extend(runs.results)
    assert list(extension.rows) == []
    assert extension.notes[0] == "mean of test/score: none 850 (2 seeds)"
    assert SCALE not in extension.notes


def test_failed_runs_count_nowhere(runs: Runs) -> None:
    runs.add("pong", "none", [1, 2])
    runs.add("pong", "xy", [50, 60], error="test failed")
    extension = extend(runs.results)
    assert list(values(extension.rows[0].values)) == ["none-seed0", "none-seed1"]
    assert list(extension.notes[:2]) == ["mean of test/score: none 1.5 (2 seeds)", TOO_FEW.format(2)]
    failed = [result for result in runs.results if result.error]
    assert extend(failed) == extend_over(failed) == NOTHING
    assert extend([Result(Job("none", 0))]) == NOTHING, "finished, but there is no score"


# ------------------------------------------------------------------ several games


@pytest.fixture
def games(runs: Runs) -> Runs:
    """Normalised scores: xy is better at the first game, worse at the second, and either at the third."""
    runs.add_normalised("pong", none=[0.1, 0.2, 0.3], xy=[0.5, 0.7, 0.6])
    runs.add_normalised("breakout", none=[0.8, 1.0, 0.9], xy=[0.2, 0.4, 0.3])
    runs.add_normalised("qbert", none=[1.5, 3.0, 2.4], xy=[2.0, 2.5, 1.8])
    return runs


def told(notes: Sequence[str], name: str, count: str = "3 games, 3 seeds of each") -> str:
    start = f"{name} of normalised scores ({count}): "
    [line] = [line for line in notes if line.startswith(start)]
    return line.removeprefix(start)


@pytest.mark.parametrize(
    ("name", "none", "xy"),
    [
        # In order: 0.1 0.2 | 0.3 0.8 0.9 1.0 1.5 | 2.4 3.0 and 0.2 0.3 | 0.4 0.5 0.6 0.7 1.8 | 2.0 2.5
        ("interquartile mean", 4.5 / 5, 4.0 / 5),
        ("mean", 10.2 / 9, 9.0 / 9),
        ("median of the games' means", 0.9, 0.6),
        ("optimality gap", (0.9 + 0.8 + 0.7 + 0.2 + 0.1) / 9, (0.5 + 0.3 + 0.4 + 0.8 + 0.6 + 0.7) / 9),
    ],
)
def test_aggregates_over_games_are_those_by_hand(games: Runs, name: str, none: float, xy: float) -> None:
    line = told(extend_over(games.results).notes, name)
    first, second = line.removeprefix("none ").split(", xy ")
    for text, value in ((first, none), (second, xy)):
        mean, low, high = (float(number) for number in text.replace("[", "").replace("]", "").replace(",", "").split())
        assert mean == pytest.approx(value, abs=6e-4)
        assert low < mean < high


def test_the_interval_of_the_mean_over_games_is_welchs(games: Runs) -> None:
    scores = np.array([[0.1, 0.8, 1.5], [0.2, 1.0, 3.0], [0.3, 0.9, 2.4]])
    variances = scores.var(axis=0, ddof=1) / 3 / 9  # of a game's part in the mean
    freedom = variances.sum() ** 2 / (variances**2 / 2).sum()
    low, high = stats.t.interval(0.95, freedom, scores.mean(), np.sqrt(variances.sum()))
    assert told(extend_over(games.results).notes, "mean").startswith(f"none 1.133 [{low:.3f}, {high:.3f}], xy ")


def test_arms_are_compared_by_pairs_of_runs_and_by_games(games: Runs) -> None:
    notes = extend_over(games.results).notes
    share = (9 + 0 + 4) / 9 / 3
    start = f"probability that a run of xy scores higher than a run of none: {share:.2f} ["
    [line] = [line for line in notes if line.startswith(start)]
    assert line.endswith("], mean over games")
    assert "xy against none: better in 1, worse in 1, undecided in 1 games" in notes
    assert list(notes[-3:]) == [QUARTERS, MEANING, SCALE]


def test_with_one_seed_games_are_counted_without_intervals(runs: Runs) -> None:
    runs.add_normalised("pong", none=[0.1], xy=[0.5])
    runs.add_normalised("breakout", none=[0.8], xy=[0.2])
    runs.add_normalised("qbert", none=[0.5], xy=[0.7])
    runs.add_normalised("freeway", none=[0.0], xy=[0.0])
    notes = extend_over(runs.results).notes
    line = "xy against none: higher in 2, lower in 1, equal in 1 games; no intervals to rule out chance"
    assert line in notes
    assert TOO_FEW.format(1) in notes
    assert told(notes, "mean", "4 games, 1 seed of each") == "none 0.350, xy 0.350"


def test_only_seeds_and_games_that_all_arms_finished_are_put_together(games: Runs) -> None:
    before = extend_over(games.results).notes
    games.add_normalised("seaquest", none=[0.3, 0.4, 0.5])
    games.add("CarRacing-v3", "none", [800], "CarRacing-v3")
    games.add("CarRacing-v3", "xy", [900], "CarRacing-v3")
    games.add("enduro", "none", [1], "enduro", error="test failed")
    metrics = {"test/score": 7.0, "test/human_normalised": 0.8}
    games.results.append(Result(Job("xy", 3, "pong"), "", metrics, fit_folder=games.results[0].fit_folder))
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


def test_games_without_normalised_scores_are_not_called_unfinished(runs: Runs) -> None:
    for game in ("CarRacing-v3", "lines:Lines-v0"):
        runs.add(game, "none", [1], game)
        runs.add(game, "xy", [2], game)
    names = "CarRacing-v3 (no normalised scores), lines:Lines-v0 (no normalised scores)"
    assert list(extend_over(runs.results).notes) == [
        f"omitted from the aggregates over games: {names}",
        "no aggregates over games: all games are omitted",
        TOO_FEW.format(1),
    ]


def test_values_of_another_argument_are_not_put_together(runs: Runs) -> None:
    for value in ("5", "20"):
        runs.add("pong", "none", [1, 2], value)
        runs.add("pong", "xy", [3, 4], value)
    extension = extend_over(runs.results)
    assert list(extension.notes) == [TOO_FEW.format(2), SCALE]
    assert extension.figures == {}


def test_a_report_over_games_explains_itself_once(games: Runs) -> None:
    notes = find_extension("rl", games.results).notes
    for line in (MEANING, SCALE):
        assert sum(line in note for note in notes) == 1
    assert sum(note.startswith("qbert: mean of test/score: none ") for note in notes) == 1


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
    assert [width for _, width in bars(axes)] == pytest.approx([0.4, -0.2, -0.6])
    [intervals] = axes.collections
    assert isinstance(intervals, LineCollection)
    ends = np.array([np.asarray(segment)[:, 0] for segment in intervals.get_segments()])
    arms = [([0.5, 0.7, 0.6], [0.1, 0.2, 0.3]), ([2.0, 2.5, 1.8], [1.5, 3.0, 2.4]), ([0.2, 0.4, 0.3], [0.8, 1.0, 0.9])]
    welch = [stats.ttest_ind(*pair, equal_var=False).confidence_interval() for pair in arms]
    assert ends == pytest.approx(np.array(welch))


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
