"""GPUs and cores of the runs of a comparison."""

import pytest

from coordconv_apps.compare.gpus import job_environments, visible_gpus


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
def test_gpus_are_divided_among_jobs(
    parallel: int | None, gpus: list[str], per_job: int | None, expected: list[str | None]
) -> None:
    environments = job_environments(parallel, gpus, per_job, {})
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in environments] == expected


def test_the_users_thread_count_is_left_alone() -> None:
    environments = job_environments(2, [], 1, {"OMP_NUM_THREADS": "3"})
    assert environments == [{}, {}]


@pytest.mark.parametrize(
    ("given", "count", "expected"), [(None, 2, ["0", "1"]), ("3, GPU-ab", 2, ["3", "GPU-ab"]), ("-1", 0, [])]
)
def test_visible_gpus_follow_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    assert visible_gpus(environment) == expected
