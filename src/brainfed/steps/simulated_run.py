"""One run of a simulation: a federation of throw-away parties, from its start to its audit.

Written as a script that asks for pieces of work and is given their results, so that one process
can have many runs at work at a time. The workspaces are the state: begun again after a kill, it
does what is left to do.
"""

import statistics
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from brainfed import plan as plans
from brainfed.core.budget import hand_overs_of
from brainfed.core.cohort import Subset
from brainfed.core.contenders import Contender, Run, Training, plan_of
from brainfed.formats import atomic, rounds, workspace
from brainfed.formats.simulation import HandOver, Outcome, PatientScore, Point, RunResult
from brainfed.plan import Method, Plan
from brainfed.steps import simulated_notes
from brainfed.steps import simulated_party as party
from brainfed.steps.simulated_notes import Notes
from brainfed.steps.simulated_party import Call, Machine, Row
from brainfed.steps.simulation_data import Prepared, counts_of, everybody, lay_out

LEAD, POOLED = "lead", "pooled"
EVERYBODY = ".everybody"
"""Folder of all cases in a run that has no workspace of them; no site's name begins so."""

Script = Generator[Sequence[Call], Sequence[tuple[Any, float]], RunResult]
"""Asks for work that may be done side by side, and is given the result and seconds of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What all runs of a repeat share."""

    prepared: Prepared
    plan: Plan
    """The plan that is simulated."""
    sites: Mapping[str, Mapping[str, Subset]]
    """Subset by patient id, by site."""
    contenders: frozenset[Contender]
    machine: Machine
    today: date
    settings: str
    """Digest of `simulation.json`."""
    watches_forgetting: bool
    """Whether one site's training patients are scored at each of its hand-overs."""


class SimulatedRun:
    """One run in its folder."""

    def __init__(self, folder: Path, run: Run, scene: Scene) -> None:
        self.folder, self.run, self.scene = folder, run, scene
        self.plan = plan_of(run, scene.plan, len(scene.sites))
        self._is_pooled = run.training is Training.POOLED
        everyone = everybody(scene.sites.values())
        self._of_place = {POOLED: everyone} if self._is_pooled else dict(scene.sites)
        self.sites = tuple(sorted(self._of_place))
        self._home = {patient: site for site in scene.sites for patient in scene.sites[site]}
        self._notes = Notes()
        self._watched = self.sites[0] if scene.watches_forgetting else None

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        closed = max((int(number) for number in self._notes.rows), default=0)
        return closed / self.plan.rounds

    def script(self) -> Script:
        """All that is to be done, as calls; gives the result in the end."""
        self._begin()
        yield from self._do([self._call(party.begin, lead=LEAD, sites=self.sites)])
        self._lay_out()
        first = rounds.newest_round(workspace.find(self.folder / LEAD)) or 0
        yield from self._score(0)
        for number in range(1, self.plan.rounds + 1):
            at_work = yield from self._at_work(number)
            if not at_work:
                break
            if number > first:
                yield from self._round(number, at_work)
            if self._is_point(number):
                yield from self._score(number)
        return (yield from self._result())

    def _is_point(self, number: int) -> bool:
        """Whether a round's weights go to all sites and are scored: of `ciil` after a cycle."""
        every = len(self.sites) if self.run.training is Training.CIIL else 1
        return number % every == 0 or number == self.plan.rounds

    def _begin(self) -> None:
        atomic.make_folder(self.folder)
        self._notes = simulated_notes.read(self.folder)
        text = plans.render(self.plan).encode()
        atomic.write_bytes(self.folder / "plan.toml", text, replace=True)

    def _lay_out(self) -> None:
        for name, subsets in self._of_place.items():
            lay_out(self.scene.prepared, self.folder / name / "data", self.plan, subsets)
        if self.run.training is Training.ONCE:
            whole = everybody(self.scene.sites.values())
            lay_out(self.scene.prepared, self.folder / EVERYBODY, self.plan, whole)

    def _at_work(self, number: int) -> Generator[Sequence[Call], Any, tuple[str, ...]]:
        if self.plan.method is Method.FL:
            return self.sites
        (whose,) = yield from self._do([self._of_lead(party.turn, number=number)])
        return (whose,) if whose else ()

    def _round(self, number: int, at_work: Sequence[str]) -> Generator[Sequence[Call], Any, None]:
        watched = self._watched if self._watched in at_work else None
        if watched:
            yield from self._watch(number, watched, is_own=False)
        machine = self.scene.machine
        calls = [
            Call(party.train, {"place": self.folder / name, "machine": machine}, computes=True)
            for name in at_work
        ]
        steps = yield from self._do(calls)
        self._notes.steps |= {f"{number} {name}": n for name, n in zip(at_work, steps, strict=True)}
        if watched:
            yield from self._watch(number, watched, is_own=True)
        simulated_notes.write(self.folder, self._notes)
        receivers = self.sites if self._is_point(number) else ()
        close = {"lead": LEAD, "number": number, "senders": at_work, "receivers": receivers}
        yield from self._do([self._call(party.close_round, **close)])

    def _watch(
        self, number: int, site: str, *, is_own: bool
    ) -> Generator[Sequence[Call], Any, None]:
        of_round = number if is_own else number - 1
        if any((h.round, h.is_own) == (of_round, is_own) for h in self._notes.forgetting):
            return
        words = {
            "place": self.folder / site,
            "number": of_round,
            "machine": self.scene.machine,
            "is_own": is_own,
        }
        (dice,) = yield from self._do([Call(party.score_trained, words, computes=True)])
        n_before = sum(not h.is_own for h in self._notes.forgetting)
        self._notes.forgetting.append(
            HandOver(hand_over=n_before + (not is_own), round=of_round, dice=dice, is_own=is_own)
        )

    def _score(self, number: int) -> Generator[Sequence[Call], Any, None]:
        """All sites' validation patients under the global weights of a round."""
        if str(number) not in self._notes.rows:
            found = yield from self._do(self._scoring(number, Subset.VALIDATION))
            self._notes.rows[str(number)] = list(zip(self.sites, found, strict=True))
            simulated_notes.write(self.folder, self._notes)

    def _scoring(self, number: int, subset: Subset) -> list[Call]:
        return [
            Call(
                party.score,
                {
                    "place": self.folder / name,
                    "number": number,
                    "subset": subset,
                    "machine": self.scene.machine,
                    "today": self.scene.today,
                },
                computes=True,
            )
            for name in self.sites
        ]

    def _result(self) -> Script:
        words = {"sites": self.sites, "best": self._best(), "today": self.scene.today}
        (final,) = yield from self._do([self._of_lead(party.end, **words)])
        yield from self._score(final)  # of ciil perhaps none at the end of a cycle
        points = tuple(self._point(number) for number in sorted(map(int, self._notes.rows)))
        found = yield from self._do(self._scoring(final, Subset.TEST))
        tested = [rows for rows in found if rows]
        outcomes, n_opened = [], len(tested)
        federated = self._federated_as
        if federated in self.scene.contenders:
            outcomes.append(
                Outcome(
                    contender=federated,
                    site=None,
                    points=points,
                    chosen=next(n for n, point in enumerate(points) if point.round == final),
                    test=self._scores(row for rows in tested for row in rows),
                )
            )
        if self.run.training is Training.ONCE:
            others = yield from self._own_weights()
            outcomes += others
            n_opened += len(tested) * sum(bool(outcome.test) for outcome in others)
        (verdict,) = yield from self._do([self._of_lead(party.audited)])
        lead = workspace.find(self.folder / LEAD)
        first = rounds.global_path(lead, 0)
        assert first is not None
        result = RunResult(
            settings=self.scene.settings,
            training=self.run.training,
            repeat=self.run.repeat,
            epochs=self.run.epochs,
            rate=self.run.rate,
            n_sites=len(self.scene.sites),
            outcomes=tuple(outcomes),
            forgetting=tuple(self._notes.forgetting),
            optimiser_state=self.plan.training.optimiser_state.value,
            sequential_steps=self._notes.sequential_steps,
            weight_bytes=first.stat().st_size,
            audit=verdict,
            n_test_opened=n_opened,
            seconds=self._notes.seconds,
        )
        return result

    def _best(self) -> int:
        """The round with the best mean over all validation patients, the earlier of equal ones."""
        points = [self._point(int(number)) for number in self._notes.rows if int(number)]
        dice = {p.round: statistics.fmean(score.dice for score in p.validation) for p in points}
        return max(dice, key=lambda number: (dice[number], -number))

    @property
    def _federated_as(self) -> Contender:
        """Which contender the run's global weights are."""
        if self.run.training is Training.ONCE:
            return Contender.AVERAGE_ONCE
        return Contender(self.run.training)

    def _own_weights(self) -> Generator[Sequence[Call], Any, list[Outcome]]:
        """Each site's own weights on everybody's patients, and the mean of all their answers."""
        wanted = [
            (contender, site, of)
            for contender, site, of in (
                *((Contender.LOCAL, site, (site,)) for site in self.sites),
                (Contender.ENSEMBLE, None, self.sites),
            )
            if contender in self.scene.contenders
        ]
        calls = [
            Call(
                party.score_updates,
                {
                    "folder": self.folder,
                    "lead": LEAD,
                    "of": of,
                    "data": self.folder / EVERYBODY,
                    "subset": subset,
                    "machine": self.scene.machine,
                },
                computes=True,
            )
            for _, _, of in wanted
            for subset in (Subset.VALIDATION, Subset.TEST)
        ]
        found = yield from self._do(calls)
        outcomes = []
        for place, (contender, site, of) in enumerate(wanted):
            validation, test = found[2 * place : 2 * place + 2]
            point = Point(
                round=1,
                passes=float(self.plan.training.epochs_per_round),
                hand_overs=2 * len(of) if contender is Contender.ENSEMBLE else 0,
                validation=self._scores(validation),
            )
            outcomes.append(
                Outcome(
                    contender=contender,
                    site=site,
                    points=(point,),
                    chosen=0,
                    test=self._scores(test),
                )
            )
        return outcomes

    def _point(self, number: int) -> Point:
        rows = [row for _, found in self._notes.rows[str(number)] for row in found]
        counts = {
            name: counts_of(self.scene.prepared, name, subsets)
            for name, subsets in self._of_place.items()
        }
        return Point(
            round=number,
            passes=self._notes.passes(number, counts, self.plan.training),
            hand_overs=self._hand_overs(number),
            validation=self._scores(rows),
        )

    def _hand_overs(self, number: int) -> int:
        """Of files, one way each (`core.budget`)."""
        return hand_overs_of(self.run.training, len(self.scene.sites), number)

    def _scores(self, rows: Iterable[Row]) -> tuple[PatientScore, ...]:
        found = [
            PatientScore(
                site=self._home[row.patient],
                patient=row.patient,
                region=row.region,
                dice=row.dice,
                soft_slice_dice=row.soft_slice_dice,
            )
            for row in rows
        ]
        return tuple(sorted(found, key=lambda score: (score.site, score.patient, score.region)))

    def _do(self, calls: Sequence[Call]) -> Generator[Sequence[Call], Any, list[Any]]:
        done = yield calls
        self._notes.seconds += sum(
            seconds for one, (_, seconds) in zip(calls, done, strict=True) if one.computes
        )
        return [value for value, _ in done]

    def _call(self, work: Any, **words: Any) -> Call:
        return Call(work, {"folder": self.folder, "today": self.scene.today, **words})

    def _of_lead(self, work: Any, **words: Any) -> Call:
        return Call(work, {"folder": self.folder, "lead": LEAD, **words})


def tidy(folder: Path, sites: Iterable[str]) -> None:
    """Of a run that has ended leave the coordinator's folder, which an audit reads."""
    for name in (*sites, EVERYBODY):
        atomic.remove_tree(folder / name)
    for stick in folder.glob(f"{party.STICK}*"):
        atomic.remove_tree(stick)
