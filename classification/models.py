"""Build classifiers of torchvision or timm by name, with or without coordinates and trained weights.

Nothing here imports Lightning. A network is built with plain convolutions first and gets coordinates last, so the arms
of a comparison have the same image weights at the same seed.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models as tv_models

from classification.pretrained import AUXILIARY, fit_head, load_weights, read_weights, warn_of_new_head
from coordconv_apps import CoordConv2d, to_coordconv
from coordconv_apps.nn.convert import choose_layers
from coordconv_apps.nn.coords import Coords
from coordconv_apps.utils.argument_checks import check_at_least, optional_path
from coordconv_apps.utils.errors import one_line
from coordconv_apps.utils.weight_files import read_published

STEM_CHANNELS = 8
"""Output channels of the paper's extra 1x1 CoordConv layer ahead of a ResNet-50 (Liu et al., 2018, section 5)."""

IMAGE_CHANNELS = 3
TIMM = "timm/"
_LOADING = ("weights", "checkpoint_path", "cache_dir")  # the libraries may open such files as pickles
_GOOGLE = ("googlenet", "inception_v3")  # torchvision warns that their initialisation is slow, unless it is requested


def torchvision_classifiers() -> list[str]:
    """Return the names of torchvision's classifiers."""
    names: list[str] = tv_models.list_models(module=tv_models)
    return names


def build_classifier(
    network: str,
    *,
    num_classes: int,
    coords: Coords = "none",
    where: str = "stem",
    weights: str | Path | None = None,
    small_images: bool = False,
    network_args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a classifier: images ``(B, 3, H, W)`` to logits ``(B, num_classes)``.

    The last layer is new if trained weights have another number of classes. Auxiliary heads, which Inception and
    GoogLeNet have for training only, are left out.

    Args:
        network: Name of one of torchvision's classifiers, or ``"timm/<name>"`` for one of timm's, if that is installed.
        num_classes: Number of classes, at least 2.
        coords: Which coordinates the network sees.
        where: ``"stem"``: an extra 1x1 convolution with 8 channels before the network sees them, as in the paper
            (section 5, with ``coords="xyr"``); ``coords="none"`` has it too, so that arms differ only by coordinates.
            ``"first"``, ``"all"`` or a regular expression: convolutions of the network see them, as in
            `coordconv_apps.to_coordconv`; their coordinate weights start at 0, so that outputs are unchanged until
            training.
        weights: None: random, as the library initialises. A file: a state dict, or a checkpoint that contains one, of
            the same network with or without its stem and coordinates. ``"default"`` or the name of one of the
            network's weights in torchvision, such as ``"IMAGENET1K_V1"``: downloaded. Layers added to trained weights
            leave the outputs unchanged.
        small_images: Replace a ResNet's first convolution of 7x7 and stride 2 by one of 3x3 and stride 1, and leave
            out the pooling after it, as is usual at 32 x 32 pixels.
        network_args: Keyword arguments for the library's builder, such as ``dropout`` or a transformer's
            ``image_size``.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: An argument is none of the above, timm is missing, or the weights do not fit, cannot be read or
            cannot be downloaded.

    >>> network = build_classifier("mobilenet_v2", num_classes=10, coords="xyr", network_args={"width_mult": 0.1})
    >>> network(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    check_at_least(2, num_classes=num_classes)
    args = dict(network_args or {})
    if loading := [name for name in args if name in _LOADING or name.startswith("pretrained")]:
        raise ValueError(f"network_args={args!r}: must be without {loading[0]!r}; weights chooses trained weights")
    source = _weights_source(network, weights)
    if small_images and isinstance(source, str):
        raise ValueError(f"small_images=True: must be false with weights={source!r}, which have a 7x7 stem")
    plain = _plain(network, num_classes, None if isinstance(source, Path) else source, args)
    if small_images:
        _adapt_to_small_images(plain, network)
    head, last = _last_layer(plain)
    if last.weight.shape[0] != num_classes:
        raise ValueError(f"network={network!r}: its last layer, {head}, does not compute {num_classes} logits")
    state = read_weights(source, plain) if isinstance(source, Path) else None
    if state is not None:
        fit_head(state, plain, head)
        if where == "stem" and f"{_first_convolution(plain)[0]}.stem.weight" not in state:
            load_weights(plain, state, source, head)
            state = None
    if where == "stem":
        add_stem(plain, coords, keep_outputs=weights is not None)
    elif coords == "none":
        choose_layers(plain, where)  # an error in one arm is an error in both
    else:
        try:
            to_coordconv(plain, where, coords)
        except TypeError as error:
            raise ValueError(str(error)) from error
    if state is not None:
        load_weights(plain, state, source, head)
    return plain


def add_stem(network: nn.Module, coords: Coords, *, keep_outputs: bool) -> None:
    """Put a 1x1 convolution with 8 channels and coordinates before a network's first convolution, in place.

    Args:
        network: A network whose first convolution takes images of three channels.
        coords: Which coordinates the 1x1 convolution sees.
        keep_outputs: Whether the network's outputs stay the same: three channels of the 1x1 convolution pass the image
            on; the other five are random and have weights of 0 in the first convolution. (If both were 0, they would
            never get a gradient.)

    Raises:
        ValueError: The first convolution does not take images of three channels, or its outputs cannot be kept.
    """
    name, first = _first_convolution(network)
    if first.in_channels != IMAGE_CHANNELS or first.groups != 1:
        raise ValueError(
            f"where='stem': must be 'first', 'all' or a regular expression for a network that begins {first}"
        )
    if keep_outputs and type(first) is not nn.Conv2d:  # a subclass may standardise its weights: more would change them
        raise ValueError(f"where='stem': must be a regular expression with trained weights of a {type(first).__name__}")
    old = first.weight
    stem = nn.Conv2d(IMAGE_CHANNELS, STEM_CHANNELS, 1, device=old.device, dtype=old.dtype)
    with torch.no_grad():
        # With the library's standard deviation: the stem's outputs are smaller than images but have more channels.
        wide = old.new_empty(len(old), STEM_CHANNELS, *old.shape[2:]).normal_() * old.std()
        if keep_outputs:
            wide[:, :IMAGE_CHANNELS] = old
            wide[:, IMAGE_CHANNELS:] = 0
        first.in_channels = STEM_CHANNELS
        first.weight = nn.Parameter(wide, requires_grad=old.requires_grad)
        network.set_submodule(name, nn.Sequential(OrderedDict(stem=stem, conv=first)))
        if coords != "none":
            to_coordconv(stem, "first", coords, init="default")
        if keep_outputs:
            stem.weight[:IMAGE_CHANNELS] = torch.eye(IMAGE_CHANNELS)[:, :, None, None]
            assert stem.bias is not None
            stem.bias[:IMAGE_CHANNELS] = 0
            if isinstance(stem, CoordConv2d):
                stem.coord_weight[:IMAGE_CHANNELS] = 0


# ------------------------------------------------------------------ plain networks


def _plain(network: str, num_classes: int, weights: str | None, args: dict[str, Any]) -> nn.Module:
    """Build the library's network, with its weights or with random ones."""
    is_timm = network.startswith(TIMM)
    if is_timm and importlib.util.find_spec("timm") is None:
        raise ValueError(f"network={network!r} needs timm: pip install 'coordconv-apps[timm]'")
    if is_timm:
        import timm  # type: ignore[import-not-found,unused-ignore]  # an extra

        known = [TIMM + name for name in timm.list_models()]
    else:
        known = torchvision_classifiers()
    if (network.partition(".")[0] if is_timm else network) not in known:  # timm's weights follow the dot
        close = difflib.get_close_matches(network, known, n=3, cutoff=0)
        raise ValueError(f"network={network!r} is unknown; closest: {', '.join(close)}")
    try:
        if not is_timm:
            return _torchvision(network, num_classes, weights, args)
        name, pretrained = network.removeprefix(TIMM), weights is not None
        built: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **args)
        return built
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        reason = one_line(error)
        raise ValueError(f"weights={weights!r}: cannot be downloaded or read ({reason}); a file works, too") from error
    except (TypeError, ValueError) as error:
        if not args:
            raise
        raise ValueError(f"network_args={args!r}: {network} does not take them: {error}") from error


def _torchvision(network: str, num_classes: int, weights: str | None, args: dict[str, Any]) -> nn.Module:
    built: nn.Module
    if weights is None:
        start = {"init_weights": True} if network in _GOOGLE else {}
        built = tv_models.get_model(network, num_classes=num_classes, **start, **args)
    else:
        published = tv_models.get_model_weights(network)[weights]
        read_published(published)  # torchvision's builder would run code in the file
        built = tv_models.get_model(network, weights=published, **args)
        head, trained = _last_layer(built)
        if trained.weight.shape[0] != num_classes:
            new = _torchvision(network, num_classes, None, args)
            built.set_submodule(head, new.get_submodule(head))
            warn_of_new_head(head, num_classes, trained.weight.shape[0])
    if getattr(built, "aux_logits", False):
        built.aux_logits = False  # type: ignore[assignment]  # torchvision's attribute, a bool
        for name in AUXILIARY:
            if hasattr(built, name):
                setattr(built, name, None)
    return built


def _weights_source(network: str, weights: str | Path | None) -> str | Path | None:
    """Resolve ``weights`` to a file, the library's name of weights, or None."""
    path = optional_path(weights, "weights")
    if path is None or path.is_file():
        return path
    named = ["DEFAULT"]
    if network in torchvision_classifiers():
        named += [member.name for member in tv_models.get_model_weights(network)]
    if str(weights).upper() in named:
        return str(weights).upper()
    allowed = ", ".join(["default", *named[1:]])
    raise ValueError(f"weights={str(weights)!r}: must be a file that exists, or of {network}: {allowed}")


# ------------------------------------------------------------------ parts of networks


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            return name, layer
    raise ValueError("network: must be one with a convolution")


def _last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Return the layer that computes the logits: a convolution in SqueezeNet, a linear layer in all others."""
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def _adapt_to_small_images(plain: nn.Module, network: str) -> None:
    first, pool = getattr(plain, "conv1", None), getattr(plain, "maxpool", None)
    if not (isinstance(first, nn.Conv2d) and first.kernel_size == (7, 7) and isinstance(pool, nn.MaxPool2d)):
        raise ValueError(f"small_images=True: must be false for network={network!r}, not a ResNet with a 7x7 stem")
    small = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's ResNet does
    plain.conv1, plain.maxpool = small, nn.Identity()
