"""Run folders for the tests of pages: what an application leaves, in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ODD = "<script>document.title='broken'</script>&\"'"
"""A text that would change a page in which it is not escaped."""

SUMMARY: dict[str, Any] = {
    "app": "toy",
    "package": "tests.toy",
    "status": "finished",
    "error": None,
    "run_facts": {"optimizer_steps": 30},
    "parameters": 1234,
    "headline": "val/iou",
    "monitor_mode": "max",
    "device": "cpu: a fast one x2",
    "precision": "32-true",
    "world_size": 1,
    "versions": {"python": "3.11.7", "torch": "2.14.1", "coordconv_apps": "0.1.0"},
}


def write_picture(path: Path, size: tuple[int, int] = (60, 40), seed: int = 0) -> None:
    """Write a picture of noise, which compresses badly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_fit(
    folder: Path, arm: str = "xy", seed: int = 0, name: str = "a", epochs: int = 3, gain: float = 0.0, **summary: object
) -> Path:
    """Write the folder of a training."""
    folder.mkdir(parents=True)
    rows = [f"{e},{10 * e + 9},{3.0 / (e + 1)},{0.2 * e + gain},{0.1 * e},5" for e in range(epochs)]
    (folder / "metrics.csv").write_text("epoch,step,train/loss,val/iou,val/map,lr\n" + "\n".join(rows) + "\n")
    (folder / "config.yaml").write_text(f"seed_everything: {seed}\nmodel:\n  coords: {arm}\n  lr: 0.1\nname: {name}\n")
    best = {"checkpoint": "best.ckpt", "metric": "val/iou", "value": 0.4 + gain, "epoch": epochs - 1}
    own = {"command": "fit", "name": name, "coords": arm, "seed": seed, "epochs": epochs, "steps": 10 * epochs}
    metrics = {"train/loss": 1.0, "val/iou": 0.4 + gain, "val/broken": None}
    result = {"checkpoint": "best.ckpt", "best": best, "metrics": metrics, "seconds": 61.5}
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, **own, **result, **summary}))
    return folder


def write_test(fit: Path, value: float = 0.4, **summary: object) -> Path:
    """Write the folder of a test below that of its training, with a picture."""
    trained = json.loads((fit / "summary.json").read_text())
    folder = fit / "test_0"
    write_picture(folder / "pictures" / "found.png", seed=trained["seed"])
    (folder / "config.yaml").write_text((fit / "config.yaml").read_text())
    metrics = {"test/iou": value, "test/map": value / 2, "test/floor/iou": 0.9}
    own = {"command": "test", "metrics": metrics, "best": None, "epochs": 0, "steps": 0, "seconds": 2.0}
    (folder / "summary.json").write_text(json.dumps({**trained, **own, **summary}))
    return folder
