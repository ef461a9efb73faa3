"""What Sheller et al. 2018 printed, for a page that sets other figures beside it.

Source: arXiv 1810.04304, tables 2 and 3 and section 3. All are of the paper's own measure, a soft
Dice per slice, averaged over the slices of the patients that also chose the best round. A spread is
between runs for FL and IIL, and over all cycles of all runs for CIIL.
"""

from dataclasses import dataclass

from brainfed.core.contenders import Contender

N_PATIENTS = 210
"""High-grade glioma of the BraTS 2018 training set."""
N_PARAMETERS = 7_846_081
"""Of the paper's network; derived from its description, and from its authors' code."""
GRID = (128, 128)
"""Rows and columns of a slice, at 1 mm."""
BATCH = 64
"""Slices a step."""
RATE = 5e-4
"""Learning rate, constant."""
POOLED = 0.862
"""The best of several trainings on all patients in one place."""


@dataclass(frozen=True, slots=True)
class Printed:
    """One figure of the paper."""

    mean: float
    """Dice, 0 to 1."""
    sd: float | None = None
    percent_of_pooled: float | None = None


@dataclass(frozen=True, slots=True)
class PrintedRow:
    """One row of a table of the paper: one way to part the patients."""

    name: str
    n_sites: int
    figures: dict[Contender, Printed]


def _row(name: str, n_sites: int, *figures: tuple[float, float, float]) -> PrintedRow:
    """A row with the figures of FL, CIIL and IIL in this order."""
    three = zip((Contender.FL, Contender.CIIL, Contender.IIL), figures, strict=True)
    printed = {contender: Printed(*figure) for contender, figure in three}
    return PrintedRow(name, n_sites, {Contender.POOLED: Printed(POOLED), **printed})


ROWS = (
    _row("table 2: 10 real sites", 10, (0.852, 0.002, 98.7), (0.82, 0.04, 95), (0.803, 0.042, 93)),
    _row("table 3: 4 sites", 4, (0.862, 0.003, 99.9), (0.843, 0.011, 97.7), (0.841, 0.004, 97.4)),
    _row("table 3: 8 sites", 8, (0.865, 0.002, 100.2), (0.839, 0.016, 97.3), (0.823, 0.014, 95.4)),
    _row("table 3: 16 sites", 16, (0.863, 0.002, 99.9), (0.82, 0.032, 95), (0.82, 0.018, 95)),
    _row("table 3: 32 sites", 32, (0.857, 0.001, 99.3), (0.809, 0.023, 93.7), (0.701, 0.058, 81.2)),
)
"""Tables 2 and 3. The paper gives the pooled figure once, for all of them."""
