"""A simulation of three small made-up hospitals, by the real steps."""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from brainfed.core.contenders import Contender
from brainfed.core.labels import LabelProtocol
from brainfed.core.phantom import Scanner, make_phantom
from brainfed.formats import atomic, federation, identities, rounds, simulation, weights, workspace
from brainfed.formats.identities import Identities
from brainfed.formats.simulation import PatientScore
from brainfed.formats.workspace import Workspace
from brainfed.plan import Modality, Plan
from brainfed.steps import simulated_party
from brainfed.steps.phantoms import write_phantom
from brainfed.steps.preprocess import Wish
from brainfed.steps.simulate import Simulated, simulate
from brainfed.steps.simulated_party import Call, Machine
from brainfed.steps.simulation_setting import Request, set_up
from tests.builders import a_plan

TODAY = date(2026, 3, 1)
SITES = {"hospital-a": 6, "hospital-b": 5, "hospital-c": 8}
"""Patients; 3, 2 and 3 train, 2, 2 and 3 validate, 1, 1 and 2 test."""


def write_scans(
    folder: Path,
    sites: Mapping[str, int] = SITES,
    *,
    looks: Mapping[str, tuple[Scanner, Modality]] | None = None,
    n_slices: int = 6,
) -> Path:
    """A folder for each site, of a FLAIR scan a patient; gives the folder.

    `looks` says by site which scanner it has, and whose contrast its FLAIR shows.
    """
    for number, (site, n_patients) in enumerate(sites.items()):
        scanner, shown = (looks or {}).get(site, (Scanner(), Modality.FLAIR))
        for patient in range(n_patients):
            phantom = make_phantom(
                np.random.default_rng([2018, number, patient]),
                scanner,
                shape=(n_slices, 32, 32),
                spacing_mm=(10.0, 6.4, 6.4),
            )
            flair = {Modality.FLAIR: phantom.images[shown]}
            case = folder / site / f"phantom-{site[-1]}{patient + 1:02d}"
            write_phantom(case, replace(phantom, images=flair))
    return folder


def a_simulated_plan(**changes: Any) -> Plan:
    """Two passes over the patients in two rounds."""
    content: dict[str, Any] = {
        "name": "little",
        "seed": 3,
        "cohort": {"treatment": "any", "minimum_age_years": 0},
        "grid": {"in_plane_mm": 6.4},
        "split": {"validation": 0.4, "test": 0.2},
        "network": {"channels": (8, 16), "norm": "instance"},
        "training": {"rate": 0.03, "schedule": "constant", "foreground_fraction": 0.75},
    }
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    return a_plan(**content)


def with_known_ids(out: Path) -> Path:
    """A results folder with a key that is no secret: samples are drawn in the order of the ids."""
    atomic.make_folder(out / "cases")
    identities.write(out / "cases", Identities(key=bytes(32)))
    return out


def a_request(scans: Path, **changes: Any) -> Request:
    """Everything compared once, by folder, on the CPU."""
    words: dict[str, Any] = {
        "plan": a_simulated_plan(),
        "scans": scans,
        "contenders": tuple(Contender),
        "n_repeats": 1,
        "wish": Wish(protocol=LabelProtocol.BRATS2017),
        "machine": Machine("cpu", "float32"),
    }
    return Request(**(words | changes))


def here(call: Call) -> Future[tuple[Any, float]]:
    """Do a piece of work at once, in this process."""
    done: Future[tuple[Any, float]] = Future()
    done.set_result(simulated_party.call(call))
    return done


def simulated_here(out: Path, request: Request) -> Simulated:
    """One run after the other, in this process."""
    return simulate(out, set_up(out, request), here, today=TODAY, at_once=1)


def lead_of(out: Path, run_name: str) -> Workspace:
    """The coordinator of a run."""
    return workspace.find(out / "runs" / run_name / "lead")


def global_tensors(lead: Workspace, number: int) -> dict[str, Any]:
    """The global weights of a round."""
    path = rounds.global_path(lead, number)
    assert path is not None
    return weights.read_tensors(path, federation.load(lead).table)


def update_tensors(lead: Workspace, number: int, site: str) -> dict[str, Any]:
    """The update of a site, as the coordinator received it."""
    known = federation.load(lead)
    path = rounds.update_path(lead, known, number, site)
    assert path is not None
    return weights.read_tensors(path, known.table)


def by_name(out: Path) -> dict[str, str]:
    """The real names of the patients of a results folder, by the ids that it uses."""
    return dict(identities.read(out / "cases").patients)


def figures(out: Path) -> dict[str, Any]:
    """All that the runs of a folder found, under real names, without what took how long."""
    names = by_name(out)

    def of(scores: tuple[PatientScore, ...]) -> dict[tuple[str, str, str], tuple[float, float]]:
        return {(s.site, names[s.patient], s.region): (s.dice, s.soft_slice_dice) for s in scores}

    return {
        f"{result.training} {result.epochs} {result.repeat} {one.contender} {one.site}": (
            [(p.round, p.passes, p.hand_overs, of(p.validation)) for p in one.points],
            one.chosen,
            of(one.test),
            result.forgetting,
        )
        for result in simulation.read_results(out)
        for one in result.outcomes
    }
