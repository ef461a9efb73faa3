"""Nothing about a group below the floor leaves the site but that it is below."""

from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.metrics import Measure
from brainfed.core.scoring import Summary
from brainfed.formats import floor
from brainfed.formats.manifest import ScoredWeights
from brainfed.plan import Region


def a_summary(n: int, mean: float | None = 0.5, sd: float | None = 0.25) -> Summary:
    return Summary(
        region=Region.WT, measure=Measure.DICE, n=n, mean=mean, sd=sd, median=mean, worst=()
    )


@given(st.integers(0, 50), st.integers(1, 50))
def test_a_count_is_exact_from_the_floor_on(n: int, smallest: int) -> None:
    assert floor.count(n, smallest) == (n if n >= smallest else f"fewer than {smallest}")


@given(st.integers(0, 20), st.integers(1, 20), st.floats(0, 1))
def test_a_figure_is_stated_exactly_from_the_floor_on(n: int, smallest: int, mean: float) -> None:
    (score,) = floor.scores(
        [a_summary(n, mean)], weights=ScoredWeights.RESULT, subset="validation", floor=smallest
    )
    enough = n >= smallest
    assert score.mean == (round(mean * 1e6) if enough else None)
    assert score.sd == (250_000 if enough else None)
    assert isinstance(score.n, int) == enough


def test_a_spread_that_does_not_exist_is_null() -> None:
    (score,) = floor.scores(
        [a_summary(1, 0.5, None)], weights=ScoredWeights.INCOMING, subset="test", floor=1
    )
    assert (score.n, score.mean, score.sd) == (1, 500_000, None)
