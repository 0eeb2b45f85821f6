"""The window that shows a game: its frames, its end, and a machine without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from coordconv_apps.utils.errors import UserError
from rl.__main__ import main
from rl.evaluation.window import Window, WindowClosed
from tests.rl.test_app import TINY

if TYPE_CHECKING:
    from pathlib import Path

pygame = pytest.importorskip("pygame")


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def test_frames_are_shown_enlarged_at_the_speed_of_the_game() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[:, 150:] = 250, 120, 7
    with Window("pong") as window:
        started = pygame.time.get_ticks()
        for _ in range(6):
            window.show(frame)
        assert pygame.time.get_ticks() - started >= 5 * 1000 / 15 * 0.8
        screen = pygame.display.get_surface()
        assert screen.get_size() == (1000, 500)
        assert screen.get_at((900, 250))[:3] == (250, 120, 7)
        assert screen.get_at((100, 250))[:3] == (0, 0, 0)
        assert pygame.display.get_caption()[0] == "pong"
    assert not pygame.display.get_init()


def test_closing_the_window_ends_the_game() -> None:
    with Window("pong") as window:
        window.show(np.zeros((8, 8, 3), np.uint8))
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        with pytest.raises(WindowClosed, match="the window was closed"):
            window.show(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("driver", ["x11", None])
def test_a_machine_without_a_display_is_reported(driver: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    if driver is not None:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    with pytest.raises(UserError, match=r"^data\.render_mode=human: no window can be opened \([^\n]*\)$"):
        Window("pong")


def test_predict_shows_each_step_and_films_as_without_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[tuple[int, ...]] = []
    monkeypatch.setattr(Window, "show", lambda self, frame: shown.append(frame.shape))
    arguments = ["--allow_random_weights", *TINY, "--data.balls=1", "--data.eval_max_steps=null"]
    texts = []
    for mode in ("null", "human"):
        main(["predict", *arguments, f"--data.render_mode={mode}", f"--runs_dir={tmp_path / mode}"])
        texts.append(capsys.readouterr().out)
    films = [next((tmp_path / mode).rglob("000.gif")).read_bytes() for mode in ("null", "human")]
    assert films[0] == films[1]
    steps = int(texts[1].partition("episode 0: ")[2].split(" in ")[1].split()[0])
    assert shown == [(84, 84, 3)] * steps
