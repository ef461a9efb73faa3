"""The 3-D network on real cases: it can learn two by heart, and predicts others."""

from pathlib import Path

import pytest

from brainfed.plan import Region
from tests.benchmarks import overfit_3d

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not overfit_3d.SCANS.is_dir(), reason="needs ../shared/data"),
]


def test_it_over_fits_two_cases_and_predicts_the_four_others(tmp_path: Path) -> None:
    done = overfit_3d.overfit(tmp_path)
    learnt = [score for score in done.trained.result if score.n_voxels]
    assert {score.region for score in learnt} == set(Region)
    assert len({score.case for score in learnt}) == 2
    assert min(score.dice for score in learnt) > 0.9
    assert max(score.dice for score in done.trained.incoming) < 0.5
    assert len({score.case for score in done.others}) == 4
    assert len(done.others) == 4 * len(Region)
    assert all(0 <= score.dice <= 1 for score in done.others)
