"""What a release says of one update: who will read it, what is in it, which numbers go along."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainfed.core.architecture import TensorTable
from brainfed.core.canonical import MAX_INTEGER
from brainfed.core.schedule import next_site
from brainfed.formats import document, floor, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.release import Leaving, Reader, TensorFacts, Told, What
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import Method, Plan, Rule
from brainfed.steps import outgoing
from brainfed.steps.outgoing import Outgoing

DIGEST = re.compile(r"[0-9a-f]{64}")


def readers(place: Workspace, known: Federation, round_number: int) -> tuple[Reader, ...]:
    """Who will be able to read the update or what is made of it; in a relay by turn."""
    plan, roster = known.plan_of(round_number), known.roster
    others = {Role.SITE: [], Role.EVALUATOR: [], Role.AUDITOR: []}  # type: dict[Role, list[str]]
    for entry in roster.principals:
        if entry.is_active and entry.role in others and entry.name != place.name:
            others[entry.role].append(entry.name)
    if plan.method is not Method.FL:
        others[Role.SITE] = list(_by_turn(plan, others[Role.SITE], place.name))
    found = [Reader(name=roster.coordinator.name, role=Role.COORDINATOR, what=What.UPDATE)]
    found += [
        Reader(name=name, role=Role.AUDITOR, what=What.UPDATE) for name in others[Role.AUDITOR]
    ]
    for role in (Role.SITE, Role.EVALUATOR):
        found += [Reader(name=name, role=role, what=What.GLOBAL) for name in others[role]]
    return tuple(found)


def _by_turn(plan: Plan, sites: Sequence[str], last: str) -> Iterator[str]:
    """The sites whose turn comes, in order; then those that have had theirs."""
    to_come: list[str] = []
    name = next_site(plan, {*sites, last}, last)
    while name is not None and name != last and name not in to_come:
        to_come.append(name)
        name = next_site(plan, {*sites, last}, name)
    yield from to_come
    yield from (name for name in sites if name not in to_come)


def to_come(plan: Plan, known: Federation, site: str) -> tuple[str, ...]:
    """In a relay, the other sites whose turn comes after this one's, in order."""
    if plan.method is Method.FL:
        return ()
    sites = [entry.name for entry in known.roster.sites if entry.name != site]
    after = list(_by_turn(plan, sites, site))
    if plan.method is Method.CIIL:
        return tuple(after)
    had = {name for name in sites if next_site(plan, {name, site}, site) is None}
    return tuple(name for name in after if name not in had)


def first_sentence(n_patients: int, told: Sequence[Reader], next_sites: Sequence[str]) -> str:
    """The sentence that the whole page hangs on."""
    names = [f"{told[0].name} (the coordinator)"]
    names += [f"{name} (a next site)" for name in next_sites]
    whose = "patient" if n_patients == 1 else "patients"
    return (
        f"These weights, trained only on your {n_patients} {whose}, will be readable by: "
        f"{', '.join(names)}."
    )


def about_readers(
    told: Sequence[Reader], files: Sequence[Leaving], plan: Plan, update: str, *, round_number: int
) -> tuple[str, ...]:
    """What becomes of the weights after they left, and what encryption does, in sentences."""
    coordinator = told[0].name
    handed = [reader.name for reader in told if reader.what is What.GLOBAL]
    auditors = [reader.name for reader in told if reader.role is Role.AUDITOR]
    to = ", ".join(handed) or "nobody, since there is no other active site or evaluator"
    if plan.method is not Method.FL:
        words = (
            f"This is a relay: {coordinator} hands these very weights on, as global weights, to "
            f"every active site and evaluator, whose turn it is or not: {to}."
        )
    else:
        words = (
            f"{coordinator} alone is sent these single weights. What it makes of all sites' "
            "updates, the global weights, it hands on to every active site and evaluator, those "
            f"that join later too: now {to}."
        )
        if plan.aggregation.rule is Rule.KRUM:
            words += " The rule krum may choose these very weights as the global ones."
    began = (
        "They began with the weights of round 0, which had not been trained in this federation."
        if round_number == 1
        else "They began with the global weights of the round before, which other sites' patients "
        "have shaped too."
    )
    sentences = [
        began,
        words,
        "Whoever is given an archive of the federation can read these weights: an audit needs "
        f"them. Auditors of the roster: {', '.join(auditors) or 'none'}.",
        _about_encryption(files, update, plan),
    ]
    return tuple(sentences)


def _about_encryption(files: Sequence[Leaving], update: str, plan: Plan) -> str:
    found = next(file for file in files if file.digest == update)
    if found.encrypted_for:
        names = ", ".join(found.encrypted_for)
        return (
            f"On the way the file is encrypted for {names}: who finds the medium can't read it. "
            f"{names} opens it, and keeps it in the clear. The signature hides nothing."
        )
    why = (
        "the plan switches encryption off"
        if plan.exchange.encryption == "off"
        else "the coordinator has no age recipient in the roster"
    )
    return (
        f"On the way the file is NOT encrypted, since {why}: whoever holds the medium can read it."
    )


def leaving(place: Workspace, known: Federation) -> tuple[Leaving, ...]:
    """Every file that is due, as `export` would send it; the approval, made after this, is not.

    Raises:
        NotReadyError: The plan requires encryption, and a reader has no recipient.
    """
    names = tuple(reader.name for reader in outgoing.readers(place, known))
    found = []
    for file in outgoing.due(place, known):
        if file.what != "approval":
            is_encrypted = bool(outgoing.recipients_of(file, place, known))
            found.append(_leaving(file, names if is_encrypted else ()))
    return tuple(found)


def _leaving(file: Outgoing, encrypted_for: tuple[str, ...]) -> Leaving:
    return Leaving(
        name=file.name,
        what=file.what,
        n_bytes=file.path.stat().st_size,
        digest=signature.digest_of(file.path).hex(),
        encrypted_for=encrypted_for,
    )


def tensors(
    update: Path, parent: Path, table: TensorTable
) -> tuple[tuple[TensorFacts, ...], float, float]:
    """Every tensor of the update beside its parent's, read in pieces.

    Args:
        update: A checked weight file.
        parent: Likewise, of the same tensors.
        table: Their names and shapes.

    Returns:
        The tensors, the Euclidean norm of the whole change, and that of the parent.
    """
    rows: list[tuple[str, float, float]] = []
    of_parent = 0.0
    with update.open("rb") as new, parent.open("rb") as old:
        new.seek(weights.data_start(update))
        old.seek(weights.data_start(parent))
        for name, shape in sorted(table.items()):
            left, square, changed = math.prod(shape), 0.0, 0.0
            while left:
                n = min(left, weights.CHUNK_VALUES)
                mine = np.frombuffer(new.read(4 * n), "<f4").astype(np.float64)
                before = np.frombuffer(old.read(4 * n), "<f4").astype(np.float64)
                square += float(mine @ mine)
                of_parent += float(before @ before)
                difference = mine - before
                changed += float(difference @ difference)
                left -= n
            rows.append((name, square, changed))
    whole = sum(changed for _, _, changed in rows)
    facts = tuple(
        TensorFacts(
            name=name,
            shape=table[name],
            n_bytes=4 * math.prod(table[name]),
            norm=millionths(math.sqrt(square)),
            change=millionths(math.sqrt(changed)),
            share=millionths(changed / whole if whole else 0.0),
        )
        for name, square, changed in rows
    )
    return facts, math.sqrt(whole), math.sqrt(of_parent)


def millionths(value: float) -> int:
    """A number as the formats write it; what is too large for JSON is cut off there."""
    return min(round(min(value, MAX_INTEGER / 1e6) * 1e6), MAX_INTEGER)


WHY = {
    "round": "says which round it is for",
    "edition": "tells it from an earlier one of the same round",
    "format": "version of the file's format",
    "version": "version of the plan that it was made under",
    "roster_version": "says which parties and keys the sender knew",
    "n_patients": "decides the weight in the mean; patients that were trained on",
    "n_cases": "decides the weight in the mean, where the plan says so; cases trained on",
    "n_slices": "decides the weight in the mean, where the plan says so; slices trained on",
    "n_validation": "says on how many patients the scores rest",
    "from_round": "first round under the plan that was accepted",
    "day": "the day on which it was made",
}
"""Why each number goes along, by the name of its field."""
_COUNTS = {"n_patients", "n_cases", "n_slices", "n_validation"}
_OF_GROUPS = {"scores", "figures"}
NOT_TO_LEAVE = "it should not leave"
"""Ends what the floor says of a figure that stands for too few patients; `release_checks` looks for
it."""


def numbers(
    place: Workspace, known: Federation, files: Sequence[Outgoing], round_number: int
) -> tuple[Told, ...]:
    """Every number that goes along beside the weights' own values, and what the floor says.

    Args:
        place: The site's workspace.
        known: Its federation.
        files: What is due.
        round_number: Whose plan's floor holds.
    """
    smallest = floor.holding(known.plan_of(round_number), place.floor)
    found: list[Told] = []
    for file in files:
        found += _told(file, _content(file), smallest)
    return tuple(found)


def _content(file: Outgoing) -> dict[str, Any]:
    if file.round is not None:
        return weights.read_manifest(file.path).model_dump(mode="json")
    content: dict[str, Any] = json.loads(document.read_capped(file.path))
    return content


def _told(file: Outgoing, content: dict[str, Any], smallest: int, under: str = "") -> list[Told]:
    found = []
    for name, value in content.items():
        if name in _OF_GROUPS:
            found += [_figure(file, figure, smallest) for figure in value]
        elif isinstance(value, dict) and name != "versions":
            found += _told(file, value, smallest, f"{name}.")
        elif name in WHY and value is not None:
            found.append(
                Told(
                    file=file.name,
                    field=f"{under}{name}",
                    value=str(value),
                    why=WHY[name],
                    floor=_against(name, value, smallest),
                )
            )
    return found


def _against(name: str, value: object, smallest: int) -> str:
    if name not in _COUNTS:
        return "tells nothing of patients"
    if isinstance(value, str):
        return f"below the floor of {smallest}, so only that is said"
    if name == "n_validation" or int(str(value)) >= smallest:
        return f"at least the floor of {smallest}"
    return (
        f"BELOW the floor of {smallest}: a count goes all the same, since the mean needs it; no "
        "figure does"
    )


def _figure(file: Outgoing, figure: dict[str, Any], smallest: int) -> Told:
    """One figure of a group of patients."""
    of = ("weights", "subset", "group", "measure", "region")
    values = ("n", "mean", "sd", "q1", "median", "q3")
    n = figure["n"]
    words = ", ".join(f"{k} {figure[k]}" for k in values if figure.get(k) is not None)
    is_small = isinstance(n, int) and n < smallest
    said = f"stands for {n} patients, the floor is {smallest}"
    if isinstance(n, str):
        said = "below the floor: no mean and no spread"
    elif is_small:
        said = f"BELOW the floor of {smallest}: {NOT_TO_LEAVE}"
    return Told(
        file=file.name,
        field=" ".join(str(figure[key]) for key in of if figure.get(key) is not None),
        value=words + " (millionths)" if figure.get("mean") is not None else words,
        why="shows how good the weights are, so that rounds can be compared",
        floor=said,
    )
