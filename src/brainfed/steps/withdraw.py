"""Withdraw: what is true of the global weights when a site wants its part taken out. Reads only.

Weights learn from weights: global weights carry a site if its update is in them, or if those carry
it that they were made from. Nothing takes that out again; what helps is weights made without it.
What can't be traced through the records counts as carrying it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.schedule import next_site
from brainfed.errors import NotReadyError, UsageError
from brainfed.formats import federation, rounds, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Kind
from brainfed.formats.record import InputStatus, Record
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Method, Plan


@dataclass(frozen=True, slots=True)
class Passing:
    """What one party has to bring to others, and how often."""

    what: str
    sender: str
    receivers: tuple[str, ...]
    n_times: int

    @property
    def n(self) -> int:
        """Hand-overs: each file set to each receiver, each time."""
        return self.n_times * len(self.receivers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """What the records say of a site, and what making weights without it costs."""

    site: str
    from_round: int
    is_active: bool
    newest: int
    """The newest closed round."""
    included: tuple[int, ...]
    """Rounds whose edition in force holds its update."""
    carrying: tuple[int, ...]
    """Rounds whose global weights in force carry it, through its updates or those before."""
    last_free: int
    """The last round before any that carries it; 0 are the initial weights."""
    begins_with_given: bool
    """Whether nobody here can tell what the initial weights have learned from."""
    redo_from: int | None
    """The first round from the asked one on that holds its update; None: none does."""
    average_again: bool
    """Whether averaging the newest round again takes its update out of that round."""
    is_free_then: bool
    """Whether the newest weights would then be free of the site."""
    train_again: tuple[int, ...]
    """Rounds that only training again makes without it."""
    open_updates: tuple[str, ...]
    """Sites whose update of the open round lies here, trained from the newest weights."""
    files: tuple[Path, ...]
    """Here, from the asked round on, that carry it: its updates, and what was made from them."""
    passings: tuple[Passing, ...]
    """Of averaging or training again."""
    is_below_quorum: bool
    """Whether the sites that are left are fewer than the plan asks for."""
    final_round: int | None
    """Named by the final; None without one."""

    @property
    def first(self) -> int | None:
        """The first round that holds its update."""
        return self.included[0] if self.included else None


def withdraw(place: Workspace, site: str, from_round: int) -> Withdrawal:
    """Say what is true of a site's part in the global weights; changes nothing.

    Args:
        place: The coordinator's workspace.
        site: Who withdraws.
        from_round: The first round that is to be without it.

    Raises:
        WrongRoleError: Not the coordinator.
        UsageError: No such site, or a round that is neither closed nor open.
        NotReadyError: A closed round has no record here.
        FileRefusedError: A record or the final is damaged.
    """
    place.require(Role.COORDINATOR)
    known = federation.load(place)
    newest = rounds.newest_round(place) or 0
    is_active = _check(known, site, from_round, newest)
    records = {n: _records(place, known, n) for n in range(1, newest + 1)}
    carries = _carriers(place, records, site)
    in_force = {number: found[-1] for number, found in records.items()}
    included = tuple(n for n, record in in_force.items() if _holds(record, site))
    carrying = tuple(n for n, record in in_force.items() if carries[record.global_digest])
    redo_from = next((n for n in included if n >= from_round), None)
    there = rounds.verify_final(place, known)
    average_again = (
        redo_from is not None
        and redo_from == newest
        and there is None
        and _is_enough(known, in_force[newest], site)
    )
    train_again = () if redo_from is None or average_again else tuple(range(redo_from, newest + 1))
    others = tuple(p.name for p in known.roster.sites if p.name != site)
    open_updates = tuple(
        sorted({weights.read_manifest(p).sender for p in rounds.update_paths(place, newest + 1)})
    )
    return Withdrawal(
        site=site,
        from_round=from_round,
        is_active=is_active,
        newest=newest,
        included=included,
        carrying=carrying,
        last_free=carrying[0] - 1 if carrying else newest,
        begins_with_given=rounds.begins_with_given(place),
        redo_from=redo_from,
        average_again=average_again,
        is_free_then=average_again and not carries[in_force[newest].parent],
        train_again=train_again,
        open_updates=open_updates,
        files=_files(place, site, carries, from_round),
        passings=_passings(
            known, others, train_again, again=[n for n in open_updates if n != site], n=newest
        )
        if average_again or train_again
        else (),
        is_below_quorum=len(others) < known.plan_of(newest + 1).participation.quorum_sites,
        final_round=None if there is None else there[0].round,
    )


def _check(known: Federation, site: str, from_round: int, newest: int) -> bool:
    """Whether the site is still active, if there is such a site and such a round."""
    entry = known.roster.get(site)
    if entry is None or entry.role is not Role.SITE:
        names = sorted({p.name for p in known.roster.principals if p.role is Role.SITE})
        raise UsageError(
            "The roster has no site of that name",
            expected=", ".join(names),
            found=site,
            hint="`brainfed status` lists the sites",
        )
    if not 1 <= from_round <= newest + 1:
        raise UsageError(
            "There is no such round to begin without the site",
            expected=f"1 to {newest + 1}, the open one",
            found=from_round,
            where="--from-round",
            hint=f"brainfed withdraw {site} --from-round {newest + 1}",
        )
    return entry.is_active


def _records(place: Workspace, known: Federation, number: int) -> list[Record]:
    found = [rounds.verify_record(path, known)[0] for path in rounds.records(place, number)]
    if not found:
        raise NotReadyError(
            f"The record of round {number} doesn't lie here",
            where=place.round_folder(number),
            hint="bring it back from an archive: without it nobody can say who took part",
        )
    return found


def _holds(record: Record, site: str) -> bool:
    return any(e.sender == site and e.status is InputStatus.INCLUDED for e in record.inputs)


def _turns(plan: Plan, others: tuple[str, ...], n_rounds: int) -> Counter[str]:
    """How often each site trains in that many rounds; in a relay one a round."""
    if plan.method is Method.FL:
        return Counter(dict.fromkeys(others, n_rounds))
    turns: Counter[str] = Counter()
    turn: str | None = None
    for _ in range(n_rounds):
        turn = next_site(plan, others, turn)
        if turn is None:
            break
        turns[turn] += 1
    return turns


def _is_enough(known: Federation, record: Record, site: str) -> bool:
    """Whether a round can be closed again without the site: its quorum is left."""
    plan = known.plan_of(record.round)
    n_left = sum(e.status is InputStatus.INCLUDED and e.sender != site for e in record.inputs)
    return plan.method is not Method.FL or n_left >= plan.participation.quorum_sites


def _carriers(
    place: Workspace, records: dict[int, list[Record]], site: str
) -> dict[str | None, bool]:
    """Whether global weights carry the site, by digest, of all rounds and editions."""
    first = rounds.global_path(place, 0)
    carries: dict[str | None, bool] = {}
    if first is not None:
        carries[signature.digest_of(first).hex()] = False
    for number in sorted(records):
        for record in records[number]:
            carries[record.global_digest] = _holds(record, site) or carries.get(record.parent, True)
    return carries


def _files(
    place: Workspace, site: str, carries: dict[str | None, bool], from_round: int
) -> tuple[Path, ...]:
    """Weight files that carry the site: its own updates, global weights, states, others' updates.

    A state goes with the global weights of its round and edition.
    """
    found = []
    for number in rounds.numbers(place):
        if number < from_round:
            continue
        folder = place.round_folder(number)
        told = {path: weights.read_manifest(path) for path in sorted(folder.glob("*.safetensors"))}
        taken = {
            about.edition
            for path, about in told.items()
            if about.kind is Kind.GLOBAL and carries.get(signature.digest_of(path).hex(), True)
        }
        for path, about in told.items():
            is_own = about.kind is Kind.UPDATE and about.sender == site
            learned = about.kind is Kind.UPDATE and carries.get(about.parent, True)
            if is_own or learned or (about.kind is not Kind.UPDATE and about.edition in taken):
                found.append(path)
    return tuple(found)


def _passings(
    known: Federation,
    others: tuple[str, ...],
    train_again: tuple[int, ...],
    *,
    again: Sequence[str],
    n: int,
) -> tuple[Passing, ...]:
    """Who has to bring what to whom.

    Args:
        known: The federation.
        others: The active sites that are left.
        train_again: The rounds that are trained again; none where the newest is averaged again.
        again: Sites that train the open round again then.
        n: The newest closed round.
    """
    lead = known.roster.coordinator.name
    active = [p for p in known.roster.principals if p.is_active]
    readers = (*others, *(p.name for p in active if p.role is Role.EVALUATOR))
    if not train_again:
        what = f"the new edition of round {n}: global weights and record"
        first = [Passing(what, lead, readers, 1)]
        return (*first, *(Passing(f"its update of round {n + 1}", s, (lead,), 1) for s in again))
    n_rounds = len(train_again)
    turns = _turns(known.plan_of(n), others, n_rounds)
    begin = [Passing("its enrolment in the new federation", s, (lead,), 1) for s in readers]
    begin.append(Passing("start, roster and initial weights", lead, readers, 1))
    updates = [
        Passing("its update, trained again", s, (lead,), turns[s]) for s in others if turns[s]
    ]
    return (*begin, *updates, Passing("global weights and record", lead, readers, n_rounds))
