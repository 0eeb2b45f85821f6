"""The page of a comparison, and the sentences that say what its figures mean."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from coordconv_apps.compare import __main__ as compare
from coordconv_apps.compare.arguments import Settings
from coordconv_apps.compare.extension import NOTHING, Extension, Row
from coordconv_apps.compare.html_page import write_comparison_page
from coordconv_apps.compare.jobs import Job, Plan
from coordconv_apps.compare.plots import plot_results
from coordconv_apps.compare.results import Result, collect
from coordconv_apps.compare.verdict import verdict
from coordconv_apps.report.charts import draw_curves
from coordconv_apps.report.curves import Curve
from tests.compare.harness import Comparison
from tests.helpers.html import Page, check_page
from tests.helpers.planted import EPS, forbid_ghostscript
from tests.report.folders import ODD, write_fit, write_test

ARMS = {"none": 0.0, "xy": 0.2}


def results_of(out: Path, seeds: int = 1, values: tuple[str | None, ...] = (None,)) -> list[Result]:
    """Results of runs in a folder, which are written there."""
    plan = Plan("tests.toy", (), (), out, None if values == (None,) else "model.game")
    jobs = [Job(arm, seed, value) for value in values for seed in range(seeds) for arm in ARMS]
    for job in jobs:
        folder = out / "runs" / "toy" / job.name / "version_0"
        fit = write_fit(folder, job.arm, job.seed, job.name, gain=ARMS[job.arm] + 0.01 * job.seed**2)
        write_test(fit, 0.4 + ARMS[job.arm] * (1 + 0.1 * job.seed))
    return [collect(plan, job) for job in jobs]


def page_of(results: list[Result], out: Path, extension: Extension = NOTHING, over: str | None = None) -> Page:
    plan = Plan("tests.toy", (Path("config.yaml"),), (), out, over)
    settings = Settings("toy", plan, tuple(result.job for result in results), parallel=None, fresh=False)
    return check_page(write_comparison_page(settings, results, extension))


def test_page_of_one_seed_says_that_a_difference_may_be_chance(tmp_path: Path) -> None:
    page = page_of(results_of(tmp_path), tmp_path)
    assert "test/iou: xy is better than none (+0.2; 1 seed). This may be chance: an interval needs 3" in page.text
    assert "none : plain convolutions" in page.text
    labels = [drawing["aria-label"] for drawing in page.attributes("svg")]
    assert labels[:3] == [
        "val/iou by epoch: none from 0 to 0.4; xy from 0.2 to 0.6",
        "test/iou of each seed: none 0.4; xy 0.6",
        "val/map by epoch: none from 0 to 0.2; xy from 0 to 0.2",
    ]
    assert [image["alt"] for image in page.attributes("img")] == ["found of none", "found of xy"]
    assert "argument none xy model.coords none xy" in page.text
    assert "Thin curves" not in page.text
    assert "torch 2.14.1" in page.text


@pytest.mark.parametrize(("baseline", "network"), [("budget", "coordconv"), ("conv", "conv"), ("null", "coordconv")])
def test_a_baseline_of_another_network_is_named(tmp_path: Path, baseline: str, network: str) -> None:
    results = results_of(tmp_path)
    (results[0].folders[0] / "config.yaml").write_text(f"model: {{baseline: {baseline}, network: {network}}}\n")
    page = page_of(results, tmp_path)
    told = "The arm none is another network: model.baseline=budget instead of model.network=coordconv."
    assert (told in page.text) == ("another network" in page.text) == (baseline == "budget")


def test_three_seeds_have_an_interval_and_a_mean_of_curves(tmp_path: Path) -> None:
    page = page_of(results_of(tmp_path, seeds=3), tmp_path)
    said = "test/iou: xy is better than none on average (+0.220 [+0.170, +0.270]; 3 seeds). The 95 % interval does not"
    assert said in page.text
    assert "+0.220 [+0.170, +0.270]" in page.text
    assert "Thin curves are single seeds" in page.text
    colours = [name for name in ("var(--arm-none)", "var(--arm-xy)") if name in page.source]
    assert len(colours) == 2
    curve = page.source[page.source.index("val/iou by epoch") :].partition("</svg>")[0]
    assert curve.count("stroke: var(--arm-xy); stroke-opacity: 0.45") >= 3, "a thin line for each seed"


def test_every_value_has_a_section_of_its_own(tmp_path: Path) -> None:
    results = results_of(tmp_path, values=(ODD, "pong"))
    extension = Extension(notes=[ODD], figures={"all_games": b"no picture", "found": b"shown side by side"})
    page = page_of(results, tmp_path, extension, "model.game")
    assert page.text.count("test/iou: xy is better than none") == 2
    assert f"test/iou by model.game none xy xy - none {ODD} 0.4 0.6 +0.2" in page.text
    assert len(page.attributes("img")) == 4


def test_page_shows_rows_notes_and_figures_of_the_application(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    picture = io.BytesIO()
    Image.new("RGB", (20, 10)).save(picture, format="PNG")
    figures = {"time": picture.getvalue(), "found": picture.getvalue()}
    extension = Extension([Row("doubled", {results[0].job: 0.8}, ".3f")], ["a note"], figures)
    page = page_of(results, tmp_path, extension)
    assert "doubled 0.800 n/a n/a" in page.text
    assert "a note" in page.text
    alternatives = [image["alt"] for image in page.attributes("img")]
    assert alternatives == ["Figure of the application: time", "found of none", "found of xy"], "no picture twice"


def test_failed_runs_are_named_first(tmp_path: Path) -> None:
    page = page_of([Result(Job("none", 0), f"fit failed: {ODD}"), Result(Job("xy", 0), "fit failed")], tmp_path)
    assert f"0 of 2 runs finished; {tmp_path} none-seed0 failed: fit failed: {ODD} xy-seed0 failed" in page.text
    assert page.attributes("table")


@pytest.mark.parametrize(
    ("mode", "xy", "said"),
    [
        ("max", [0.4], "test/iou: xy is worse than none (-0.1; 1 seed). This may be chance"),
        ("min", [0.4], "test/iou: xy is better than none (-0.1; 1 seed)."),
        (None, [0.4], "test/iou: xy is below none (-0.1; 1 seed)."),
        ("max", [0.5, 0.5, 0.5], "test/iou: xy is equal to none on average (+0; 3 seeds). All differences are equal"),
        (
            "max",
            [0.6, 0.4, 0.6],
            "xy is better than none on average (+0.03 [-0.25, +0.32]; 3 seeds). The 95 % interval contains 0",
        ),
        ("max", [0.6, 0.61, 0.62], "[+0.085, +0.135]; 3 seeds). The 95 % interval does not contain 0"),
        ("max", [], "test/iou: no seed has a value of both xy and none."),
    ],
)
def test_verdict_says_whether_an_arm_is_better(mode: str | None, xy: list[float], said: str) -> None:
    values = {"none": [0.5] * 3, "xy": xy}
    results = [
        Result(Job(arm, seed), "", {"test/iou": value}, headline="val/iou", mode=mode)
        for arm, of_arm in values.items()
        for seed, value in enumerate(of_arm)
    ] + [Result(Job("xy", 7), "failed")]
    (line,) = verdict(results)
    assert said in line
    (line,) = verdict([replace(result, headline="val/map") for result in results])  # which the test does not log
    assert "better than" not in line
    assert "worse than" not in line


def test_runs_of_any_lengths_have_a_mean() -> None:
    axes = Figure().subplots()
    draw_curves(axes, {"xy": [Curve("epoch", list(range(1, n + 1)), [float(n)] * n) for n in (300, 301)]})
    *_, mean = axes.lines
    assert len(axes.lines) == 3
    assert set(np.asarray(mean.get_ydata()).tolist()) == {300.5}


def test_the_figure_of_one_seed_has_a_picture_of_each_arm(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(plot_results(results_of(tmp_path), "$x_{$"))) as picture:
        width, height = picture.size
        bottom = np.asarray(picture.convert("RGB"))[-300:]
    assert width == 1650
    assert height > 1500
    halves = bottom[:, : width // 2], bottom[:, width // 2 :]
    assert min(len(np.unique(half.reshape(-1, 3), axis=0)) for half in halves) > 100, "a picture in each half"


def test_a_program_for_ghostscript_is_no_picture_of_an_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_ghostscript(monkeypatch)
    results = results_of(tmp_path)
    for picture in tmp_path.rglob("found.png"):
        picture.write_bytes(EPS)
    with Image.open(io.BytesIO(plot_results(results, ""))) as figure:
        assert figure.height < 1500


def test_a_page_that_cannot_be_drawn_leaves_the_other_files(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Path:
        raise RuntimeError("no page\ntoday")

    monkeypatch.delenv("COORDCONV_REPORT")
    monkeypatch.setattr(compare, "write_comparison_page", fail)
    assert comparison.run("--arms", "none", "--trainer.max_epochs=1") == 1
    printed = capsys.readouterr().out
    assert f"failed:   {comparison.out / 'report.html'}: RuntimeError: no page today\n" in printed
    assert "report:" not in printed
    assert (comparison.out / "comparison.md").is_file()
