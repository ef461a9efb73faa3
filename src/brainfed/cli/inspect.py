"""`brainfed inspect`: all that a file holds, in words for a data-protection officer."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainfed.cli.console import Table, Words, show, size_words
from brainfed.cli.options import Json, WorkspaceFolder
from brainfed.cli.place import find_if_any

if TYPE_CHECKING:
    from brainfed.steps.inspect import Inspected


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A weight file or a signed JSON file of a federation.",
            show_default=False,
        ),
    ],
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Print all that a file holds: who signed it, every field, every tensor.

    Works anywhere; in a workspace the roster says whose key signed. Changes nothing.
    """
    from brainfed.steps import inspect as step

    show(step.inspect(file, find_if_any(workspace)), _words, as_json=as_json)


KINDS = {
    "global": "global weights, made by the coordinator for all sites",
    "update": "an update: the weights of one site after its training in one round",
    "state": "the state of the averaging rule, made by the coordinator",
    "enrolment": "an enrolment: a site asks to take part",
    "start": "the start of a federation: the plan and the first roster",
    "roster": "a roster: who takes part, under which key",
    "record": "a record: who took part in one aggregation, by which file",
    "scores": "scores: how well global weights do on one party's patients, in groups",
    "erasure": "an erasure: a site states what it has erased of its patients, and what it keeps",
}
"""Kinds of files for people."""

MEANINGS = {
    "format": "version of the file format",
    "kind": "what the file is",
    "purpose": "real training, a simulation or a drill",
    "federation": "digest of the federation's start.json",
    "plan.version": "version of the plan in force",
    "plan.digest": "SHA-256 of the plan's text",
    "round": "the round; 0 is before any training",
    "edition": "more than 1 where a round was made again",
    "sender": "short name of the party that made it",
    "roster_version": "version of the list of parties",
    "scores": "how well the weights outline the tumour, over groups of patients",
    "parent": "SHA-256 of the weights that these were made from",
    "figures": "what was measured, over groups of patients",
    "weights": "SHA-256 of the weights",
    "split": "keyed digest of who trains and who validates; the key stays at the site",
    "n_patients": "patients trained on; in an enrolment, as declared",
    "n_cases": "cases (visits) trained on; in scores, those scored",
    "n_slices": "image slices trained on",
    "n_validation": "patients kept for validation",
    "name": "short name of the party",
    "key": "public key of the party",
    "recipient": "public key for encrypted files",
    "version": "version of this list",
    "rule": "how the weights were averaged",
    "weights_by": "the count by which a site weighs in the mean",
    "supersedes": "SHA-256 of the record that this one replaces",
    "next_site": "whose turn is next, in a relay",
    "global_digest": "SHA-256 of the new global weights",
    "state_digest": "SHA-256 of the rule's state",
    "day": "day, without a time",
    "coordinator": "short name of the coordinator",
    "nonce": "random, tells two federations apart",
    "data": "digest of the plan's tables on data",
    "network": "digest of the network",
    "weights_licence": "licence of the global weights",
    "record": "SHA-256 of the record of these weights",
    "agreement": "SHA-256 of the agreement between the parties",
    "minimum_version": "oldest brainfed that may take part",
    "reason": "why the site erased its data",
    "dataset": "digest of all cases that there were",
    "erased": "what the site states to have erased in its workspace",
    "kept": "what it kept there",
}
"""What the fields mean."""


def _words(found: "Inspected") -> Words:
    yield f"{found.path.name}: {KINDS.get(found.kind, 'a signed file of a kind unknown here')}"
    yield f"Size:      {found.n_bytes} bytes"
    yield f"SHA-256:   {found.digest}"
    yield f"Signature: {found.signature}"
    yield "\nIts fields, all of them:\n"
    yield from _fields(found.content)
    if found.tensors:
        yield "\nIts tensors, all of them (numbers of 4 bytes each):\n"
        yield Table(
            ("tensor", "shape", "bytes"),
            [(t.name, " x ".join(map(str, t.shape)), t.n_bytes) for t in found.tensors],
        )
    yield "\nWhat this means\n"
    yield from _meaning(found)


def _fields(content: Mapping[str, Any]) -> Words:
    """Every field: single values in one table, each list of rows in its own, texts in full."""
    rows: list[tuple[object, ...]] = []
    below: list[tuple[str, str | Table]] = []
    for name, value in _flat(content):
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            below.append((name, _rows(value) if _is_narrow(value) else _items(value)))
        elif isinstance(value, str) and "\n" in value:
            below.append((name, value))
        else:
            rows.append((name, _value(value), _meaning_of(name)))
    yield Table(("field", "value", "meaning"), rows)
    for name, part in below:
        yield f"\n{name}\n"
        yield part


def _meaning_of(name: str) -> str:
    if name.startswith("versions."):
        return "version of a library"
    return MEANINGS.get(name.removeprefix("roster."), "")


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _rows(rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [tuple(_value(row.get(name), column=name) for name in columns) for row in rows]
    return Table(tuple(columns), cells)


def _is_narrow(rows: list[dict[str, Any]]) -> bool:
    return all(len(_value(value)) <= 20 for row in rows for value in row.values())


def _items(rows: list[dict[str, Any]]) -> str:
    """Rows with keys or digests in them, a line for each field, the name first."""
    lines = []
    for row in rows:
        names = sorted(row, key=lambda name: name not in {"name", "sender"})
        filled = [f"{name}: {_value(row[name])}" for name in names if row[name] is not None]
        empty = [name for name in names if row[name] is None]
        filled += [f"empty: {', '.join(empty)}"] if empty else []
        lines += [("- " if index == 0 else "  ") + line for index, line in enumerate(filled)]
    return "\n".join(lines)


def _value(value: object, *, column: str = "") -> str:
    """A value in a word; a mean or sd is kept in millionths in the file."""
    if value is None:
        return "-"
    if column in {"mean", "sd", "q1", "median", "q3"} and isinstance(value, int):
        return f"{value / 1_000_000:.6f}"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or "none"
    return str(value)


def _meaning(found: "Inspected") -> Words:
    if not found.is_canonical:
        yield (
            "- Beware: there are bytes in this file besides what is listed above, or its tensors "
            "are not spelled as the format demands. `brainfed import` refuses such a file; don't "
            "pass it on."
        )
    elif found.tensors:
        yield (
            "- The file holds the fields and tensors above and nothing else. No field takes free "
            "text: beside the tensors, whose names and shapes you see, there is no place for a "
            "patient's name, an image, a path, a host name or a time of day."
        )
    else:
        yield "- The file holds the fields above and nothing else: no image and no weights."
    if found.tensors:
        yield from _of_tensors(found)
    if found.kind == "scores":
        yield (
            "- Each figure stands for a group of the sender's patients; a group smaller than the "
            'floor shows as "fewer than", without a mean. Dice, NSD, sensitivity and specificity '
            "are shares of 1; hd95 is in mm, a volume difference in ml, predicted less true."
        )


NO_PROOF = (
    "- They are not images, but no check of numbers proves that nothing of a patient can be "
    "drawn out of them. Treat the file as the parties agreed, not as free of personal data."
)


def _of_tensors(found: "Inspected") -> Words:
    n = sum(math.prod(tensor.shape) for tensor in found.tensors)
    size = size_words(sum(tensor.n_bytes for tensor in found.tensors))
    if found.content.get("round") == 0 and "torch" in found.content.get("versions", ()):
        yield (
            f"- The tensors ({n:,} numbers, {size}) are those of round 0: drawn at random from the "
            "plan's seed, before any training."
        )
        return
    if found.content.get("round") == 0:
        yield (
            f"- The tensors ({n:,} numbers, {size}) are those of round 0, and the coordinator "
            "brought them (`start --weights`). They may have been learned from patients elsewhere."
        )
        yield NO_PROOF
        return
    whose = {
        "update": "the patients of the site that sends it",
        "global": "the patients of all sites that took part so far",
    }.get(found.kind, "patients")
    yield (
        f"- The tensors ({n:,} numbers, {size}) are the network's weights. They have been learned "
        f"from {whose}."
    )
    yield NO_PROOF
    if found.kind != "update":
        return
    yield (
        "- The counts and scores stand for groups of patients; a group smaller than the plan's "
        'floor shows as "fewer than", without a mean. The counts trained on are exact, because '
        "they weigh the mean."
    )
