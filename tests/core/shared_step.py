"""One step of training by several processes, for `test_distributed`; torchrun starts it.

Writes what each process found to `<folder>/<rank>.npz`.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from brainfed import plan as plans
from brainfed.core.distributed import launched
from brainfed.core.training import train
from brainfed.core.unet import initial_weights
from tests.core.test_training import a_training_set

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    plan = plans.load(folder / "plan.toml")
    torch.set_num_threads(1)
    with launched() as team:
        team.begin("cpu")
        done = train(
            initial_weights(plan),
            plan,
            a_training_set(plan, 2),
            round_number=1,
            seed=5,
            device=torch.device("cpu"),
            team=team,
        )
        np.savez(folder / f"{team.rank}.npz", loss=done.steps[-1].loss, **done.weights)
