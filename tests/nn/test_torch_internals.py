"""torch's private interface still does what the layers use it for.

A failure here names the function of `coordconv_apps.nn.torch_internals` that a new version of torch needs changed.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from coordconv_apps.nn import torch_internals

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def test_all_convolutions_have_one_base() -> None:
    assert all(issubclass(kind, torch_internals.ConvNd) for kind in CONVOLUTIONS)


def test_functorch_is_detected() -> None:
    seen = []

    def record(x: Tensor) -> Tensor:
        seen.append(torch_internals.functorch_active())
        return x.sum()

    record(torch.ones(2))
    torch.func.vmap(record)(torch.ones(2, 2))
    torch.func.grad(record)(torch.ones(2))
    record(torch.ones(2))
    assert seen == [False, True, True, False]


def test_forward_mode_is_detected() -> None:
    assert not torch_internals.forward_mode_active()
    with forward_ad.dual_level():
        assert torch_internals.forward_mode_active()
    assert not torch_internals.forward_mode_active()


def test_convolve_pads_as_torch_does() -> None:
    x = torch.randn(2, 3, 7, 6)
    for mode in ("zeros", "reflect"):
        layer = nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode=mode)
        padded = F.pad(x, (2, 2, 1, 1), mode="constant" if mode == "zeros" else mode)
        y = torch_internals.convolve(layer, x, layer.weight, None)
        torch.testing.assert_close(y, F.conv2d(padded, layer.weight))
        assert torch_internals.repeated_padding(layer) == (2, 2, 1, 1)


def test_output_size_determines_the_output_padding() -> None:
    layer, x = nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), torch.randn(2, 3, 5, 4)
    assert tuple(torch_internals.resolve_output_padding(layer, x, None)) == (1, 1)
    for size in ([11, 10], [12, 9]):
        extra = torch_internals.resolve_output_padding(layer, x, size)
        assert list(F.conv_transpose2d(x, layer.weight, None, 2, 0, list(extra)).shape[2:]) == size


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_replaced_conv_forward_is_detected_except_in_transposed_layers(kind: type[nn.Conv2d]) -> None:
    def replacement(*args: object) -> Tensor:
        return torch.zeros(1)

    transposed = "Transpose" in kind.__name__
    own = type("Own", (kind,), {"_conv_forward": replacement})
    for layer in (kind(3, 4, 3), own(3, 4, 3)):
        assert torch_internals.convolve_is_replaced(layer) == (type(layer) is own and not transposed)
        layer._conv_forward = replacement  # type: ignore[method-assign]  # what is to be found
        assert torch_internals.convolve_is_replaced(layer) == (not transposed)
        y = layer(torch.zeros(1, 3, *[4] * len(layer.kernel_size)))
        assert (y.shape == (1,)) == (not transposed), "torch's forward calls it"


def test_forward_hooks_are_moved_with_their_flags() -> None:
    source, target, calls = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), []
    source.register_forward_pre_hook(lambda module, args: calls.append("before"))
    source.register_forward_pre_hook(lambda module, args, kwargs: calls.append("keywords before"), with_kwargs=True)
    source.register_forward_hook(lambda module, args, output: calls.append("after"))
    source.register_forward_hook(lambda module, args, kwargs, output: calls.append("keywords after"), with_kwargs=True)
    source.register_forward_hook(lambda module, args, output: calls.append("always"), always_call=True)
    torch_internals.move_forward_hooks(source, target)
    source(torch.zeros(1, 1, 2, 2))
    assert not calls
    target(torch.zeros(1, 1, 2, 2))
    assert calls == ["before", "keywords before", "after", "keywords after", "always"]
