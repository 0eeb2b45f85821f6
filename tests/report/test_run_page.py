"""The page of a run: what it says, and that a failure to draw it fails nothing else."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest

from coordconv_apps.cli import command_record
from coordconv_apps.report.run_page import write_run_page
from coordconv_apps.runs.summary import read_summary
from tests.helpers.html import check_page
from tests.helpers.planted import EPS, forbid_ghostscript
from tests.report.folders import ODD, write_fit, write_picture, write_test
from tests.toy.__main__ import main


def test_page_of_a_fit_shows_metrics_and_commands(tmp_path: Path) -> None:
    folder = write_fit(tmp_path / "version_0")
    write_picture(folder / "pictures" / "found.png")
    page = check_page(write_run_page(folder, "python -m tests.toy test --ckpt_path best"))
    assert "toy: fit of a" in page.text
    assert "The best val/iou was 0.4 (higher is better), after epoch 3." in page.text
    assert "model.coords=xy: convolutions that also see the position" in page.text
    assert "1,234" in page.text
    assert "optimizer_steps" in page.text
    assert "Drawn at the end of the command" in page.text
    assert "With the same device and versions, this gives the same result." in page.text
    assert f"python -m tests.toy fit --config {folder}/config.yaml" in page.text
    assert "python -m tests.toy test --ckpt_path best" in page.text
    labels = [drawing["aria-label"] for drawing in page.attributes("svg")]
    assert labels == [
        "val/iou by epoch: xy from 0 to 0.4",
        "val/map by epoch: xy from 0 to 0.2",
        "train/loss by epoch: xy from 3 to 1",
    ]
    assert [image["alt"] for image in page.attributes("img")] == ["found of a"]


def test_the_page_of_a_test_shows_the_training_too(tmp_path: Path) -> None:
    folder = write_test(write_fit(tmp_path / "version_0"))
    page = check_page(write_run_page(folder))
    assert "test/iou is 0.4 (higher is better)." in page.text
    assert "metric value real data" in page.text
    assert "test/iou 0.4 0.9" in page.text
    assert "epochs of the training 3" in page.text
    assert len(page.attributes("svg")) == 3
    assert [image["alt"] for image in page.attributes("img")] == ["found of a"]
    write_test(folder.parent, status="interrupted")
    assert "The test was interrupted: " in check_page(write_run_page(folder)).text


def test_texts_are_escaped(tmp_path: Path) -> None:
    folder = write_fit(tmp_path / "version_0", name=ODD, run_facts={ODD: ODD}, device=ODD, app=ODD)
    rows = (folder / "metrics.csv").read_text().replace("val/map", '"<b>$x_{$"')
    (folder / "metrics.csv").write_text(rows)
    write_picture(folder / "pictures" / "<b>.png")
    page = check_page(write_run_page(folder, ODD))
    assert page.text.count("<script>") >= 7
    assert not page.attributes("b")
    assert page.text.count("$x_{$") == 1


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_training_that_did_not_finish_says_so(tmp_path: Path, status: str) -> None:
    folder = write_fit(
        tmp_path / "version_0", epochs=0, status=status, error="Diverged: lower it", best=None, metrics={}
    )
    write_picture(folder / "pictures" / "found.png")
    (folder / "config_until_epoch_2.yaml").touch()
    page = check_page(write_run_page(folder))
    assert "The latest that were drawn: the command did not reach its end." in page.text
    assert "This trains with the last configuration from the start." in page.text
    assert ("was interrupted" if status == "interrupted" else "failed: Diverged: lower it") in page.text
    assert not page.attributes("svg")
    assert "The best" not in page.text


def test_the_size_of_a_page_is_bounded(tmp_path: Path) -> None:
    folder = write_fit(tmp_path / "version_0", epochs=3000)
    for number in range(9):
        write_picture(folder / "pictures" / f"{number}.png", (30, 20) if number else (1500, 1000), number)
    assert (folder / "pictures" / "0.png").stat().st_size > 4_000_000
    path = write_run_page(folder)
    assert path.stat().st_size < 650_000
    page = check_page(path)
    images = page.attributes("img")
    assert len(images) == 8
    assert [(image["width"], image["height"]) for image in images] == [("1100", "733"), *[("30", "20")] * 7]
    assert "Further pictures are in the run's folder pictures : 8." in page.text


@pytest.mark.parametrize("content", [b"no picture", EPS], ids=["text", "EPS"])
def test_a_picture_that_is_none_is_left_out(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_ghostscript(monkeypatch)
    folder = write_fit(tmp_path / "version_0")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "found.png").write_bytes(content)
    page = check_page(write_run_page(folder))
    assert not page.attributes("img")
    assert "pictures : found" in page.text


def fit(runs: Path, *args: str) -> Path:
    main(["fit", f"--runs_dir={runs}", "--trainer.max_epochs=2", "--trainer.accelerator=cpu", *args])
    return runs / "toy" / "default" / "version_0"


def test_fit_and_test_write_their_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COORDCONV_REPORT")
    folder = fit(tmp_path, "--model.coords=xy")
    assert f"report   {folder}/report.html" in capsys.readouterr().out
    page = check_page(folder / "report.html")
    assert f"The best val/distance was {read_summary(folder)['best']['value']:.4g} (lower is better)" in page.text
    assert [image["alt"] for image in page.attributes("img")] == ["dot of default"]
    main(["test", f"--runs_dir={tmp_path}", "--ckpt_path=best", "--trainer.limit_test_batches=1"])
    random = folder.with_name("validate_0")
    main(["validate", f"--runs_dir={tmp_path}", "--allow_random_weights"])
    note = "Values of random weights. The application's documentation defines its metrics."
    assert note in check_page(random / "report.html").text
    page = check_page(folder / "test_0" / "report.html")
    value = read_summary(folder / "test_0")["metrics"]["test/distance"]
    assert f"test/distance is {value:.4g} (lower is better)." in page.text

    # The commands on the pages repeat the runs. No page is written where pages are switched off.
    monkeypatch.setenv("COORDCONV_REPORT", "0")
    capsys.readouterr()
    again = {folder: "version_1", folder / "test_0": "test_1", random: "validate_1"}
    for place, name in again.items():
        text = check_page(place / "report.html").source
        commands = re.findall(r'<pre class="command">(.*?)</pre>', text)
        words = shlex.split(html.unescape(commands[0]))
        assert words[:3] == ["python", "-m", "tests.toy"]
        main(words[3:])
        assert read_summary(place.with_name(name))["metrics"] == read_summary(place)["metrics"]
        assert "report" not in capsys.readouterr().out
        assert not (place.with_name(name) / "report.html").exists()


def test_a_page_that_cannot_be_drawn_fails_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Path:
        raise RuntimeError("no page\ntoday")

    monkeypatch.delenv("COORDCONV_REPORT")
    monkeypatch.setattr(command_record, "write_run_page", fail)
    folder = fit(tmp_path)
    (line,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  report")]
    assert line == ["report", "could", "not", "be", "written", "(RuntimeError:", "no", "page", "today)"]
    assert read_summary(folder)["status"] == "finished"
    assert not (folder / "report.html").exists()
