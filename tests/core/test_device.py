"""The device is chosen by name or by itself; too little memory is our error."""

import platform
import subprocess
import sys

import pytest
import torch

from brainfed.core.device import (
    Precision,
    choose_device,
    choose_precision,
    memory_errors,
    room_for_cases,
    threads,
)
from brainfed.errors import ResourceError
from tests.builders import a_plan


def test_the_cpu_can_always_be_named() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_without_a_name_cuda_is_taken_where_there_is_one() -> None:
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "mps", "cpu:3"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ResourceError, match="no such device") as caught:
        choose_device(name)
    assert "cpu" in (caught.value.expected or "")


def test_running_out_of_memory_names_the_plan_s_keys() -> None:
    named = r"training\.batch.*network\.channels"
    with pytest.raises(ResourceError, match=named), memory_errors(a_plan()):
        torch.empty(2**50)


def test_in_3d_they_are_the_batch_and_the_patch() -> None:
    plan = a_plan(network={"architecture": "unet-3d", "patch": (16, 16, 16)})
    named = r"training\.batch.*network\.patch"
    with pytest.raises(ResourceError, match=named), memory_errors(plan):
        torch.empty(2**50)


CPU = torch.device("cpu")


def test_a_cpu_computes_in_float32_unless_asked() -> None:
    assert choose_precision(None, CPU) is Precision.FLOAT32
    assert choose_precision("float32", CPU) is Precision.FLOAT32


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16"])
def test_bf16_on_a_cpu_needs_its_units(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {unit: True})
    assert choose_precision("bf16", CPU) is Precision.BF16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, unit: False})
    with pytest.raises(ResourceError, match="neither avx512_bf16 nor amx_bf16") as caught:
        choose_precision("bf16", CPU)
    assert caught.value.expected == "float32"


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ResourceError, match="fp16 is for GPUs"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(("has_bf16", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_bf16_or_where_it_lacks_that_in_fp16(
    has_bf16: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    gpu = torch.device("cuda")
    assert choose_precision(None, gpu) == chosen
    assert choose_precision("float32", gpu) is Precision.FLOAT32
    if not has_bf16:
        with pytest.raises(ResourceError, match="no units for bf16"):
            choose_precision("bf16", gpu)


def test_python_s_memory_error_is_one_too() -> None:
    with pytest.raises(ResourceError, match="memory"), memory_errors(a_plan()):
        bytearray(2**60)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), memory_errors(a_plan()):
        torch.ones(2) + torch.ones(3)


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before


def test_too_little_memory_for_the_cases_is_told_apart_from_that_of_the_device() -> None:
    with pytest.raises(ResourceError, match="cases don't fit"), room_for_cases():
        bytearray(2**60)


TEN_TENSORS = """
import resource, sys, torch
from brainfed.core.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10, 1_000_000)
before = page_faults()
for _ in range(10):
    torch.ones(10, 1_000_000)
print(page_faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library alone")
def test_kept_memory_is_used_again_without_asking_the_system() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", TEN_TENSORS, how], text=True))
        for how in ("kept", "given-back")
    }
    assert faults["kept"] < 100
    assert faults["given-back"] > 10 * 40_000_000 // 4096 * 0.9
