"""More than 200 damaged files beyond images: each is read or refused by name, in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import time
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordconv_apps.cli.checkpoint_state import read_run_state
from coordconv_apps.cli.start import check_config_texts
from coordconv_apps.runs.csv_log import CsvLog
from coordconv_apps.runs.folder import find_checkpoint
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.utils.config_files import shipped_configs
from coordconv_apps.utils.errors import UserError, is_user_error, one_line
from coordconv_apps.utils.torch_files import check_torch_file
from coordconv_apps.utils.weight_files import read_state
from detection.idx_files import read_idx
from rl.policy_files import DESCRIPTION_NAME, TENSORS_NAME, export_safe, load_safe
from tests.data.damage import damaged, special_files
from tests.helpers.limits import time_limit
from tests.helpers.runs import rows
from tests.rl.tiny import make_a2c
from tests.toy.__main__ import main
from tests.toy.tasks import ToyTask

SECONDS, MEGABYTES = 10, 400
"""Limits of all files of one format together."""


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """Fail if time or memory grow; a read that waits forever is interrupted."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with time_limit(120):
        yield
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1000


def check(
    folder: Path,
    suffix: str,
    versions: dict[str, bytes],
    read: Callable[[Path], object],
    may_be_read: tuple[str, ...] = (),
) -> None:
    """Read damaged and special files; each is read, or refused in one line that names it."""
    paths = [folder / f"{name}{suffix}" for name in versions]
    for path, content in zip(paths, versions.values(), strict=True):
        path.write_bytes(content)
    wrong = []
    for path in [*paths, *special_files(folder, suffix)]:
        try:
            read(path)
        except Exception as error:
            if not is_user_error(error, running=False) or one_line(path.name)[:100].strip() not in one_line(error):
                wrong.append(f"{path.name!r}: {type(error).__name__}: {one_line(error)[:300]}")
        else:
            if not path.name.startswith(may_be_read):
                wrong.append(f"{path.name!r}: was read")
    assert not wrong, "\n".join(wrong)


# ---------------------------------------------------------------------------- IDX


def idx(shape: tuple[int, ...], content: bytes) -> bytes:
    return b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def test_damaged_idx_files_are_read_or_refused(tmp_path: Path) -> None:
    content = idx((20, 8, 8), np.random.default_rng(0).integers(0, 256, 1280, np.uint8).tobytes())
    versions = damaged(content) | {
        "axes": b"\0\0\x08\xff" + b"\xff" * 1020,
        "float": b"\0\0\x0d" + content[3:],
        "huge": idx((60_000, 60_000, 60_000), bytes(100)),
        "overflow": idx((2**32 - 1,) * 8, bytes(100)),
        "less": idx((20, 8, 7), bytes(1280)),
        "more": idx((20, 8, 9), bytes(1280)),
    }
    check(tmp_path, "-idx3-ubyte", versions, read_idx, ("flip", "end"))


def test_damaged_compressed_idx_files_are_read_or_refused(tmp_path: Path) -> None:
    content = idx((20, 8, 8), np.random.default_rng(0).integers(0, 256, 1280, np.uint8).tobytes())
    bomb = gzip.compress(bytes(2**24), 9) * 64  # 1 GiB
    versions = damaged(gzip.compress(content)) | {
        "inner": gzip.compress(content[:100]),
        "bomb": bomb,
        "declared": gzip.compress(idx((60_000, 60_000), bytes(100))),
        "rest": gzip.compress(content) + bomb,
    }
    check(tmp_path, "-idx3-ubyte.gz", versions, read_idx, ("flip",))


# -------------------------------------------------------------------- checkpoints


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def squeezed(content: bytes) -> bytes:
    """The same zip file, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


def test_damaged_checkpoints_are_read_or_refused(tmp_path: Path) -> None:
    main(["fit", f"--runs_dir={tmp_path}/runs", "--trainer.max_steps=1"])
    content = (tmp_path / "runs/toy/default/version_0/checkpoints/last.ckpt").read_bytes()
    whole = torch.load(io.BytesIO(content), weights_only=True)
    run = whole["run"]
    circle: dict[str, Any] = {}
    circle["model"] = circle
    versions = damaged(content) | {
        "list": saved([1, 2]),
        "number": saved(3),
        "nothing": saved({}),
        "weights": saved(whole["state_dict"]),
        "run": saved({**whole, "run": 3}),
        "bare": saved({**whole, "run": {}}),
        "config": saved({**whole, "run": {**run, "config": 3}}),
        "model": saved({**whole, "run": {**run, "config": {"model": [1]}}}),
        "circle": saved({**whole, "run": {**run, "config": circle}}),
        "epochs": saved({**whole, "run": {**run, "epochs": "many"}}),
        "bomb": squeezed(saved({**whole, "bomb": torch.zeros(2**24)})),
        "zip": squeezed(content),
    }

    def read(path: Path) -> None:
        state = read_run_state(find_checkpoint(str(path), tmp_path))
        assert set(state) >= {"epochs", "steps", "config"}

    check(tmp_path, ".ckpt", versions, read, ("twice", "flip"))


def test_weights_that_contain_themselves(tmp_path: Path) -> None:
    circle: dict[str, Any] = {}
    circle["state_dict"] = circle
    torch.save(circle, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"^model\.weights='.*a\.pt': must hold a state dict$"):
        read_state(tmp_path / "a.pt", "model.weights")


# ------------------------------------------ small files that would take much memory or time


class Call:
    """A call that a pickle makes when it is loaded."""

    def __init__(self, *call: Any) -> None:  # noqa: ANN401
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def overlapping(content: bytes) -> bytes:
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("more", "")  # so that the list of parts is written again
        archive.filelist += archive.filelist[:1] * 1000
    return buffer.getvalue()


def two_lists(content: bytes, hidden: bytes) -> bytes:
    """Return a zip file with two lists of parts: zipfile reads that of ``content``, torch that of ``hidden``."""
    (parts, entries), (hidden_parts, hidden_entries) = (split_zip(each) for each in (content, hidden))
    size = len(entries)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0, 0, size, len(parts + hidden_parts) + size + 22, size)
    end = end[:8] + content[-14:-10] + end[12:]  # the number of parts
    return parts + hidden_parts + moved(entries, size + 22) + end + moved(hidden_entries, len(parts))


def split_zip(content: bytes) -> tuple[bytes, bytes]:
    size, place = struct.unpack("<II", content[-10:-2])
    return content[:place], content[place : place + size]


def moved(entries: bytes, by: int) -> bytes:
    """Return the list of a zip file's parts with ``by`` added to their places."""
    changed, place = bytearray(entries), 0
    while place < len(changed):
        lengths = struct.unpack("<HHH", changed[place + 28 : place + 34])
        (start,) = struct.unpack("<I", changed[place + 42 : place + 46])
        changed[place + 42 : place + 46] = struct.pack("<I", start + by)
        place += 46 + sum(lengths)
    return bytes(changed)


def rezipped(value: object) -> bytes:
    """Return a file of torch without the extra fields of its zip format."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(value))) as archive, zipfile.ZipFile(buffer, "w") as copy:
        for entry in archive.infolist():
            copy.writestr(entry.filename, archive.read(entry))
    return buffer.getvalue()


def test_a_second_list_of_parts_is_refused(tmp_path: Path) -> None:
    shown, hidden = rezipped({"state_dict": {"a": [1]}}), rezipped({"state_dict": {"a": [2]}})
    content = two_lists(shown, hidden)
    assert torch.load(io.BytesIO(content), weights_only=True) == {"state_dict": {"a": [2]}}
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(io.BytesIO(shown)) as as_shown:
        assert archive.read("archive/data.pkl") == as_shown.read("archive/data.pkl")
    (tmp_path / "a.ckpt").write_bytes(content)
    refused(tmp_path, "the parts of this zip file overlap")


ONE = torch.zeros(1)
LARGE: dict[str, tuple[Callable[[], object], str]] = {
    "bytearray": (lambda: Call(bytearray, (10**9,)), "dense tensors and plain values; it names "),
    "copy": (
        lambda: Call(torch._utils._rebuild_device_tensor_from_cpu_tensor, (ONE.expand(10**9), torch.int, "cpu", False)),
        "it names torch._utils._rebuild_device_tensor_from_cpu_tensor",
    ),
    "tensor": (lambda: Call(torch.FloatTensor, (10**9,)), "it names torch.FloatTensor"),
    "sparse": (lambda: ONE.to_sparse(), "it names torch._utils._rebuild_sparse_tensor"),
}


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("legacy", [False, True])
def test_values_that_would_grow_are_refused(kind: str, legacy: bool, tmp_path: Path) -> None:
    create, message = LARGE[kind]
    value = create()
    checkpoint = {"state_dict": {}, "hyper_parameters": {"width": value}, "epoch": 0, "global_step": 0}
    torch.save(checkpoint, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not legacy)
    refused(tmp_path, message, legacy)


def test_a_config_that_hides_its_items_is_refused(tmp_path: Path) -> None:
    hiding = Call(OrderedDict, (), {"items": OrderedDict}, None, iter([("a", 1)]))
    checkpoint = {"state_dict": {}, "hyper_parameters": {"width": hiding}, "epoch": 0, "global_step": 0}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_run_state(tmp_path / "a.ckpt")


@pytest.mark.parametrize(("levels", "parts"), [(12, 10), (200, 1)])
def test_a_config_of_too_many_values_or_levels_is_refused(levels: int, parts: int, tmp_path: Path) -> None:
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value] * parts
    checkpoint = {"state_dict": {}, "hyper_parameters": {"width": value}, "epoch": 0, "global_step": 0}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_run_state(tmp_path / "a.ckpt")


@pytest.mark.parametrize(("change", "message"), [("squeezed", "not a compressed zip"), ("overlapping", "overlap")])
def test_parts_that_would_grow_are_refused(change: str, message: str, tmp_path: Path) -> None:
    content = saved({"state_dict": {"weight": torch.zeros(2**20)}, "hyper_parameters": {}})
    (tmp_path / "a.ckpt").write_bytes({"squeezed": squeezed, "overlapping": overlapping}[change](content))
    refused(tmp_path, message)


def refused(folder: Path, message: str, legacy: bool = False) -> None:
    """Check that all that read files of others refuse ``a.ckpt`` in one line."""
    path = folder / "a.ckpt"
    export_safe(make_a2c(policy_kwargs={"features_extractor_kwargs": {"features_dim": 16}}), folder / "policy.zip")
    with zipfile.ZipFile(folder / "policy.zip") as archive:
        description = archive.read(DESCRIPTION_NAME)
    with zipfile.ZipFile(folder / "policy.zip", "w") as archive:
        archive.writestr(DESCRIPTION_NAME, description)
        archive.write(path, TENSORS_NAME)
    readers: dict[str, Callable[[], object]] = {
        f"--ckpt_path={path}: ": lambda: read_run_state(path),
        f"model.weights={str(path)!r}: ": lambda: read_state(path, "model.weights"),
        f"{path}: ": lambda: ToyTask.load_from_checkpoint(path),
        f"{folder / 'policy.zip'}: ": lambda: load_safe(folder / "policy.zip"),
    }
    for begin, read in readers.items():
        with pytest.raises((UserError, ValueError)) as caught:
            read()
        told = str(caught.value)
        assert told.startswith(begin)
        assert "\n" not in told
        assert message in told or ("policy.zip" in begin and (legacy or "uncompressed zip" in told)), told


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_and_plain_values_of_all_kinds_are_read(legacy: bool, tmp_path: Path) -> None:
    tied = torch.nn.Parameter(torch.ones(2))
    plain = {"bytes": b"a\xff", "set": {1}, "counts": Counter([1]), "complex": 1j, "size": ONE.shape, "text": "x y"}
    more = [torch.ones(2, dtype=kind) for kind in (torch.bfloat16, torch.bool, torch.int64, torch.complex64)]
    several = [*range(10_000)]
    state = torch.nn.LSTM(2, 3).state_dict() | {"a": tied, "b": tied}
    shared = {"shared": [several] * 10, "device": torch.device("cpu"), "type": torch.float16}
    value = {"state_dict": state, "more": more, **plain, **shared}
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert set(read_state(tmp_path / "a.pt", "weights")) == set(state)
    content = io.BytesIO((tmp_path / "a.pt").read_bytes())
    check_torch_file(content, "a.pt")
    assert content.tell() == 0
    assert torch.load(content, weights_only=True)["shared"] == [several] * 10


# ----------------------------------------------------------------------- policies


def test_damaged_policies_are_read_or_refused(tmp_path: Path) -> None:
    export_safe(make_a2c(policy_kwargs={"features_extractor_kwargs": {"features_dim": 16}}), tmp_path / "whole.zip")
    content = (tmp_path / "whole.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def zipped(**changed: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, changed.get(name.partition(".")[0], part))
        return buffer.getvalue()

    description = json.loads(parts["policy.json"])
    huge = {**description["observation_space"], "shape": [3, 10**9, 10**9]}
    versions = damaged(content) | {
        "json": zipped(policy=b"{"),
        "binary": zipped(policy=bytes(range(256))),
        "deep": zipped(policy=b"[" * 100_000),
        "list": zipped(policy=b"[]"),
        "space": zipped(policy=json.dumps({**description, "observation_space": huge}).encode()),
        "layers": zipped(policy=json.dumps({**description, "net_arch": [65_000] * 64}).encode()),
        "tensors": zipped(tensors=b"PK"),
        "other": zipped(tensors=saved([1])),
        "inner": zipped(tensors=parts["tensors.pt"][:5000]),
        "squeezed": squeezed(content),
    }
    check(tmp_path, ".zip", versions, load_safe, ("flip", "twice"))


# ------------------------------------------------------------------------ configs


def test_damaged_configs_are_read_or_refused(tmp_path: Path) -> None:
    content = shipped_configs("detection")["quickstart"].read_bytes()
    versions = damaged(content) | {
        "utf16": content.decode().encode("utf-16"),
        "bomb": b"a: &a [1, 1]\n" + b"".join(b"x%d: &x%d [*a, *a]\n" % (i, i) for i in range(60_000)),
        "deep": b"a: " + b"[" * 5000,
        "large": b"a: " + b"x" * 2_000_000,
        "keys": b"lr: 1\nlr: 2\n",
        "latin": b"name: \xe9\n",
    }
    # The rest is left to the parser of the command line, see tests/cli/test_mutated_commands.py.
    left_to_parser: tuple[str, ...] = ("cut", "byte", "empty", "zeros", "end", "text", "magic", "hole", "flip")
    left_to_parser += ("new\nline", "n" * 200, " ", "'\"", "-", "~", "\udcff")
    check(
        tmp_path, ".yaml", versions, lambda path: check_config_texts("detection", [f"--config={path}"]), left_to_parser
    )


# ------------------------------------------------------------------ logs of a run


@pytest.mark.parametrize("number", range(15))
def test_a_damaged_log_is_kept_aside_and_continued(number: int, tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    for step in range(30):
        log.log_metrics({"train/loss": 1 / (step + 1), "val/iou": 0.5}, step)
    log.save()
    content = log.file.read_bytes()
    name, changed = [*damaged(content).items()][number]
    log.file.write_bytes(changed)
    resumed = CsvLog(tmp_path, keep_until=20)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        resumed.log_metrics({"train/loss": 0.25, "val/iou": 0.5}, 21)
    resumed.save()
    assert [str(each.message)[:9] for each in warned] in ([], [str(tmp_path)[:9]])
    written = rows(tmp_path)
    assert written[-1]["train/loss"] == "0.25", name
    assert all(float(value) > -1 for row in written for value in row.values() if value), name
    aside = tmp_path / "metrics_damaged.csv"
    assert not aside.exists() or aside.read_bytes() == changed, name
    assert aside.exists() == bool(warned)
    assert warned or name.startswith(("cut", "empty", "byte", "flip", "text")), name


def test_damaged_summaries_raise_no_error(tmp_path: Path) -> None:
    content = json.dumps({"status": "finished", "metrics": {"a": 1.0}}).encode()
    for version in damaged(content).values():
        (tmp_path / "summary.json").write_bytes(version)
        assert isinstance(read_summary(tmp_path), dict)
    (tmp_path / "summary.json").write_bytes(b"[" * 100_000)
    assert read_summary(tmp_path) == {}
