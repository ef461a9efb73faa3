"""How long a training step of a plan takes on this machine: measured on random data."""

import statistics
import time
from contextlib import suppress

import numpy as np

from brainfed.core.device import choose_device, choose_precision
from brainfed.core.device import threads as cpu_threads
from brainfed.core.samples import Volume, samples_of
from brainfed.core.training import Step, train
from brainfed.core.unet import initial_weights
from brainfed.plan import Plan

WARM_UP = 2
"""Steps that are not counted: memory is found, kernels are chosen."""


class _EnoughError(Exception):
    """The time is up."""


def seconds_per_step(
    plan: Plan,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    n: int = 5,
    budget_seconds: float | None = None,
) -> float:
    """The median time of a step of `core.training`, batches and augmentation as in earnest.

    Args:
        plan: The plan.
        device: As for `train_round`; likewise `precision` and `threads`.
        precision: See `device`.
        threads: See `device`.
        n: Steps that are counted.
        budget_seconds: After so long, and two steps, no further one is begun; the last counts.

    Raises:
        ResourceError: The memory is too small for a step, or the device isn't there.
    """
    chosen = choose_device(device)
    n_slices = max(plan.training.batch, *(plan.network.patch[:1] or (1,)))
    random = np.random.default_rng(plan.seed)
    shape = (n_slices, *plan.grid.size)
    image = random.standard_normal((len(plan.scans.modalities), *shape)).astype(np.float16)
    regions = random.random((len(plan.scans.regions), *shape)) < 0.1
    volume = Volume(image, regions, (True,) * len(image))
    wanted = {"epochs_per_round": 0, "steps_per_round": n + WARM_UP}
    short = plan.model_copy(update={"training": plan.training.model_copy(update=wanted)})
    ends = [time.perf_counter()]

    def note(step: Step) -> None:
        ends.append(time.perf_counter())
        is_over = budget_seconds is not None and ends[-1] - ends[0] > budget_seconds
        if is_over and len(ends) > WARM_UP:  # the very first step alone would tell far too much
            raise _EnoughError

    with cpu_threads(threads), suppress(_EnoughError):
        train(
            initial_weights(short),
            short,
            samples_of([volume], short, seed=plan.seed, device=chosen),
            round_number=1,
            seed=plan.seed,
            device=chosen,
            precision=choose_precision(precision, chosen),
            on_step=note,
        )
    times = np.diff(ends)[WARM_UP:] if len(ends) > WARM_UP + 1 else np.diff(ends)[-1:]
    # On CUDA steps are told of in bunches: then the mean is all that there is.
    return float(statistics.median(times) if chosen.type != "cuda" else np.diff(ends).mean())
