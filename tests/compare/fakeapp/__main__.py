"""`python -m tests.compare.fakeapp fit | test`: writes what an application writes, in a few milliseconds.

Standard library only, so that a run costs no more than the start of an interpreter. `FAKEAPP_CALLS` names a
file that gets one line of JSON for each call.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

PARAMETERS = {"none": 1000, "xy": 1100, "xyr": 1150}
GAIN = {"none": 0.0, "xy": 0.1, "xyr": 0.2}
OTHERS = "val/error,val/f1,val/gap"  # metrics that come before the headline metric


class Interrupted(Exception):
    """SIGTERM came."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def iou(coords: str, seed: int) -> float:
    """Returns the test metric of a run: what a test expects in the table."""
    return 0.5 + GAIN[coords] + 0.01 * seed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["fit", "test"])
    for flag in ("--config", "--model.coords"):
        parser.add_argument(flag, required=True)
    for flag in ("--runs_dir", "--name"):
        parser.add_argument(flag)
    parser.add_argument("--seed_everything", type=int, required=True)
    parser.add_argument("--ckpt_path", type=Path)
    parser.add_argument("--trainer.max_epochs", type=int, default=3)
    parser.add_argument("--trainer.devices")
    parser.add_argument("--model.delay", type=float, default=0.0)
    parser.add_argument("--model.gain", type=float, default=0.0, help="what the metric is higher by")
    parser.add_argument(
        "--model.fail", default="", help="fit, test, kill or full, and a run's name: fit:xy-seed0; fit alone for all"
    )
    parser.add_argument("--model.stubborn", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--print_config", action="store_true")
    args = parser.parse_args()
    if args.print_config:
        print(f"trainer:\n  devices: {json.dumps(vars(args)['trainer.devices'])}")
        parser.exit()
    for name in ("runs_dir", "name"):
        if getattr(args, name) is None:
            parser.error(f"--{name} is missing")
    return args


def _new_folder(parent: Path, kind: str) -> Path:
    folder = parent / f"{kind}_{len(list(parent.glob(f'{kind}_*')))}"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "pid").write_text(str(os.getpid()))
    return folder


def _fit(args: dict[str, Any], folder: Path) -> dict[str, Any]:
    last = folder / "checkpoints" / "last.ckpt"
    first = int(last.read_text()) if last.exists() else 0
    epochs = args["trainer.max_epochs"]
    (folder / "config.yaml").write_text(f"trainer:\n  max_epochs: {epochs}\n")
    final = iou(args["model.coords"], args["seed_everything"]) + args["model.gain"]
    if first == 0:
        (folder / "metrics.csv").write_text(f"epoch,step,train/loss,{OTHERS},val/iou\n0,1,3.0,,,,\n")
    for epoch in range(first, epochs):
        time.sleep(args["model.delay"])
        with (folder / "metrics.csv").open("a") as file:
            file.write(f"{epoch},{epoch + 1},,1,2,3,{final * (epoch + 1) / epochs}\n")
        last.write_text(str(epoch + 1))
    (folder / "checkpoints" / "best.ckpt").write_text(str(epochs))
    return {
        "metrics": {"val/iou": final},
        "best": {"metric": "val/iou", "value": final},
        "epochs": epochs - first,
    }


def _test(args: dict[str, Any], folder: Path) -> dict[str, Any]:
    if not args["ckpt_path"].is_file():
        raise FileNotFoundError(f"no checkpoint {args['ckpt_path']}")
    time.sleep(args["model.delay"])
    (folder / "pictures").mkdir()
    value = iou(args["model.coords"], args["seed_everything"]) + args["model.gain"]
    return {"metrics": {"test/loss": 1 - value, "test/iou": value, "test/undefined": float("nan")}}


def _write_summary(folder: Path, summary: dict[str, Any]) -> None:
    aside = folder / ".summary.json"
    aside.write_text(json.dumps(summary))
    aside.replace(folder / "summary.json")


def main() -> int:
    """Runs a command; returns the exit status."""
    started = time.time()
    args = vars(_arguments())
    signal.signal(signal.SIGTERM, signal.SIG_IGN if args["model.stubborn"] else _interrupt)
    if args["model.fail"] == f"kill:{args['name']}":
        os.kill(os.getpid(), signal.SIGKILL)
    if args["model.fail"] == f"full:{args['name']}":
        print("error: /runs/last.ckpt: cannot be written: no space left on device", file=sys.stderr)
        return 3
    runs = Path(args["runs_dir"], "fakeapp", args["name"])
    resumed = args["command"] == "fit" and args["ckpt_path"] is not None
    fit = runs if args["ckpt_path"] is None else args["ckpt_path"].parent.parent
    folder = fit if resumed else _new_folder(fit, "version" if args["command"] == "fit" else "test")
    summary: dict[str, Any] = {
        "command": args["command"],
        "status": "finished",
        "seconds": 2.0,
        "device": "cpu: fake",
        "headline": "val/iou",
    }
    summary["parameters"] = PARAMETERS[args["model.coords"]]
    _write_summary(folder, {**summary, "status": "running"})
    status = 0
    try:
        if args["model.fail"] in (args["command"], f"{args['command']}:{args['name']}"):
            raise RuntimeError("the fake network exploded")
        summary.update((_fit if args["command"] == "fit" else _test)(args, folder))
    except Interrupted:
        summary["status"] = "interrupted"
        status = 128 + signal.SIGTERM
    except (RuntimeError, FileNotFoundError) as error:
        summary["status"] = "failed"
        print(f"error: {error}\nsome last words", file=sys.stderr)
        status = 1
    _write_summary(folder, summary)
    call = {"args": sys.argv[1:], "start": started, "end": time.time(), "env": dict(os.environ)}
    with Path(os.environ["FAKEAPP_CALLS"]).open("a") as file:
        file.write(json.dumps(call) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
