"""Let `torch.fx` keep the layers as modules of the graphs that it records, as it does with torch's own layers."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import Proxy, Tracer

__all__ = ["Proxy", "leaf_call"]


def leaf_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the forward's
    """Record a call of ``module`` in the graph of the tracer that runs it; the first argument is a `torch.fx.Proxy`.

    torch.fx takes only modules of torch itself for leaves unless it is told otherwise. A layer's coordinates depend on
    sizes, which a Proxy does not have, so recording its operations would fail.
    """
    tracer = args[0].tracer
    assert isinstance(tracer, Tracer)
    return tracer.create_proxy("call_module", tracer.path_of_module(module), args, kwargs)
