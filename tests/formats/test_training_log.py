"""The log holds every step, in few lines."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainfed.core.metrics import Measure
from brainfed.core.scoring import Summary
from brainfed.formats import training_log
from brainfed.plan import Region

A_SUMMARY = Summary(
    region=Region.WT, measure=Measure.DICE, n=2, mean=0.5, sd=0.1, median=0.5, worst=()
)


@dataclass
class AStep:
    number: int
    loss: float
    dice: float = 0.5
    rate: float = 0.001


def written(path: Path, n_steps: int) -> list[dict[str, object]]:
    steps = [AStep(number, 1 / number, dice=1 - 1 / number) for number in range(1, n_steps + 1)]
    training_log.write(
        path, incoming=[A_SUMMARY], steps=steps, result=[A_SUMMARY], seconds=1.5, device="cpu"
    )
    return [json.loads(line) for line in path.read_text().splitlines()]


@given(st.integers(1, 1000))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_steps_take_at_most_200_lines_and_end_with_the_last(tmp_path: Path, n: int) -> None:
    lines = [line for line in written(tmp_path / "log.jsonl", n) if "step" in line]
    assert len(lines) <= training_log.MAX_STEP_LINES
    assert lines[-1]["step"] == n


def test_a_line_is_the_mean_of_its_steps(tmp_path: Path) -> None:
    lines = written(tmp_path / "log.jsonl", 400)
    assert lines[1] == {"step": 2, "loss": 0.75, "dice": 0.25, "rate": 0.001}


def test_scores_stand_before_and_after_and_the_time_last(tmp_path: Path) -> None:
    lines = written(tmp_path / "log.jsonl", 2)
    assert (lines[0]["weights"], lines[-2]["weights"]) == ("incoming", "result")
    assert lines[0]["mean"] == pytest.approx(0.5)
    assert lines[-1] == {"n_steps": 2, "seconds": 1.5, "device": "cpu"}


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    written(tmp_path / "log.jsonl", 1)
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o600


def test_while_training_runs_the_log_holds_the_steps_so_far(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for n_steps in (3, 7):
        steps = [AStep(number, 1.0) for number in range(1, n_steps + 1)]
        training_log.write(
            path, incoming=[A_SUMMARY], steps=steps, result=[], seconds=0.5, device="cpu"
        )
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["step"] for line in lines if "step" in line] == list(range(1, n_steps + 1))
        assert [line["weights"] for line in lines if "weights" in line] == ["incoming"]
        assert lines[-1]["n_steps"] == n_steps
    assert list(tmp_path.iterdir()) == [path]


def test_a_resumed_round_counts_the_steps_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    steps = [AStep(number, 1.0) for number in range(41, 61)]
    training_log.write(path, incoming=[], steps=steps, result=[], seconds=2.0, device="cpu")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (lines[0]["step"], lines[-1]["n_steps"]) == (41, 60)
