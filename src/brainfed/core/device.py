"""Where training and evaluation compute, how precisely, and what to say when it doesn't suffice."""

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from enum import StrEnum

import torch

from brainfed.errors import ResourceError
from brainfed.plan import Plan


class Precision(StrEnum):
    """How precisely convolutions are computed in training; weights and sums stay float32."""

    FLOAT32 = "float32"
    BF16 = "bf16"
    FP16 = "fp16"


def choose_device(name: str | None = None) -> torch.device:
    """The device of this name (`cpu`, `cuda`, `cuda:1`); without one, CUDA where there is one.

    Raises:
        ResourceError: No such device on this machine.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", *(["cuda"] if n_cuda else []), *(f"cuda:{number}" for number in range(n_cuda))]
    if name is None:
        return torch.device("cuda" if n_cuda else "cpu")
    if name not in known:
        raise ResourceError(
            "This machine has no such device",
            expected=" or ".join(known),
            found=name,
            where="--device",
            hint="leave --device out to take the best there is",
        )
    return torch.device(name)


def choose_precision(name: str | None, device: torch.device) -> Precision:
    """The precision of this name; without one, the quickest that is safe on the device.

    That is bf16 on CUDA, fp16 where a GPU lacks bf16, and float32 on a CPU.

    Raises:
        ResourceError: The device can't compute so, or would be slower than in float32.
    """
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if name is None:
            return Precision.BF16 if has_bf16 else Precision.FP16
        if name == Precision.BF16 and not has_bf16:
            raise _unable(name, "this GPU has no units for bf16", "fp16 or float32")
        return Precision(name)
    if name == Precision.FP16:
        raise _unable(name, "a CPU needs float32 or bf16: fp16 is for GPUs", "float32")
    if name == Precision.BF16 and not cpu_has_bf16():
        raise _unable(
            name, "this CPU has neither avx512_bf16 nor amx_bf16, so bf16 is slower", "float32"
        )
    return Precision(name or Precision.FLOAT32)


def cpu_has_bf16() -> bool:
    """Whether this CPU has units for bf16."""
    found = torch.cpu.get_capabilities()
    return any(found.get(unit, False) for unit in ("avx512_bf16", "amx_bf16"))


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Compute inside with this precision."""
    if precision is Precision.FLOAT32:
        return nullcontext()
    kind = torch.bfloat16 if precision is Precision.BF16 else torch.float16
    return torch.autocast(device.type, dtype=kind)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Take repeatable CUDA kernels inside, and leave torch's own random state as it was."""
    cuda = [device] if device.type == "cuda" else []
    kernels: AbstractContextManager[None] = nullcontext()
    if cuda:
        kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with torch.random.fork_rng(devices=cuda), kernels:
        yield


def layout_of(device: torch.device, n_dimensions: int) -> torch.memory_format:
    """How an image of 2 or 3 dimensions lies in memory: on CUDA its modalities come last."""
    if device.type != "cuda":
        return torch.contiguous_format
    return torch.channels_last_3d if n_dimensions == 3 else torch.channels_last


def _unable(name: str, why: str, instead: str) -> ResourceError:
    return ResourceError(
        "This device can't be used with that precision",
        expected=instead,
        found=f"{name}; {why}",
        where="--precision",
        hint="leave --precision out to take what suits the device",
    )


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Compute with this many CPU threads inside; None leaves the number as it is."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let this process keep what its tensors free, for the next ones, until it ends.

    Large pieces go back to the system otherwise, and each step of training on a CPU gets all its
    tensors as new pages, which is a tenth of its time. The most memory used at a time stays the
    same. Of the GNU C library alone; elsewhere nothing changes.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(AttributeError, OSError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(mmap_threshold, 2**30)
        set_option(trim_threshold, 2**31 - 1)


@contextmanager
def memory_errors(plan: Plan) -> Iterator[None]:
    """Turn running out of memory inside into a ResourceError that names what to make smaller."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On the CPU torch has no class of its own for it, only this sentence.
        of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not of_memory and "allocate memory" not in str(error):
            raise
        network = plan.network
        other = ("patch", network.patch) if network.patch else ("channels", network.channels)
        raise ResourceError(
            "The memory of the device is too small for this plan",
            expected=f"room for one batch, or a smaller training.batch or network.{other[0]}",
            found=f"training.batch {plan.training.batch}, network.{other[0]} {list(other[1])}",
            where="the plan",
            hint="close other programs, or ask the coordinator for a plan with smaller ones; "
            "nothing that was finished is lost",
        ) from None


@contextmanager
def room_for_cases() -> Iterator[None]:
    """Turn running out of memory while cases are read inside into a ResourceError."""
    try:
        yield
    except MemoryError:
        raise ResourceError(
            "The training and validation cases don't fit into the memory together",
            expected="room for all of them: 2 bytes a voxel and modality",
            hint="close other programs, or use a machine with more memory",
        ) from None
