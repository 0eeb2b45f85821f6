"""What the plain text in Stable-Baselines3's zips says of a policy, beside the pickled code.

SB3 stores what JSON cannot hold as cloudpickle's instructions, and beside it, for people to read, the attributes that
JSON can hold and the texts of the others. Nothing is unpickled here: instructions are read, not followed.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import re
from typing import Any

_CLASS = re.compile(r"<class '([\w.]+)'>")
_REFERENCE = ["PROTO", "FRAME", "SHORT_BINUNICODE", "SHORT_BINUNICODE", "STACK_GLOBAL", "STOP"]
"""The instructions of a pickle that is nothing but the name of something, without those that remember."""


def describe(data: dict[str, Any]) -> dict[str, Any]:
    """What `rl.policy_files` writes of a policy in its safe form, as far as a zip's ``data`` tells; None for defaults.

    Args:
        data: The JSON.

    Raises:
        ValueError: It does not tell enough.
    """
    arguments = data.get("policy_kwargs")
    if not isinstance(arguments, dict) or data.get("use_sde"):
        raise ValueError("its policy_kwargs are not told, or it explores with use_sde=True")
    return {
        "policy": _pickled_name(data.get("policy_class")),
        "observation_space": _space(data.get("observation_space"), "observation_space"),
        "action_space": _space(data.get("action_space"), "action_space"),
        "net_arch": arguments.get("net_arch"),
        "activation": _class_name(arguments.get("activation_fn")),
        "extractor": _class_name(arguments.get("features_extractor_class")),
        "extractor_arguments": arguments.get("features_extractor_kwargs", {}),
        "normalize_images": arguments.get("normalize_images", True),
        "share_features_extractor": arguments.get("share_features_extractor", True),
    }


def _pickled_name(value: Any) -> str | None:  # noqa: ANN401  # whatever a file holds
    """The name that is all of a pickle, such as ``rl.policies.CoordConvCnnPolicy``; None if there is more to it."""
    try:
        steps = list(pickletools.genops(base64.b64decode(value[":serialized:"], validate=True)))
    except (TypeError, KeyError, ValueError, binascii.Error, IndexError, OverflowError):
        return None
    steps = [step for step in steps if step[0].name != "MEMOIZE"]
    if [operation.name for operation, _, _ in steps] != _REFERENCE:
        return None
    return f"{steps[2][1]}.{steps[3][1]}"


def _class_name(text: Any) -> str | None:  # noqa: ANN401  # whatever a file holds
    """The name of a class from its text; None for none. Other texts stay, to be refused as unknown."""
    if text is None:
        return None
    found = _CLASS.fullmatch(str(text))
    return found[1] if found else str(text)


def _space(value: Any, name: str) -> dict[str, Any]:  # noqa: ANN401  # whatever a file holds
    """A space of images of bytes, or of a choice, as `rl.space_json.space_to_json` describes it."""
    kind = _class_name(value.get(":type:")) if isinstance(value, dict) else None
    try:
        if kind == "gymnasium.spaces.discrete.Discrete":
            return {"type": "Discrete", "n": int(value["n"]), "start": int(value["start"])}
        if kind == "gymnasium.spaces.box.Box" and value["dtype"] == "uint8":
            # numpy shortens the texts of large arrays, but keeps the first and last numbers of every axis.
            bounds = [set(re.findall(r"\d+", value[key])) for key in ("low", "high")]
            if bounds == [{"0"}, {"255"}]:
                return {"type": "Box", "shape": value["_shape"], "dtype": "uint8", "low": 0, "high": 255}
    except (TypeError, KeyError, ValueError):
        pass  # something else is told than there should be
    raise ValueError(
        f"its {name} ({kind or 'not told'}) cannot be read without running pickled code;"
        " must be images of bytes or, for actions, Discrete"
    )
