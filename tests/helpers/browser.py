"""Show pages in a headless Chromium: their widths, messages and pixels. Nothing outside the machine is asked."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions")

HEIGHT = 2000  # of the window, in pixels

MEASURE = """
<script>
addEventListener("load", () => {
  const shown = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    const outside = [...page.body.querySelectorAll("*")].filter(each => {
      const scrolled = each.closest(".scroll, pre, svg");
      return (!scrolled || scrolled === each) && each.getBoundingClientRect().right > root.clientWidth + 1;
    });
    const broken = [...page.images].filter(image => image.naturalWidth === 0).length;
    return {width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight, broken,
            outside: outside.map(each => each.outerHTML.slice(0, 80)),
            ground: getComputedStyle(page.body).backgroundColor,
            drawings: [...page.querySelectorAll("svg")].map(each => each.getBoundingClientRect().height)};
  });
  const text = encodeURIComponent(JSON.stringify(shown));
  document.body.insertAdjacentHTML("beforeend", `<pre id="measured">${text}</pre>`);
});
</script>
"""


class Shown(NamedTuple):
    """A page at one width.

    Attributes:
        width: Of the viewport, in pixels.
        scroll: Width of the content; larger than ``width`` if the page scrolls sideways.
        height: Of the content.
        broken: Number of images that could not be shown.
        outside: Beginnings of the elements that reach beyond the right edge and do not scroll.
        ground: The background colour, as CSS.
        drawings: Heights of the charts.
    """

    width: int
    scroll: int
    height: int
    broken: int
    outside: list[str]
    ground: str
    drawings: list[float]


def show(pages: Sequence[tuple[Path, int]], folder: Path, *, dark: bool = False) -> tuple[list[Shown], list[str], Path]:
    """Show pages, each at a width, side by side.

    Returns:
        What each page measures, the messages on the console, and a screenshot.
    """
    assert CHROMIUM is not None
    frames = "".join(
        f'<iframe srcdoc="{html.escape(page.read_text(encoding="utf-8"))}" style="width:{width}px"></iframe>'
        for page, width in pages
    )
    total = sum(width for _, width in pages)
    wrapper, picture = folder / "frames.html", folder / f"screenshot{'-dark' if dark else ''}.png"
    style = f"<style>body{{margin:0;white-space:nowrap;width:{total}px}} iframe{{border:0;height:{HEIGHT}px}}</style>"
    head = f'<head><meta charset="utf-8">{style}{MEASURE}</head>'
    wrapper.write_text(f"<!DOCTYPE html><html>{head}<body>{frames}</body></html>", encoding="utf-8")
    options = [*OPTIONS, f"--user-data-dir={folder / 'chromium'}", f"--window-size={total},{HEIGHT}"]
    options += ["--enable-logging=stderr", f"--screenshot={picture}", "--dump-dom", "--virtual-time-budget=5000"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [CHROMIUM, *options, wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    measured = re.search(r'<pre id="measured">([^<$]+)</pre>', done.stdout)
    assert measured is not None, done.stderr
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return [Shown(**frame) for frame in json.loads(unquote(measured[1]))], messages, picture
