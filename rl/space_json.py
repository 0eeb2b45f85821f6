"""Convert observation and action spaces to JSON and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from coordconv_apps.utils.errors import one_line

_KINDS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_ALLOWED = f"must be a Box of {', '.join(_KINDS)}, Discrete, MultiDiscrete of one axis, MultiBinary, or a Dict of these"
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
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            if isinstance(part, spaces.Dict):
                raise ValueError(f"{name}[{key!r}]={one_line(str(part))}: must not be a Dict in a Dict")
        return {
            "type": "Dict",
            "spaces": {key: space_to_json(part, f"{name}[{key!r}]") for key, part in space.spaces.items()},
        }
    raise ValueError(f"{name}={one_line(str(space))}: {_ALLOWED}")


def space_from_json(description: Any, name: str) -> spaces.Space[Any]:  # noqa: ANN401  # whatever a file holds
    """Build the space that `space_to_json` described; raise `ValueError` for anything else, as a file may contain.

    Observations have at most 2**22 elements in all, where each choice of a Discrete counts. This is checked before
    anything is allocated.

    Example:
        >>> space_from_json({"type": "Discrete", "n": 6, "start": 0}, "action_space")
        Discrete(6)
    """
    try:
        parts = description["spaces"].values() if description["type"] == "Dict" else [description]
        if any(part["type"] == "Dict" for part in parts) or sum(map(_elements, parts)) > _MAX_ELEMENTS:
            raise ValueError(len(parts))
        if description["type"] != "Dict":
            return _from_json(description)
        # A policy has the features of the parts in this order. Gymnasium would sort the keys of a dict.
        return spaces.Dict([(str(key), _from_json(part)) for key, part in description["spaces"].items()])
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError, AttributeError) as error:
        most = f"with at most {_MAX_ELEMENTS:,} elements in all"
        raise ValueError(f"{name}: does not describe a space; {_ALLOWED}, {most}") from error


def _elements(description: dict[str, Any]) -> int:
    """Return the number of elements of a space that is no Dict, as a policy gets them: discrete values one-hot."""
    kind = description["type"]
    if kind == "Box":
        return math.prod(map(_natural, description["shape"]))
    if kind == "MultiDiscrete":
        return sum(map(_natural, description["nvec"]))
    if kind == "MultiBinary" and isinstance(description["n"], list):
        return math.prod(map(_natural, description["n"]))
    return _natural(description["n"])


def _from_json(description: dict[str, Any]) -> spaces.Space[Any]:
    """Build a space that is no Dict, and whose `_elements` have been checked."""
    kind = description["type"]
    if kind == "Box":
        shape, dtype = tuple(description["shape"]), description["dtype"]
        if dtype not in _KINDS:
            raise ValueError(dtype)
        low, high = (_bounds_from_json(description[key], shape, dtype) for key in ("low", "high"))
        return spaces.Box(low, high, shape, np.dtype(dtype).type)
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=int(description["start"]))
    if kind == "MultiDiscrete":
        nvec, start = (np.array(description[key], dtype=np.int64) for key in ("nvec", "start"))
        return spaces.MultiDiscrete(nvec, start=start)
    if kind == "MultiBinary":
        return spaces.MultiBinary(description["n"])
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
