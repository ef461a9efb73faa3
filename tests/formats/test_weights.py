import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.architecture import n_parameters, tensor_table
from brainfed.errors import (
    ConflictError,
    FileRefusedError,
    MalformedError,
    TensorsError,
    TooLargeError,
)
from brainfed.formats import weights
from tests import attacks
from tests.builders import a_plan
from tests.federation import random_weights
from tests.formats.test_manifest import an_update

PLAN = a_plan()
TABLE = tensor_table(PLAN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "u.safetensors"
    weights.write(path, an_update(), random_weights(PLAN, 1))
    return path


def test_the_safetensors_library_opens_our_file(path: Path) -> None:
    content = safetensors.numpy.load_file(path)
    expected = random_weights(PLAN, 1)
    assert set(content) == set(expected)
    assert all(np.array_equal(content[name], expected[name]) for name in expected)
    with safetensors.safe_open(path, "numpy") as opened:
        assert opened.metadata() == {"brainfed": an_update().dumps().decode()}


def test_what_is_written_reads_back_to_the_bit_in_name_order(path: Path) -> None:
    content = weights.read_tensors(path, TABLE)
    assert list(content) == sorted(TABLE)
    assert all(
        np.array_equal(content[name], values) for name, values in random_weights(PLAN, 1).items()
    )
    assert weights.check(path, TABLE) == weights.read_manifest(path) == an_update()


def test_the_order_in_which_tensors_are_given_changes_no_byte(path: Path, tmp_path: Path) -> None:
    backwards = dict(reversed(random_weights(PLAN, 1).items()))
    weights.write(tmp_path / "b", an_update(), backwards)
    assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_the_values_begin_at_a_multiple_of_eight_bytes_and_end_with_the_file(path: Path) -> None:
    start = weights.data_start(path)
    assert start % 8 == 0
    assert path.stat().st_size == start + 4 * n_parameters(TABLE)
    assert path.stat().st_size <= weights.largest_file(TABLE)


def test_a_file_that_is_there_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConflictError):
        weights.write(path, an_update(round=2), random_weights(PLAN, 2))
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(
    path: Path, tmp_path: Path, value: float
) -> None:
    tensors = random_weights(PLAN, 1)
    tensors["head.bias"][0] = value
    with pytest.raises(TensorsError, match="written"):
        weights.write(tmp_path / "new", an_update(), tensors)
    assert not (tmp_path / "new").exists()
    attacks.put_value(path, -1, value)
    with pytest.raises(TensorsError, match="NaN or infinity") as caught:
        weights.check(path, TABLE)
    assert "head.weight" in str(caught.value.where)


def test_float64_is_not_written(tmp_path: Path) -> None:
    tensors = {name: values.astype(np.float64) for name, values in random_weights(PLAN, 1).items()}
    with pytest.raises(TensorsError):
        weights.write(tmp_path / "new", an_update(), tensors)


def rewrite(change: Callable[[bytes], bytes], path: Path) -> None:
    attacks.put_header(path, change(attacks.header_and_body(path)[0]))


MALFORMED: dict[str, Callable[[Path], None]] = {
    "a byte cut off": attacks.truncate,
    "a value cut off": partial(attacks.truncate, n_bytes=4),
    "bytes left over": attacks.append,
    "a hole": attacks.open_hole,
    "a tensor's entry twice": attacks.duplicate_key,
    "two tensors exchanged": attacks.swap_tensors,
    "empty": lambda path: path.write_bytes(b""),
    "seven bytes": lambda path: path.write_bytes(b"\0" * 7),
    "no header": lambda path: path.write_bytes(bytes(8)),
    "only a length": lambda path: path.write_bytes((4).to_bytes(8, "little")),
    "a header longer than the file": partial(attacks.claim_header_of, n_bytes=4 * 2**20),
    "a header that is too short": partial(attacks.claim_header_of, n_bytes=100),
    "a space before the header": partial(rewrite, lambda text: b" " + text),
    "more padding than needed": partial(rewrite, lambda text: text + b" " * 8),
    "no padding": partial(rewrite, lambda text: text.rstrip() + b"\t" * 3),
    "other escapes": partial(rewrite, lambda text: text.replace(b"head", b"he\\u0061d")),
    "not ascii": partial(rewrite, lambda text: text.replace(b"head", "hëad".encode())),
    "an array": partial(rewrite, lambda text: b"[]      "),
    "a float offset": partial(rewrite, lambda text: text.replace(b"[0,", b"[0.0,")),
    "deep brackets": partial(rewrite, lambda text: attacks.nested_json(900)),
    "deeper brackets": partial(rewrite, lambda text: attacks.nested_json(100_000)),
    "an endless number": partial(rewrite, lambda text: b'{"a":' + b"9" * 10_000 + b"}"),
    "no manifest": lambda path: attacks.edit_header(path, lambda c: c.pop("__metadata__")),
    "an empty manifest": lambda path: attacks.edit_header(
        path, attacks.setting("__metadata__", {"brainfed": ""})
    ),
    "metadata that is a list": lambda path: attacks.edit_header(
        path, attacks.setting("__metadata__", ["brainfed"])
    ),
    "a manifest that is a number": lambda path: attacks.edit_header(
        path, attacks.setting("__metadata__", {"brainfed": 1})
    ),
    "a second metadata entry": lambda path: attacks.edit_header(
        path, lambda c: c["__metadata__"].update(patient="Smith")
    ),
    "an unknown field": lambda path: attacks.edit_manifest(
        path, attacks.setting("comment", "Smith")
    ),
    "a field left out": lambda path: attacks.edit_manifest(path, lambda m: m.pop("edition")),
    "a version of tomorrow": lambda path: attacks.edit_manifest(
        path, attacks.setting("format", 2)
    ),
    "an unknown kind": lambda path: attacks.edit_manifest(
        path, attacks.setting("kind", "gradient")
    ),
}  # fmt: skip
TENSORS: dict[str, Callable[[Path], None]] = {
    "a tensor too many": attacks.add_tensor,
    "a tensor too few": attacks.drop_tensor,
    "another shape": attacks.change_entry("shape", [4, 1, 1, 1]),
    "a flat shape": attacks.change_entry("shape", [4]),
    "no shape": attacks.change_entry("shape", None),
    "integers": attacks.change_entry("dtype", "I32"),
    "float64": attacks.change_entry("dtype", "F64"),
    "no dtype": attacks.change_entry("dtype", None),
    "NaN": partial(attacks.put_value, index=0, value=np.nan),
    "infinity": partial(attacks.put_value, index=7, value=-np.inf),
    "an entry that is a number": lambda path: attacks.edit_header(
        path, attacks.setting("head.weight", 5)
    ),
    "a deep dtype": lambda path: rewrite(
        lambda text: text.replace(b'"F32"', b"[" * 700 + b"]" * 700), path
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_file_in_another_form_is_malformed(path: Path, name: str) -> None:
    MALFORMED[name](path)
    with pytest.raises(MalformedError) as caught:
        weights.check(path, TABLE)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_the_plans_are_refused(path: Path, name: str) -> None:
    TENSORS[name](path)
    with pytest.raises(TensorsError):
        weights.check(path, TABLE)
    with pytest.raises(TensorsError):
        weights.read_tensors(path, TABLE)


@pytest.mark.parametrize("n_bytes", [4 * 2**20 + 1, 100 * 2**20, 2**63, 2**64 - 1])
def test_a_header_that_claims_to_be_large_is_refused_unread(path: Path, n_bytes: int) -> None:
    attacks.claim_header_of(path, n_bytes)
    for read in (partial(weights.check, table=TABLE), weights.read_manifest):
        with pytest.raises(TooLargeError):
            read(path)


def test_another_networks_file_is_refused(path: Path) -> None:
    other = tensor_table(a_plan(network={"channels": (4, 8, 16)}))
    with pytest.raises(TensorsError, match="missing"):
        weights.check(path, other)


@given(st.data())
def test_no_flipped_bit_of_the_header_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Even without its signature a header has one spelling; what passes is a manifest's value."""
    path = tmp_path_factory.mktemp("weights") / "u.safetensors"
    weights.write(path, an_update(), random_weights(PLAN, 1))
    n_bits = 8 * weights.data_start(path)
    attacks.flip_bit(path, data.draw(st.integers(0, n_bits - 1)))
    try:
        manifest = weights.check(path, TABLE)
    except FileRefusedError:
        return
    assert manifest != an_update()


def test_what_a_header_claims_can_be_listed_without_a_plan(path: Path) -> None:
    with path.open("rb") as stream:
        header = weights.read_raw_header(stream, path)
    assert weights.claimed_table(header, path) == TABLE


@pytest.mark.parametrize(
    "shape", [[-1], [0], [2**31], [True], ["4"], 4, None, [1.5], [[1]]], ids=str
)
def test_a_claimed_shape_must_be_one(path: Path, shape: object) -> None:
    attacks.change_entry("shape", shape)(path)
    with path.open("rb") as stream:
        header = weights.read_raw_header(stream, path)
    with pytest.raises(TensorsError):
        weights.claimed_table(header, path)


@pytest.mark.parametrize("depth", [700, 900, 20_000])
def test_deep_brackets_in_an_entry_never_break_the_listing(path: Path, depth: int) -> None:
    text = b'{"__metadata__":{},"a":{"shape":' + b"[" * depth + b"]" * depth + b"}}"
    attacks.put_header(path, text)
    with path.open("rb") as stream:
        header = weights.read_raw_header(stream, path)
    with pytest.raises(FileRefusedError):
        weights.claimed_table(header, path)


def test_the_header_is_json_that_anybody_can_read(path: Path) -> None:
    text, _ = attacks.header_and_body(path)
    content = json.loads(text)
    assert content["head.bias"]["shape"] == [1]
    assert set(content) == {"__metadata__", *TABLE}
