"""The simulated device itself: values are those of the CPU, and what CUDA refuses is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.simcuda.simulated import RefusedByCUDA, collectives, memory, races

MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": lambda cpu, cuda: cpu + cuda,
    "in place": lambda cpu, cuda: cuda.add_(cpu),
    "convolution": lambda cpu, cuda: F.conv2d(cpu[None, None], cuda[None, None]),
    "index on another device": lambda cpu, cuda: cpu[cuda.long()],
    "where": lambda cpu, cuda: torch.where(cuda > 0, cuda, cpu),
    "loss": lambda cpu, cuda: F.mse_loss(cuda, cpu),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_are_refused(name: str) -> None:
    cpu = torch.ones(2, 2)
    with pytest.raises((RefusedByCUDA, RuntimeError), match=r"same device|on the same|expected .*cpu"):
        MIXED[name](cpu, cpu.cuda())


def test_scalars_and_indices_may_be_on_the_cpu() -> None:
    x = torch.arange(4.0, device="cuda")
    assert (x + torch.tensor(1.0)).tolist() == [1, 2, 3, 4]
    assert x[torch.tensor([2, 0])].tolist() == [2, 0]
    assert x.masked_fill(x > 1, torch.tensor(7.0)).tolist() == [0, 1, 7, 7]
    with pytest.raises(RefusedByCUDA):
        torch.tensor(1.0).add_(x[0])  # the result would be on the CPU


def test_generators_belong_to_a_device() -> None:
    with pytest.raises((RefusedByCUDA, RuntimeError), match="generator"):
        torch.randn(3, device="cuda", generator=torch.Generator())
    cpu = torch.get_rng_state()
    first, second = (torch.randn(3, device="cuda", generator=torch.Generator("cuda").manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    torch.cuda.manual_seed(1)
    drawn = torch.rand(3, device="cuda"), torch.randperm(5, device="cuda"), F.dropout(torch.ones(9).cuda())
    assert torch.equal(torch.get_rng_state(), cpu)
    torch.cuda.manual_seed(1)
    assert torch.equal(torch.rand(3, device="cuda"), drawn[0])
    assert not torch.equal(torch.rand(3, device="cuda"), drawn[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_softmax_in_single_precision_equals_the_cpu(function: Callable[..., Tensor], dtype: torch.dtype) -> None:
    x = torch.randn(3, 5).to(dtype)
    on_cpu, on_device = x.clone().requires_grad_(), x.cuda().requires_grad_()
    expected, found = (function(each, 1, dtype=torch.float32) for each in (on_cpu, on_device))
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected)
    for each in (expected, found):
        each.square().sum().backward()
    assert on_cpu.grad is not None
    assert on_device.grad is not None
    torch.testing.assert_close(on_device.grad.cpu(), on_cpu.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_convolutions_in_half_precision_equal_the_cpu(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(memory, "POISON", True)
    images, weights = torch.randn(32, 96, 1, 1).to(dtype), torch.randn(96, 1, 3, 3).to(dtype)
    in_single = [each.float().requires_grad_() for each in (images, weights)]
    on_device = [each.cuda().requires_grad_() for each in (images, weights)]
    expected, found = (F.conv2d(x, w, padding=1, groups=96) for x, w in (in_single, on_device))
    assert found.dtype == dtype
    for each in (expected, found):
        each.square().sum().backward()
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0.02, atol=0.02)
    for cpu, cuda in zip(in_single, on_device, strict=True):
        assert cuda.grad is not None
        assert cuda.grad.dtype == dtype
        torch.testing.assert_close(cuda.grad.float().cpu(), cpu.grad, rtol=0.05, atol=0.05)


def test_a_network_trains_as_on_the_cpu() -> None:
    x, labels = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 0, 1, 1])
    weights = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)
        network = nn.Sequential(*layers).to(device)
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(network(x.to(device)), labels.to(device)).backward()
            optimizer.step()
        weights.append({name: value.cpu() for name, value in network.state_dict().items()})
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


def test_a_thread_is_simulated_and_tensors_are_printed() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(str(torch.ones(2).cuda() + 1)))
    thread.start()
    thread.join()
    assert found == ["tensor([2., 2.], device='cuda:0')"]


def test_uninitialised_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "POISON", True)
    used = torch.zeros(1000, device="cuda")
    del used  # torch keeps its memory, and gives it out again
    fresh = torch.empty(1000, device="cuda")
    assert fresh.isnan().all()
    assert torch.empty_like(fresh, dtype=torch.bool).all()
    assert torch.zeros(3, device="cuda").tolist() == [0, 0, 0]


TARGETS: dict[str, Callable[[], Tensor]] = {
    "alike": lambda: torch.zeros(10, 10, device="cuda"),
    "transposed": lambda: torch.zeros(10, 10, device="cuda").t(),
    "of another type": lambda: torch.zeros(10, 10, device="cuda", dtype=torch.float64),
}


@pytest.mark.races
@pytest.mark.parametrize("kind", TARGETS)
def test_pinned_memory_that_is_overwritten_too_early_is_reported(kind: str) -> None:
    pinned, target = torch.zeros(10, 10).pin_memory(), TARGETS[kind]()
    before = races()
    for _ in range(2):
        target.copy_(pinned, non_blocking=True)
        target.sum().item()  # waits
        pinned.add_(1)
    assert races() == before
    target.copy_(pinned, non_blocking=True)
    pinned.add_(1)
    assert races() == before + 1


def test_a_copy_to_the_host_has_not_arrived_before_the_host_waits() -> None:
    copy = torch.ones(100, device="cuda").to("cpu", non_blocking=True)
    assert not torch.equal(copy, torch.ones(100))
    torch.cuda.synchronize()
    assert torch.equal(copy, torch.ones(100))


def test_operators_without_a_deterministic_form_are_refused_on_request() -> None:
    x = torch.rand(20, device="cuda")
    assert x.histc(4).sum() == 20
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RefusedByCUDA, match="histc does not have a deterministic implementation"):
            x.histc(4)
    finally:
        torch.use_deterministic_algorithms(False)


COLLECTIVE = torch.ops.c10d.broadcast_.default


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda: torch.zeros(2, dtype=torch.int16, device="cuda"), "data type is not supported"),
        (lambda: torch.zeros(2, 3, device="cuda").t(), "must be contiguous"),
    ],
)
def test_tensors_that_nccl_cannot_send_are_refused(tensor: Callable[[], Tensor], message: str) -> None:
    collectives.check(COLLECTIVE, [torch.zeros(2, device="cuda")])
    with pytest.raises(RefusedByCUDA, match=message):
        collectives.check(COLLECTIVE, [tensor()])


def test_two_ranks_on_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(RefusedByCUDA, match=r"rank 1 uses cuda:0: Duplicate GPU detected"):
        collectives.check(COLLECTIVE, [torch.zeros(2, device="cuda")])
