"""Measure canvases per second: `detection.canvas` against the obvious loop, one digit at a time with PIL.

Run `python benchmarks/canvas.py`; `--help` lists its options.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jsonargparse.typing import PositiveInt
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from benchmarks.timing import best_times
from detection.canvas import Canvases, CanvasSettings, draw_canvases
from detection.glyph_sources import load_glyphs
from detection.glyphs import Glyphs

_Bytes = npt.NDArray[np.uint8]


def draw_with_pil(
    pictures: list[_Bytes], count: int, settings: CanvasSettings, seed: int
) -> tuple[list[_Bytes], list[list[tuple[float, ...]]]]:
    """Draw canvases the obvious way, with the same random numbers as `draw_canvases` and so the same result.

    Args:
        pictures: Single glyphs, with any black border, uint8 `(h, w)` each.
        count: Number of canvases.
        settings: As for `draw_canvases`.
        seed: Seed of the random numbers.

    Returns:
        `count` canvases, uint8 `(S, S)`, and the clipped boxes (x0, y0, x1, y1) on each.
    """
    rng = np.random.default_rng(seed)
    images, boxes = [], []
    offset = (settings.canvas_size - settings.image_size) // 2
    for _ in range(count):
        canvas = np.zeros((settings.canvas_size, settings.canvas_size), np.float32)
        kept = []
        for _ in range(settings.digits):
            picture = pictures[int(rng.uniform(0, len(pictures)))]
            ink_y, ink_x = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
            glyph = picture[ink_y[0] : ink_y[-1] + 1, ink_x[0] : ink_x[-1] + 1]
            h, w = (rng.uniform(settings.min_size, settings.max_size) for _ in range(2))
            y, x = rng.uniform(0, settings.canvas_size - h), rng.uniform(0, settings.canvas_size - w)
            first_y, first_x = math.ceil(y - 0.5), math.ceil(x - 0.5)
            scale_y, scale_x = glyph.shape[0] / h, glyph.shape[1] / w
            patch = Image.fromarray(glyph).transform(
                (math.ceil(x + w - 0.5) - first_x, math.ceil(y + h - 0.5) - first_y),
                Image.Transform.AFFINE,
                (scale_x, 0, (first_x - x) * scale_x, 0, scale_y, (first_y - y) * scale_y),
                Image.Resampling.BILINEAR,
            )
            canvas[first_y : first_y + patch.height, first_x : first_x + patch.width] += np.asarray(patch)
            box = [min(max(side - offset, 0.0), settings.image_size) for side in (x, y, x + w, y + h)]
            if min(box[2] - box[0], box[3] - box[1]) >= settings.min_visible:
                kept.append(tuple(box))
        canvas = np.minimum(canvas, 255)
        cut = slice(offset, offset + settings.image_size)
        images.append(canvas[cut, cut].astype(np.uint8))
        boxes.append(kept)
    return images, boxes


def pictures_of(glyphs: Glyphs, size: int) -> list[_Bytes]:
    """Return glyphs as in their source: on black squares of `size` pixels."""
    pictures = []
    for image, (h, w) in zip(glyphs.images.numpy(), glyphs.sizes.tolist(), strict=True):
        picture = np.zeros((size, size), np.uint8)
        top, left = (size - h) // 2, (size - w) // 2
        picture[top : top + h, left : left + w] = image[:h, :w]
        pictures.append(picture)
    return pictures


def draw_fast(glyphs: Glyphs, settings: CanvasSettings, count: int) -> Canvases:
    """Draw canvases with seed 0."""
    return draw_canvases(glyphs, count, settings, np.random.default_rng(0))


def main() -> None:
    """Print one table: canvases per second of both, and their ratio, per source."""
    parser = argparse.ArgumentParser(description="Canvases per second, against a loop with PIL.")
    parser.add_argument("--sources", nargs="+", default=["mnist", "uci"], choices=["mnist", "uci"])
    parser.add_argument("--root", default=os.environ.get("COORDCONV_DATA", "data"), help="data root, for MNIST")
    parser.add_argument("--count", type=PositiveInt, default=9000, help="canvases drawn at once (by the loop a ninth)")
    parser.add_argument("--repeats", type=PositiveInt, default=5, help="the shortest of so many runs counts")
    options = parser.parse_args()
    settings = CanvasSettings()
    print(settings)
    print(f"{'source':8}{'PIL loop /s':>14}{'detection.canvas /s':>22}{'ratio':>8}{'greatest difference':>22}")
    few = max(1, options.count // 9)
    for source in options.sources:
        try:
            glyphs = load_glyphs(source, ["train"], root=Path(options.root))["train"]
        except FileNotFoundError as error:
            print(f"{source:8}left out: {error}")
            continue
        pictures = pictures_of(glyphs, 28 if source == "mnist" else 8)
        slow = partial(draw_with_pil, pictures, few, settings)
        fast = partial(draw_fast, glyphs, settings)
        difference = np.abs(np.stack(slow(0)[0]).astype(int) - fast(few).images.numpy()).max()
        slow_time, fast_time = best_times(options.repeats, partial(slow, 0), partial(fast, options.count))
        slow_rate, fast_rate = few / slow_time, options.count / fast_time
        print(f"{source:8}{slow_rate:14,.0f}{fast_rate:22,.0f}{fast_rate / slow_rate:8.1f}{f'{difference} of 255':>22}")


if __name__ == "__main__":
    main()
