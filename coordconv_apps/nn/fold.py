"""Fold the coordinates of a model into constants: plain convolutions for deployment."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coordconv_apps.nn.convert import coordconv_layers
from coordconv_apps.nn.coord_layer import CoordLayer
from coordconv_apps.nn.folded_conv import FoldedConv, Sizes, sizes_of
from coordconv_apps.nn.fuse import fuse_batch_norms
from coordconv_apps.nn.layers import COORD_CLASSES
from coordconv_apps.nn.module_classes import become, behaves_like
from coordconv_apps.nn.torch_internals import convolve_is_replaced, move_forward_hooks
from coordconv_apps.nn.window_layer import SeesWindows

_PLAIN_CLASSES: dict[type, type[nn.Module]] = {coord: plain for plain, coord in COORD_CLASSES.items()}


def fold(
    model: nn.Module,
    input_size: Sequence[int] | None = None,
    forward: Callable[[nn.Module], object] | None = None,
    *,
    fuse_batch_norm: bool = False,
) -> nn.Module:
    """Copy a model with its CoordConv layers turned into plain convolutions and constant maps, for deployment.

    At a fixed input size a layer's coordinates add a constant to its output. The copy holds these constants in
    `FoldedConv` layers, and gives the same outputs.

    Args:
        model: Any module; it is copied, not changed.
        input_size: Shape of one input, batch included, such as ``(1, 3, 224, 224)``. Any batch size works afterwards.
        forward: For models whose input is not one float tensor: a function that runs the given model on every input
            size that will occur, such as ``lambda m: m([torch.rand(3, 64, 64)])``. ``input_size`` is not needed then.
        fuse_batch_norm: Also fuse each batch norm into the convolution before it, plain ones included, where nothing
            else reads the convolution's output. The weight, the map and the bias are scaled, and the batch norm
            becomes `torch.nn.Identity`.

    Returns:
        A copy in evaluation mode. It raises a ValueError for an input of another size.

    Raises:
        ValueError: If the model has no CoordConv layer, ``input_size`` is not the shape of an input that the model
            takes, the run does not reach one of the layers, or a layer sees several windows at one input size.
        TypeError: If a layer is a subclass with methods or attributes of its own, is pruned or parametrised, or its
            ``forward`` was replaced.

    Example:
        >>> from coordconv_apps import CoordConv2d
        >>> model = nn.Sequential(CoordConv2d(3, 8, 3), nn.ReLU()).eval()
        >>> folded = fold(model, input_size=(1, 3, 16, 16))
        >>> images = torch.rand(4, 3, 16, 16)
        >>> torch.allclose(folded(images), model(images), atol=1e-6)
        True
        >>> [name for name, _ in folded.named_parameters()]
        ['0.conv.weight']
    """
    layers = coordconv_layers(model)
    if not layers:
        raise ValueError("the model has no CoordConv layer to fold")
    refused = "; ".join(
        f"{name or 'the model itself'}: {why}" for name, layer in layers.items() if (why := _why_not_fold(layer))
    )
    if refused:
        raise TypeError(f"fold cannot fold some of the model's layers: {refused}")
    folded = _copy(model).eval()
    names = {layer: name for name, layer in coordconv_layers(folded).items()}
    _copy_windows(model, folded)
    run = partial(_run_on_zeros, folded, input_size) if forward is None else partial(forward, folded)
    if fuse_batch_norm:
        fuse_batch_norms(folded, run)
    maps = {layer: _recorded_maps(layer) for layer in names}
    # A model that torch.compile has compiled before does not see that a forward was replaced.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        run()
    unreached = [name or "the model itself" for layer, name in names.items() if not maps[layer]]
    if unreached:
        source = f"input_size={tuple(input_size or ())}" if forward is None else "forward"
        raise ValueError(
            f"the run on {source} does not reach {', '.join(unreached)}; pass forward=... that does, or remove what"
            " evaluation does not use, such as auxiliary classifiers"
        )
    for layer in names:
        _fold(layer, maps[layer])
    return folded


def _why_not_fold(layer: CoordLayer) -> str | None:
    """Return why a CoordConv layer cannot be folded, or None if it can."""
    if behaves_like(type(layer), _PLAIN_CLASSES) is None:
        return f"{type(layer).__name__} is a subclass with methods or attributes of its own, or parametrised"
    if "forward" in vars(layer) or convolve_is_replaced(layer):
        return "its forward or _conv_forward was replaced; undo that first"
    values = (getattr(layer, name) for name in ("weight", "bias", "coord_weight"))
    if not all(value is None or isinstance(value, nn.Parameter) for value in values):
        return "its weights are computed (pruning or weight normalisation); make them permanent first"
    return None


def _copy(model: nn.Module) -> nn.Module:
    """Copy a model with the computed tensors that its modules hold; `copy.deepcopy` alone refuses these.

    The old weight and spectral normalisation and pruning leave such tensors after a forward pass with gradients.
    """
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in held if not value.is_leaf})


def _copy_windows(model: nn.Module, folded: nn.Module) -> None:
    """Let the copy see the window that `coord_window` has set, which copies leave out."""
    for layer, twin in zip(model.modules(), folded.modules(), strict=True):
        if isinstance(layer, SeesWindows) and isinstance(twin, SeesWindows):
            for place in (value for window in layer.windows for value in window if isinstance(value, Tensor)):
                if place.dim() == 2 and len(place) > 1:
                    raise ValueError(f"fold needs one window for all samples, and this model sees {len(place)}")
            twin.set_windows(layer.windows)


def _run_on_zeros(model: nn.Module, input_size: Sequence[int] | None) -> object:
    """Run the model on zeros of a shape; raise `ValueError` if it is no shape or the model does not take it."""
    example = next(p for p in model.parameters() if p.is_floating_point() or p.is_complex())
    try:
        shape = torch.Size(input_size)  # type: ignore[arg-type]  # None is no shape, either
    except TypeError:
        raise ValueError(
            f"input_size={reprlib.repr(input_size)}: must be the shape of one input, batch included, such as"
            " (1, 3, 224, 224)"
        ) from None
    try:
        return model(torch.zeros(shape, dtype=example.dtype, device=example.device))
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"input_size={tuple(shape)}: the model does not take zeros of this shape, which must be that of one input,"
            f" batch included; pass forward=... for inputs of another kind. {type(error).__name__}: {reason}"
        ) from error


def _recorded_maps(layer: CoordLayer) -> dict[Sizes, Tensor]:
    """Return where a layer notes its map for each pair of sizes that it is run on.

    Its ``forward`` is replaced, because models may call it themselves, without hooks.
    """
    run, maps = layer.forward, {}
    windows: dict[Sizes, list[Any]] = {}

    def forward(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - the layer's arguments
        output: Tensor = run(*args, **kwargs)
        input = args[0] if args else kwargs["input"]
        sizes = sizes_of(input, output, layer.ndim)
        window = [torch.as_tensor(place).tolist() for place in layer.window or ()]
        if windows.setdefault(sizes, window) != window:
            raise ValueError("fold needs one window for each input size: call it within coord_window(...)")
        maps[sizes] = layer.coord_map(input, output).clone()
        return output

    layer.forward = forward
    return maps


def _fold(layer: CoordLayer, maps: dict[Sizes, Tensor]) -> None:
    """Make the layer a `FoldedConv`, in place.

    Its hooks may change input and output, so they stay around the map.
    """
    del layer.forward  # that of `_recorded_maps`
    coord = behaves_like(type(layer), _PLAIN_CLASSES)
    assert coord is not None
    conv = copy.copy(layer)  # shallow: it has the parameters and hooks that the layer is about to lose
    conv.become_plain(_PLAIN_CLASSES[coord])
    become(layer, FoldedConv, conv, maps)
    move_forward_hooks(conv, layer)
