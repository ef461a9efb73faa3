"""The time of a step is measured by steps that are really done."""

import pytest

from brainfed.steps import step_time
from brainfed.steps.step_time import seconds_per_step
from tests.builders import a_plan


@pytest.mark.parametrize("network", ["unet-2d", "unet-3d"])
def test_a_step_takes_some_time(network: str) -> None:
    patch = (8, 16, 16) if network == "unet-3d" else ()
    plan = a_plan(network={"architecture": network, "patch": patch, "channels": [4, 8]})
    assert 0 < seconds_per_step(plan, device="cpu", threads=1, n=2) < 60


def test_the_steps_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = step_time.train

    def noted(*given, **words):  # type: ignore[no-untyped-def]
        asked.append((given[1].training.steps_per_round, given[2].n_samples))
        return real(*given, **words)

    monkeypatch.setattr(step_time, "train", noted)
    seconds_per_step(a_plan(training={"batch": 3}), device="cpu", threads=1, n=4)
    assert asked == [(4 + step_time.WARM_UP, 3)]
