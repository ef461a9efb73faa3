"""What a simulated run has measured on its way, in its folder: `told.json`.

A killed run goes on from its workspaces; what no workspace holds stands here.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from brainfed.core.training import n_steps_of
from brainfed.formats import atomic, simulation
from brainfed.formats.simulation import HandOver, SiteCounts
from brainfed.plan import Training
from brainfed.steps.simulated_party import Row

NAME = "told.json"


@dataclass(slots=True)
class Notes:
    """The notes of one run; they grow with it."""

    seconds: float = 0.0
    """Of all processes together, training and scoring."""
    steps: dict[str, int] = field(default_factory=dict)
    """Optimiser steps by "round site"."""
    rows: dict[str, list[tuple[str, tuple[Row, ...]]]] = field(default_factory=dict)
    """Validation scores by round, each site's."""
    forgetting: list[HandOver] = field(default_factory=list)

    def passes(self, number: int, counts: Mapping[str, SiteCounts], training: Training) -> float:
        """Over each training patient until a round has closed, by the steps that were taken.

        Args:
            number: The round.
            counts: Of each place that trains.
            training: As the run's plan has it.
        """
        taken: dict[str, int] = defaultdict(int)
        for key, n_steps in self.steps.items():
            of_round, _, site = key.partition(" ")
            if int(of_round) <= number:
                taken[site] += n_steps
        n_all = sum(count.n_train for count in counts.values())
        one_epoch = training.model_copy(update={"epochs_per_round": 1})
        return sum(
            taken[name] / n_steps_of(one_epoch, count.n_slices) * count.n_train / n_all
            for name, count in counts.items()
        )

    @property
    def sequential_steps(self) -> int:
        """Optimiser steps one after the other: of each round those of the site that takes most."""
        longest: dict[str, int] = defaultdict(int)
        for key, n_steps in self.steps.items():
            number = key.partition(" ")[0]
            longest[number] = max(longest[number], n_steps)
        return sum(longest.values())


_NOTES = TypeAdapter(Notes)


def read(folder: Path) -> Notes:
    """The notes of a run that was begun before; empty ones for a new run.

    Raises:
        ConflictError: The file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return Notes()
    again = (
        f"remove the folder {folder.name} and run `brainfed simulate` again: this run begins anew, "
        "the others stay"
    )
    notes: Notes = simulation.read_checked(path, _NOTES, hint=again)
    return notes


def write(folder: Path, notes: Notes) -> None:
    """Keep the notes.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.write_bytes(folder / NAME, _NOTES.dump_json(notes), replace=True)
