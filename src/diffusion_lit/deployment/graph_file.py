"""Graphs in files: ONNX for any runtime, and torch's own program."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.deployment.graph import METADATA, GraphDenoiser, check_equal, first_line, traced
from diffusion_lit.extra import require

__all__ = ["ONNX", "TORCH_EXPORT", "require_onnx", "write_onnx", "write_torch_export"]

ONNX, TORCH_EXPORT = "denoiser.onnx", "denoiser.pt2"
ONE_FILE = 1.5 * 2**30
"""Bytes of weights that an ONNX file can hold; of more they lie beside it."""


def require_onnx() -> None:
    """Raise a ValueError, with the command that installs it, if something that ONNX needs is missing."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "onnx", "format=onnx")


def write_torch_export(graph: GraphDenoiser, record: Mapping[str, Any], folder: Path) -> float:
    """Write torch's program; its largest difference to the model.

    Raises:
        ValueError: if the model cannot be traced, or what was written is not the same.
    """
    file = folder / TORCH_EXPORT
    torch.export.save(traced(graph), file, extra_files={METADATA: json.dumps(record)})
    program = torch.export.load(file).module()

    def run(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.no_grad():
            found: Sequence[Tensor] = program(*inputs)
        return found

    return check_equal(graph, run, file.name)


def write_onnx(graph: GraphDenoiser, record: Mapping[str, Any], folder: Path) -> float:
    """Write an ONNX file; its largest difference to the model, in ONNX Runtime on the CPU.

    Raises:
        ValueError: if the model cannot be traced or translated, or what was written is not the same.
    """
    onnxruntime, operators = require("onnxruntime", "onnx", "format=onnx"), require("onnxscript", "onnx", "format=onnx")
    op, file = operators.opset18, folder / ONNX

    def hypot(a: Any, b: Any) -> Any:  # which ONNX does not have
        return op.Sqrt(op.Add(op.Mul(a, a), op.Mul(b, b)))

    table: dict[Any, Any] = {torch.ops.aten.hypot.default: hypot, torch.ops.prims.hypot.default: hypot}
    program = traced(graph)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                custom_translation_table=table,
                verbose=False,
            )
        assert written is not None
        name_batch(written.model)
        written.model.metadata_props[METADATA] = json.dumps(record)
        size = sum(w.numel() * w.element_size() for w in graph.parameters())
        written.save(file, external_data=size > ONE_FILE)
    except Exception as error:  # torch's and onnxscript's, of whatever a model does
        raise ValueError(
            f"the model cannot be translated to ONNX ({first_line(error)}): use format=torch_export or safetensors"
        ) from error
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        found = session.run(list(graph.outputs), {n: x.numpy() for n, x in zip(graph.inputs, inputs, strict=True)})
        return [torch.from_numpy(value) for value in found]

    return check_equal(graph, run, file.name)


def name_batch(model: Any) -> None:
    """Call the axis of an ONNX model's batch `batch`, everywhere: tracing has numbered it, s13 or so."""
    traced_as = re.compile(rf"\b{re.escape(model.graph.inputs[0].shape[0].value)}\b")
    inside = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in (*model.graph.inputs, *inside):
        for axis, size in enumerate(value.shape or ()):
            if isinstance(name := getattr(size, "value", None), str):
                value.shape[axis] = traced_as.sub("batch", name)
