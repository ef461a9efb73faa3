"""Two processes that share a batch find the gradient that one process finds."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainfed import plan as plans
from brainfed.core.inference import network_with
from brainfed.core.losses import batch_loss
from brainfed.core.team import Alone
from brainfed.core.training import train
from brainfed.core.unet import initial_weights
from brainfed.errors import UsageError
from brainfed.plan import Loss, Plan
from tests.builders import a_plan
from tests.core.test_training import CPU, a_training_set

ROOT = Path(__file__).parents[2]


def a_plan_of_one_step(**training: Any) -> Plan:
    """Plain gradient descent at rate 1, so that the change of the weights is the gradient."""
    settings = {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "rate": 1.0}
    settings |= {"schedule": "constant", "epochs_per_round": 0, "steps_per_round": 1}
    settings |= {"foreground_fraction": 0.5}
    return a_plan(network={"norm": "instance"}, training=settings | training)


def by_two_processes(folder: Path, plan: Plan) -> list[dict[str, np.ndarray]]:
    (folder / "plan.toml").write_text(plans.render(plan))
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    words += ["-m", "tests.core.shared_step", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return [dict(np.load(folder / f"{rank}.npz")) for rank in (0, 1)]


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def flat(weights: dict[str, np.ndarray], start: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([(weights[name] - start[name]).ravel() for name in sorted(start)])


@pytest.mark.parametrize(
    "loss",
    # Of them all log-dice is the one that goes wrong where gradients alone are averaged.
    [pytest.param(loss, marks=() if loss is Loss.LOG_DICE else pytest.mark.slow) for loss in Loss],
)
def test_two_processes_find_the_gradient_of_one(tmp_path: Path, loss: Loss) -> None:
    plan = a_plan_of_one_step(loss=loss)
    start = initial_weights(plan)
    alone = train(start, plan, a_training_set(plan, 2), round_number=1, seed=5, device=CPU)
    first, second = by_two_processes(tmp_path, plan)
    assert all(first[name].tobytes() == second[name].tobytes() for name in start)
    assert difference(flat(first, start), flat(alone.weights, start)) < 1e-4
    assert first["loss"] == pytest.approx(alone.steps[0].loss, rel=1e-5)


def test_the_mean_of_the_gradients_of_half_batches_is_another_one() -> None:
    plan = a_plan_of_one_step(loss="log-dice")
    batch = a_training_set(plan, 2).batch(0)

    def gradient(rows: slice) -> np.ndarray:
        network = network_with(initial_weights(plan), plan, CPU)
        outputs = network.outputs(batch.image[rows])
        batch_loss(outputs, batch.regions[rows], Loss.LOG_DICE)[0].backward()
        return np.concatenate([p.grad.numpy().ravel() for p in network.parameters()])

    whole = gradient(slice(None))
    halves = (gradient(slice(0, None, 2)) + gradient(slice(1, None, 2))) / 2
    assert difference(halves, whole) > 0.01


def test_a_process_without_a_sample_in_a_small_last_batch_takes_part(tmp_path: Path) -> None:
    # Twelve slices in batches of eleven: the second batch has one.
    plan = a_plan_of_one_step(foreground_fraction=0.0, batch=11, steps_per_round=2)
    start = initial_weights(plan)
    alone = train(start, plan, a_training_set(plan, 2), round_number=1, seed=5, device=CPU)
    first, _ = by_two_processes(tmp_path, plan)
    assert difference(flat(first, start), flat(alone.weights, start)) < 1e-3


class Five(Alone):
    n_ranks = 5


def test_more_processes_than_samples_in_a_batch_are_refused() -> None:
    plan = a_plan(training={"batch": 4})
    with pytest.raises(UsageError, match="more processes"):
        train(
            initial_weights(plan),
            plan,
            a_training_set(plan, 1),
            round_number=1,
            seed=5,
            device=CPU,
            team=Five(),
        )
