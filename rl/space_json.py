"""Convert observation and action spaces to JSON and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from coordconv_apps.utils.errors import one_line

_ALLOWED = "must be a Box, Discrete, MultiDiscrete of one axis, MultiBinary, or a Dict of Boxes and Discretes"
_KINDS = ("uint8", "int8", "int16", "int32", "int64", "float32", "float64")
_MAX_ELEMENTS = 2**22


def space_to_json(space: spaces.Space[Any], name: str) -> dict[str, Any]:
    """Describe a space by plain values for JSON; raise `ValueError` for other kinds of spaces.

    Infinite bounds become strings, and bounds that are equal everywhere a single number.

    Example:
        >>> space_to_json(spaces.Discrete(6), "action_space")
        {'type': 'Discrete', 'n': 6, 'start': 0}
    """
    if isinstance(space, spaces.Box) and str(space.dtype) in _KINDS:
        low, high = (_bounds_to_json(bounds) for bounds in (space.low, space.high))
        return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), "low": low, "high": high}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int):
        return {"type": "MultiBinary", "n": space.n}
    if isinstance(space, spaces.Dict):
        parts = {key: space_to_json(part, f"{name}[{key!r}]") for key, part in space.spaces.items()}
        if all(part["type"] in ("Box", "Discrete") for part in parts.values()):
            return {"type": "Dict", "spaces": parts}
    raise ValueError(f"{name}={one_line(str(space))}: {_ALLOWED}")


def space_from_json(description: Any, name: str) -> spaces.Space[Any]:  # noqa: ANN401  # whatever a file holds
    """Build the space that `space_to_json` described; raise `ValueError` for anything else, as a file may contain.

    Its arrays have at most 2**22 elements in all.

    Example:
        >>> space_from_json({"type": "Discrete", "n": 6, "start": 0}, "action_space")
        Discrete(6)
    """
    try:
        return _from_json(description, nested=False)
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError, AttributeError) as error:
        raise ValueError(f"{name}: does not describe a space; {_ALLOWED}") from error


def _from_json(description: dict[str, Any], nested: bool) -> spaces.Space[Any]:
    kind = description["type"]
    if kind == "Box":
        shape, dtype = tuple(map(_natural, description["shape"])), description["dtype"]
        if dtype not in _KINDS or math.prod(shape) > _MAX_ELEMENTS:
            raise ValueError(dtype)
        low, high = (_bounds_from_json(description[key], shape, dtype) for key in ("low", "high"))
        return spaces.Box(low, high, shape, np.dtype(dtype).type)
    if kind == "Discrete":
        return spaces.Discrete(_natural(description["n"]), start=int(description["start"]))
    if kind == "MultiDiscrete" and not nested:
        nvec, start = (np.array(description[key], dtype=np.int64) for key in ("nvec", "start"))
        return spaces.MultiDiscrete(nvec, start=start)
    if kind == "MultiBinary" and not nested:
        return spaces.MultiBinary(_natural(description["n"]))
    if kind == "Dict" and not nested:
        parts = description["spaces"]
        shapes = [map(_natural, part["shape"]) for part in parts.values() if part["type"] == "Box"]
        if sum(map(math.prod, shapes)) > _MAX_ELEMENTS:
            raise ValueError(len(parts))
        return spaces.Dict({str(key): _from_json(part, nested=True) for key, part in parts.items()})
    raise ValueError(kind)


def _natural(number: Any) -> int:  # noqa: ANN401  # whatever a file holds
    if type(number) is not int or not 0 < number <= _MAX_ELEMENTS:
        raise ValueError(number)
    return number


def _bounds_to_json(bounds: Any) -> Any:  # noqa: ANN401  # a number or a list
    values = [value if math.isfinite(value) else str(value) for value in bounds.ravel().tolist()]
    return values[0] if len(set(values)) == 1 else values


def _bounds_from_json(value: Any, shape: tuple[int, ...], dtype: str) -> Any:  # noqa: ANN401  # an array
    if isinstance(value, list):
        return np.array([float(v) if isinstance(v, str) else v for v in value], dtype=dtype).reshape(shape)
    return np.full(shape, float(value) if isinstance(value, str) else value, dtype=dtype)
