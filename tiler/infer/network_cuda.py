"""A model on a CUDA device: tensor in, raw heads out. Which runtime executes it, and why that one.

The ladder is TensorRT -> TensorRT-RTX -> ONNX Runtime's CUDA provider. A runtime that is not there,
or does not take the GPU or the model, says why; the reasons travel with the choice.

Note [Prepared batches]. Runtimes want static shapes: a CUDA graph holds one batch size, and ONNX
Runtime plans every convolution anew each time the batch differs from the last, which takes far
longer than running it. So a network prepares a few sizes, and a batch in between runs as the next larger one
when the memory behind `images` and `head` goes on that far. The rows after the batch are then read
and overwritten, never looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tiler.engines.build import Target
from tiler.engines.convert import half_model
from tiler.engines.device_cuda import current_device
from tiler.engines.registry import ModelSpec
from tiler.engines.tensorrt import Progress, UnusableError, dotted
from tiler.errors import InputError, TilerError

_log = logging.getLogger(__name__)

RUNTIMES = ("tensorrt", "tensorrt-rtx", "onnxruntime")
"""In the order in which they are tried."""

_TITLES = dict(zip(RUNTIMES, ("TensorRT", "TensorRT-RTX", "ONNX Runtime CUDA"), strict=True))


class Network(Protocol):
    """One model on one device and stream; one thread at a time uses it."""

    name: str
    """For people: "TensorRT 10.16 FP16"."""
    input_dtype: np.dtype[Any]
    output_dtype: np.dtype[Any]
    output_shape: tuple[int, ...]
    """Of one picture: (A, 5 + C) or (4 + C, A)."""

    def prepare(self, images: Any, head: Any) -> None:
        """Do now what the first `run` on these buffers would do: bind, enqueue, capture; per prepared size.

        Args:
            images, head: as for `run`, for the largest batch.
        """
        ...

    def run(self, images: Any, head: Any, stream: Any) -> None:
        """Enqueue the model on `stream`; nothing on the host waits for it.

        The first call with a batch and a pair of buffers prepares them, which takes longer and waits;
        later ones allocate nothing. See Note [Prepared batches] on the rows after the batch.

        Args:
            images: CuPy (N, 3, H, W), C-contiguous, `input_dtype`.
            head: CuPy (N, *output_shape), C-contiguous, `output_dtype`; overwritten.
            stream: the CuPy stream that the network was opened with.

        Raises:
            StageError: the runtime failed, or the network is closed.
        """
        ...

    def close(self) -> None:
        """Free everything; may be called twice."""
        ...


def open_network(
    model: ModelSpec,
    max_batch: int,
    device: int,
    stream: Any,
    *,
    batch_sizes: Sequence[int] = (),
    runtimes: Sequence[str] = RUNTIMES,
    progress: Progress | None = None,
) -> tuple[Network, str]:
    """The first runtime of the ladder that runs this model, warmed up, and why it is that one.

    Args:
        model: an FP32 model is converted to FP16 first; if that cannot be, it runs in FP32.
        max_batch: largest batch that `run` will see.
        device: index of the CUDA device.
        stream: CuPy stream, not the default one; all work goes there.
        batch_sizes: sizes to prepare; those of `batch_ladder` when empty.
        runtimes: those to try, in this order.
        progress: told when an engine is built, which can take minutes; the log is, when absent.

    Raises:
        InputError: none works; every refusal is named.
    """
    half, note = _half(model)
    sizes = tuple(sorted({min(size, max_batch) for size in batch_sizes or batch_ladder(max_batch)}))
    # A size costs ONNX Runtime a session with memory of its own.
    few = sizes if batch_sizes else batch_ladder(max_batch, between=False)
    refusals = []
    with current_device(device) as target:
        for runtime in runtimes:
            network: Network
            try:
                if runtime == "onnxruntime":
                    network = _open_onnxruntime(half, device, stream, few)
                else:
                    network = _open_tensorrt(runtime, half, max_batch, target, stream, sizes, progress)
            except (UnusableError, TilerError) as error:
                refusals.append(f"{_TITLES[runtime]}: {error}")
                _log.info("No %s", refusals[-1])
                continue
            chosen = "; ".join([*refusals, note] if note else refusals)
            return network, chosen or "first choice"
    raise InputError(f"model {model.name}: no runtime runs it on cuda:{device}: {'; '.join(refusals)}")


def batch_ladder(max_batch: int, *, between: bool = True) -> tuple[int, ...]:
    """Sizes to prepare: powers of two, and those half-way between them, up to `max_batch`.

    >>> batch_ladder(20)
    (1, 2, 3, 4, 6, 8, 12, 16, 20)
    >>> batch_ladder(20, between=False)
    (1, 2, 4, 8, 16, 20)
    """
    sizes = {1, max_batch}
    power = 2
    while power <= max_batch:
        sizes |= {power, power * 3 // 2} if between else {power}
        power *= 2
    return tuple(sorted(size for size in sizes if size <= max_batch))


def prepared_size(count: int, sizes: Sequence[int], *buffers: Any) -> int:
    """The size that a batch of `count` runs as: the next prepared one that all buffers have memory for.

    Args:
        count: pictures in the batch.
        sizes: prepared, ascending.
        buffers: CuPy arrays (count, ...), C-contiguous.
    """
    for size in sizes:
        if size == count:
            return count
        if size > count:
            return size if all(_reaches(buffer, count, size) for buffer in buffers) else count
    return count


def _reaches(buffer: Any, count: int, size: int) -> bool:
    memory = buffer.data.mem
    end: int = memory.ptr + memory.size
    return bool(buffer.data.ptr + buffer.nbytes // count * size <= end)


def _half(model: ModelSpec) -> tuple[ModelSpec, str]:
    """The model to run, and a note if it is not in FP16."""
    try:
        return half_model(model)[0], ""
    except InputError as error:
        _log.warning("%s runs in FP32: %s", model.name, error)
        return model, f"in FP32: {error}"


def _open_tensorrt(
    flavour: Any, model: ModelSpec, max_batch: int, target: Target, stream: Any, sizes: tuple[int, ...], progress: Any
) -> Network:
    from tiler.engines.tensorrt import TensorRT
    from tiler.infer.tensorrt_cuda import TensorRTNetwork

    tensorrt = TensorRT(flavour)
    if problem := tensorrt.problem(target.capability):
        raise UnusableError(f"{problem}; this GPU has {dotted(target.capability)}")
    return TensorRTNetwork(tensorrt, model, max_batch, target, stream, sizes, progress)


def _open_onnxruntime(
    model: ModelSpec, device: int, stream: Any, sizes: tuple[int, ...]
) -> Network:
    from tiler.infer.ort_cuda import OrtCudaNetwork

    return OrtCudaNetwork(model, device, stream, sizes)
