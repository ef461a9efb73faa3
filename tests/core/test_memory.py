"""The memory that training will take is estimated before it begins, and about right."""

import subprocess
import sys
from pathlib import Path

import pytest

from brainfed import plan as plans
from brainfed.core.memory import training_bytes
from brainfed.plan import Plan
from tests.builders import a_plan

IN_2D = {
    "grid": {"size": (128, 128)},
    "network": {"channels": (16, 32, 64, 128), "norm": "instance"},
    "training": {"batch": 8, "epochs_per_round": 0, "steps_per_round": 2},
}
IN_3D = {
    "grid": {"size": (48, 48)},
    "network": {
        "architecture": "unet-3d",
        "patch": (48, 48, 48),
        "channels": (16, 32, 64),
        "norm": "instance",
        "deep_supervision": True,
    },
    "training": {"batch": 2, "epochs_per_round": 0, "steps_per_round": 2, "optimiser": "sgd"},
}

MEASURE = """
import sys
from pathlib import Path

import numpy as np
import torch

from brainfed import plan as plans
from brainfed.core.samples import Volume, samples_of
from brainfed.core.training import train
from brainfed.core.unet import initial_weights

def peak_of(plan):
    shape = (48, *plan.grid.size)
    random = np.random.default_rng(1)
    image = random.normal(size=(1, *shape)).astype(np.float16)
    volume = Volume(image, image > 1, (True,))
    samples = samples_of([volume], plan, seed=1)
    train(initial_weights(plan), plan, samples, round_number=1, seed=1, device=torch.device("cpu"))
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's too
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

torch.set_num_threads(1)
small, large = (plans.parse(bytes.fromhex(text)) for text in sys.argv[1:])
before = peak_of(small)  # libraries, and all that is allocated once
print(peak_of(large) - before)
"""


def measured_bytes(plan: Plan) -> int:
    """How far a process's memory grows when it trains by a plan after a tiny one."""
    texts = [plans.render(one).encode().hex() for one in (a_plan(), plan)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *texts],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory as Linux does")
@pytest.mark.parametrize(
    "changes",
    [pytest.param(IN_2D, id="2-D"), pytest.param(IN_3D, id="3-D", marks=pytest.mark.slow)],
)
def test_the_estimate_is_within_a_half_of_the_measured_peak(changes: dict[str, object]) -> None:
    plan = a_plan(**changes)
    assert 2 / 3 < training_bytes(plan) / measured_bytes(plan) < 3 / 2


def test_a_larger_batch_takes_more_and_several_processes_share_it() -> None:
    plan = a_plan(**IN_2D)
    double = a_plan(**IN_2D | {"training": {"batch": 16}})
    assert training_bytes(double) > 1.8 * training_bytes(plan)
    assert training_bytes(double, n_ranks=2) == training_bytes(plan)
