"""A checkpoint is whole or not there, for its owner alone, and a damaged one is worth nothing."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore
from brainfed.errors import MalformedError
from brainfed.formats import checkpoint
from brainfed.formats.checkpoint import Best, Checkpoint
from brainfed.plan import Region


def a_checkpoint(n_values: int = 6) -> Checkpoint:
    weights = {"head.weight": np.arange(n_values, dtype=np.float32), "a": np.float32([[1, 2]])}
    score = CaseScore("case", "patient", Region.WT, 7, 8, {Measure.DICE: 0.25}, is_complete=False)
    return Checkpoint(
        belongs="a" * 64,
        weights=weights,
        moments={"a/step": np.array(3, np.float32), "a/exp_avg": np.float32([[0.5, 0.25]])},
        scaler={"scale": 65536.0, "_growth_tracker": 3},
        log=[(1, 9, 0.7, 0.001, 0.1, 4), (2, 9, 0.6, 0.0009, 0.2, 4)],
        incoming=(score,),
        best=Best(epoch=3, n_scored=5, weights={"a": np.float32([[7, 8]])}, scores=(score,)),
    )


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    path, content = tmp_path / checkpoint.NAME, a_checkpoint()
    checkpoint.write(path, content)
    found = checkpoint.read(path)
    assert found is not None
    assert (found.belongs, found.incoming) == (content.belongs, content.incoming)
    assert found.scaler == content.scaler
    assert [tuple(row) for row in found.log] == list(content.log)
    assert content.best is not None
    assert found.best is not None
    assert (found.best.epoch, found.best.n_scored) == (3, 5)
    assert found.best.scores == content.best.scores
    for ours, theirs in (
        (content.weights, found.weights),
        (content.moments, found.moments),
        (content.best.weights, found.best.weights),
    ):
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            assert theirs[name].shape == array.shape
            assert theirs[name].tobytes() == array.tobytes()


def test_it_is_for_its_owner_alone_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.NAME
    checkpoint.write(path, a_checkpoint())
    checkpoint.write(path, a_checkpoint(n_values=3))
    found = checkpoint.read(path)
    assert found is not None
    assert found.weights["head.weight"].shape == (3,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [checkpoint.NAME]


def test_it_is_a_safetensors_file_with_one_entry_of_json_and_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.NAME
    checkpoint.write(path, a_checkpoint())
    with safetensors.safe_open(path, framework="numpy") as content:
        metadata = content.metadata()
        assert "weights/head.weight" in content.keys()  # noqa: SIM118
    assert list(metadata) == ["brainfed"]
    assert json.loads(metadata["brainfed"])["format"] == checkpoint.FORMAT
    assert b"pickle" not in path.read_bytes()


def cut_off(data: bytes) -> bytes:
    return data[:-3]


def flipped_in_a_tensor(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def nothing(data: bytes) -> bytes:
    return b""


def of_zeros(data: bytes) -> bytes:
    return bytes(len(data))


def other_format(data: bytes) -> bytes:
    return data.replace(b"-checkpoint-2", b"-checkpoint-1").replace(b"-layers-1", b"-layers-0")


def without_log(data: bytes) -> bytes:
    return data.replace(b'"log"', b'"lag"')


@pytest.mark.parametrize(
    "damage", [cut_off, flipped_in_a_tensor, nothing, of_zeros, other_format, without_log]
)
def test_a_damaged_one_is_worth_nothing(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / checkpoint.NAME
    checkpoint.write(path, a_checkpoint())
    path.write_bytes(damage(path.read_bytes()))
    assert checkpoint.read(path) is None


def test_where_there_is_none_none_is_read(tmp_path: Path) -> None:
    assert checkpoint.read(tmp_path / checkpoint.NAME) is None
    assert checkpoint.read_moments(tmp_path / checkpoint.OPTIMISER) is None


def test_moments_are_read_as_written_and_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.OPTIMISER
    moments = a_checkpoint().moments
    checkpoint.write_moments(path, moments)
    found = checkpoint.read_moments(path)
    assert found is not None
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in moments.items()
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert checkpoint.read(path) is None
    path.write_bytes(flipped_in_a_tensor(path.read_bytes()))
    assert checkpoint.read_moments(path) is None


TABLE: dict[str, tuple[int, ...]] = {"a": (1, 2), "head.bias": ()}


def some_layers(**changes: np.ndarray) -> checkpoint.Layers:
    tensors = {"head.bias": np.array(0.5, np.float32), "a": np.float32([[1, 2]])}
    return checkpoint.Layers(3, 2, tensors | changes)


def test_local_layers_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.LAYERS
    checkpoint.write_layers(path, some_layers())
    found = checkpoint.read_layers(path, TABLE)
    assert (found.round, found.edition) == (3, 2)
    assert {n: a.tobytes() for n, a in found.tensors.items()} == {
        n: a.tobytes() for n, a in some_layers().tensors.items()
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert checkpoint.read(path) is None
    assert checkpoint.read_moments(path) is None


@pytest.mark.parametrize("damage", [cut_off, flipped_in_a_tensor, nothing, of_zeros, other_format])
def test_damaged_local_layers_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / checkpoint.LAYERS
    checkpoint.write_layers(path, some_layers())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MalformedError, match="damaged") as caught:
        checkpoint.read_layers(path, TABLE)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "layers",
    [
        some_layers(more=np.float32([1])),
        some_layers(a=np.float32([1, 2])),
        some_layers(a=np.array([[1, 2]], np.float64)),
    ],
    ids=["another name", "another shape", "another type"],
)
def test_local_layers_of_another_network_are_refused(
    tmp_path: Path, layers: checkpoint.Layers
) -> None:
    path = tmp_path / checkpoint.LAYERS
    checkpoint.write_layers(path, layers)
    with pytest.raises(MalformedError, match="damaged"):
        checkpoint.read_layers(path, TABLE)


FILL = """
import resource, signal, sys
from pathlib import Path

from brainfed.errors import ResourceError
from brainfed.formats import checkpoint
from tests.formats.test_checkpoint import a_checkpoint

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.write(Path(sys.argv[1]), a_checkpoint(n_values=100_000))
except ResourceError as error:
    print(error.message)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits files as POSIX does")
def test_a_disk_that_fills_up_is_our_error_and_the_older_one_stays(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.NAME
    checkpoint.write(path, a_checkpoint())
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "The disk is full\n"
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [checkpoint.NAME]
