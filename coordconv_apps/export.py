"""Export networks to files that run without this package: ONNX, torch.export, and plain convolutions.

Each file is written to a temporary folder, loaded again, compared with the network at two batch sizes, and then moved
into place. ``network.json`` describes inputs and outputs; the ONNX file contains the same description.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from coordconv_apps.nn.convert import coordconv_layers
from coordconv_apps.nn.fold import fold
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.utils.errors import UserError
from coordconv_apps.utils.files import atomic_write, named_in_errors, temporary_folder

Format = Literal["default", "onnx", "plain", "torch_export", "all"]
Inputs = tuple[Tensor, ...]
Network = Callable[..., object]  # tensors in, tensors out

FORMATS: dict[Format, tuple[str, ...]] = {"default": ("onnx", "plain"), "all": ("onnx", "plain", "torch_export")}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX_BYTES_INSIDE = 2**30
"""Larger weights get a file of their own. ONNX requires it above 2 GiB; the rest is room for the graph."""
TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest output, or to 1 if that is larger."""


def export(
    module: nn.Module, inputs: Inputs, formats: Sequence[str], folder: Path, interface: ExportInterface
) -> dict[Path, float]:
    """Write ``module`` in several formats and verify each, and write ``network.json``.

    Args:
        module: Network in evaluation mode on the CPU: tensors in, tensors out, batch dimensions first.
        inputs: Its inputs, in the sizes to export for; the batch size stays dynamic.
        formats: Any of ``"onnx"``, ``"plain"``, ``"torch_export"``.
        folder: Folder for the files; it is created if needed.
        interface: Names and descriptions of inputs and outputs, for ONNX and ``network.json``.

    Returns:
        The verified files, and for each the largest difference from the module's outputs.

    Raises:
        UserError: A package is missing, the module returns something other than tensors, or the outputs of a file
            differ from the module's.
    """
    if "onnx" in formats and (missing := [p for p in ONNX_PACKAGES if importlib.util.find_spec(p) is None]):
        raise UserError(
            f"export to onnx needs {', '.join(missing)}: pip install 'coordconv-apps[export]', or choose --format=plain"
        )
    inputs = _batch(inputs, 2)  # torch.export specialises to a batch of one
    with torch.no_grad():
        description = _description(inputs, _tensors(module(*inputs)), interface)
    files: dict[Path, float] = {}
    for form in formats:
        source = module
        if form == "plain" and coordconv_layers(module):  # the baseline has none
            source = fold(module, inputs[0].shape, lambda model: model(*inputs))
        for name, write, load in FILES[form]:
            path = folder / name
            with named_in_errors(path), temporary_folder(folder) as temporary:
                write(_Source(source, inputs, description), temporary / name)
                difference = _difference(path, module, load(temporary / name, source), inputs)
                for file in sorted(temporary.iterdir()):  # the weights of a large ONNX graph have a file of their own
                    os.replace(file, folder / file.name)
                    files[folder / file.name] = difference
    with atomic_write(folder / "network.json") as stream:
        json.dump(description, stream, indent=2, ensure_ascii=False)
    return files


def _description(inputs: Inputs, outputs: Sequence[Tensor], interface: ExportInterface) -> dict[str, Any]:
    """Return the content of ``network.json``."""

    def describe(texts: dict[str, str], tensors: Sequence[Tensor]) -> dict[str, Any]:
        return {
            name: {
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": ["batch", *tensor.shape[1:]],
                "description": text,
            }
            for (name, text), tensor in zip(texts.items(), tensors, strict=True)
        }

    return {
        "inputs": describe(interface.inputs, inputs),
        "outputs": describe(interface.outputs, outputs),
        "class_names": {str(label): name for label, name in interface.class_names.items()},
    }


class _Source(NamedTuple):
    """A network to write, and what `_description` says of it."""

    module: nn.Module
    inputs: Inputs
    description: dict[str, Any]


def _free_batch(module: nn.Module, inputs: Inputs) -> Any:  # noqa: ANN401  # as torch.export takes it
    shapes = torch.export.ShapesCollection()
    shapes[inputs[0]] = {0: torch.export.Dim("batch")}
    for further in inputs[1:]:  # their axes turn out to be the same; the ONNX exporter warns where each has a name
        shapes[further] = {0: torch.export.Dim.AUTO}
    return shapes.dynamic_shapes(module, inputs)


def _write_onnx(source: _Source, path: Path) -> None:
    module, inputs, described = source
    program = torch.onnx.export(
        module,
        inputs,
        dynamo=True,
        dynamic_shapes=_free_batch(module, inputs),
        input_names=list(described["inputs"]),
        output_names=list(described["outputs"]),
        verbose=False,
    )
    assert program is not None  # dynamo=True
    program.model.metadata_props.update({k: json.dumps(v, ensure_ascii=False) for k, v in described.items()})
    for value in (*program.model.graph.inputs, *program.model.graph.outputs):
        value.doc_string = (described["inputs"] | described["outputs"])[value.name]["description"]
    program.save(path, external_data=sum(t.nbytes for t in module.state_dict().values()) > ONNX_BYTES_INSIDE)


def _load_onnx(path: Path, module: nn.Module) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]

    def network(*inputs: Tensor) -> list[Tensor]:
        fed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, fed)]

    return network


def _write_program(source: _Source, path: Path) -> None:
    module, inputs, _ = source
    buffer = io.BytesIO()  # torch itself does not say why a file cannot be written
    torch.export.save(torch.export.export(module, inputs, dynamic_shapes=_free_batch(module, inputs)), buffer)
    path.write_bytes(buffer.getbuffer())


def _write_weights(source: _Source, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(source.module.state_dict(), buffer)
    path.write_bytes(buffer.getbuffer())


def _load_program(path: Path, module: nn.Module) -> Network:
    return torch.export.load(path).module()


def _load_weights(path: Path, module: nn.Module) -> Network:
    loaded = copy.deepcopy(module)
    loaded.load_state_dict(torch.load(path, weights_only=True))
    return loaded


class _File(NamedTuple):
    name: str
    write: Callable[[_Source, Path], None]
    load: Callable[[Path, nn.Module], Network]


FILES: dict[str, list[_File]] = {
    "onnx": [_File("network.onnx", _write_onnx, _load_onnx)],
    "torch_export": [_File("network.pt2", _write_program, _load_program)],
    "plain": [
        _File("network_plain.pt2", _write_program, _load_program),
        _File("network_plain_weights.pt", _write_weights, _load_weights),
    ],
}


def _difference(path: Path, module: nn.Module, loaded: Network, inputs: Inputs) -> float:
    """Return the largest difference between the outputs of a file's network and those of the module."""
    largest = 0.0
    for size in (1, 3):  # the example has another batch size
        batch = _batch(inputs, size)
        with torch.no_grad():
            expected, found = _tensors(module(*batch)), _tensors(loaded(*batch))
        for i, (e, f) in enumerate(zip(expected, found, strict=True)):
            difference = (e - f).abs().max().item() if e.shape == f.shape and e.numel() else float(e.shape != f.shape)
            largest = max(largest, difference)
            if not difference <= TOLERANCE * max(1.0, e.abs().max().item() if e.numel() else 1.0):
                raise UserError(
                    f"export: {path.name} was not written: output {i} at batch size {size} differs from the"
                    f" network's by {difference:.2g}"
                )
    return largest


def _batch(inputs: Inputs, size: int) -> Inputs:
    """Return a batch of ``size`` different samples made of ``inputs``."""
    scale = torch.linspace(1.0, 0.5, size)
    batch = [x[torch.arange(size) % len(x)] for x in inputs]
    return tuple(x * scale.to(x.dtype).view(-1, *[1] * (x.ndim - 1)) if x.is_floating_point() else x for x in batch)


def _tensors(outputs: object) -> list[Tensor]:
    """Return all tensors in a network's outputs, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        return [tensor for output in outputs for tensor in _tensors(output)]
    raise UserError(f"export: the network returns {type(outputs).__name__}: must be tensors")
