"""Show a game in a window while it is played."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from coordconv_apps.utils.errors import UserError, one_line
from rl.evaluation.films import STEPS_PER_SECOND

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

_HEIGHT = 480
"""Frames are enlarged by a whole number up to about this height, in pixels."""


class WindowClosed(UserError):
    """The user closed the window."""


class Window:
    """A window that shows one frame after the other, at the speed of the game.

    Args:
        title: Title of the window.

    Raises:
        UserError: There is no display, or pygame is not installed.
    """

    def __init__(self, title: str) -> None:
        try:
            pygame = importlib.import_module("pygame")  # either of pygame and pygame-ce, which minigrid installs
        except ImportError as error:
            raise UserError("data.render_mode=human: needs pygame: pip install pygame-ce") from error
        self._pygame: Any = pygame
        try:
            pygame.display.init()
            pygame.display.set_caption(title)
        except pygame.error as error:
            raise UserError(f"data.render_mode=human: no window can be opened ({one_line(error)})") from error
        # Without a display, SDL draws to memory unless its driver is chosen.
        if pygame.display.get_driver() == "offscreen" and "SDL_VIDEODRIVER" not in os.environ:
            raise UserError("data.render_mode=human: no window can be opened (there is no display)")
        self._clock = pygame.time.Clock()
        self._screen: Any = None

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Show a frame, uint8 ``(H, W, 3)``, once its time has come; raise `WindowClosed` if the user has closed it."""
        pygame = self._pygame
        if any(event.type == pygame.QUIT for event in pygame.event.get()):
            raise WindowClosed("the window was closed")
        height, width = frame.shape[:2]
        zoom = max(1, round(_HEIGHT / height))
        size = (width * zoom, height * zoom)
        if self._screen is None or self._screen.get_size() != size:
            try:
                self._screen = pygame.display.set_mode(size)
            except pygame.error as error:
                raise UserError(f"data.render_mode=human: no window can be opened ({one_line(error)})") from error
        picture = pygame.surfarray.make_surface(np.ascontiguousarray(frame.swapaxes(0, 1)))
        self._screen.blit(pygame.transform.scale(picture, size), (0, 0))
        pygame.display.flip()
        self._clock.tick(STEPS_PER_SECOND)

    def __enter__(self) -> Window:
        """Return the window."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the window."""
        self._pygame.display.quit()
