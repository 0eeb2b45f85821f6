"""GPUs and cores of the runs of a comparison."""

from pathlib import Path

import pytest

from coordconv_apps.compare import devices


@pytest.mark.parametrize(
    ("parallel", "gpus", "per_job", "expected"),
    [
        (None, [], 1, [None]),
        (3, [], 1, [None] * 3),
        (None, ["0"], 1, ["0"]),
        (3, ["0", "1"], 1, ["0", "1", "0"]),
        (None, ["0", "1", "2", "3", "4"], 2, ["0,1", "2,3"]),
        (None, ["0", "1"], 4, ["0,1"]),  # too few: the application says so
        (None, ["0", "1"], None, [None]),  # the user named the devices
    ],
)
def test_environments(parallel: int | None, gpus: list[str], per_job: int | None, expected: list[str | None]) -> None:
    environments = devices.job_environments(parallel, gpus, per_job, {})
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in environments] == expected


def test_the_users_thread_count_is_left_alone() -> None:
    environments = devices.job_environments(2, [], 1, {"OMP_NUM_THREADS": "3"})
    assert environments == [{}, {}]


@pytest.mark.parametrize(
    ("config", "flags", "expected"),
    [
        ("{}", [], 1),
        ("trainer: {devices: 2}", [], 2),
        ("trainer: {devices: '2'}", [], 2),
        ("trainer: {devices: auto}", [], 1),
        ("trainer: {devices: 2}", ["--trainer.devices=3"], 3),
        ("trainer: {devices: 2}", ["--trainer.devices", "4", "--trainer.max_epochs=1"], 4),
        ("trainer: {devices: [1, 2]}", [], None),
        ("{}", ["--trainer.devices=-1"], None),
        ("{}", ["--trainer.devices=0,1"], None),
    ],
)
def test_requested_gpus(tmp_path: Path, config: str, flags: list[str], expected: int | None) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config)
    assert devices.requested_gpus([path], flags) == expected


@pytest.mark.parametrize(
    ("given", "count", "expected"), [(None, 2, ["0", "1"]), ("3, GPU-ab", 2, ["3", "GPU-ab"]), ("-1", 0, [])]
)
def test_visible_gpus(monkeypatch: pytest.MonkeyPatch, given: str | None, count: int, expected: list[str]) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    assert devices.visible_gpus(environment) == expected
