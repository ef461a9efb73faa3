import pytest

from brainfed.core.contenders import Contender
from brainfed.core.paper_figures import N_PARAMETERS, POOLED, ROWS, PrintedRow


def test_there_is_a_row_for_each_partition_of_the_paper() -> None:
    assert [row.n_sites for row in ROWS] == [10, 4, 8, 16, 32]
    assert N_PARAMETERS == 7_846_081


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.n_sites))
def test_the_printed_per_cent_is_that_of_the_printed_dice(row: PrintedRow) -> None:
    """A slip of a digit would break it; what is left is the paper's own rounding."""
    assert row.figures[Contender.POOLED].mean == POOLED == 0.862
    for contender in (Contender.FL, Contender.CIIL, Contender.IIL):
        printed = row.figures[contender]
        assert printed.percent_of_pooled == pytest.approx(100 * printed.mean / POOLED, abs=0.25)


def test_in_the_paper_fl_is_above_ciil_and_ciil_not_below_iil() -> None:
    for row in ROWS:
        fl, ciil, iil = (row.figures[Contender(name)].mean for name in ("fl", "ciil", "iil"))
        assert fl > ciil >= iil
