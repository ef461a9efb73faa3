"""The device is chosen by name or by itself; too little memory is our error."""

import pytest
import torch

from brainfed.core.device import choose_device, memory_errors, room_for_cases, threads
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
