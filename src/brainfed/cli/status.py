"""`brainfed status`: where one stands, who owes what, and what to do next."""

from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import Table, Words, counted, show
from brainfed.cli.options import Json, WorkspaceFolder
from brainfed.cli.place import find

if TYPE_CHECKING:
    from brainfed.steps.board import Board
    from brainfed.steps.mails import Mail
    from brainfed.steps.status import Status

N_SHOWN = 3
"""The newest rounds that fit 80 columns; `--json` has all."""
MOST_NAMES = 12


def status(
    with_rounds: Annotated[
        bool,
        typer.Option(
            "--rounds", metavar="", help="Show each site's validation Dice of each round instead."
        ),
    ] = False,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Say which round it is, whose file is missing, and what to do next.

    Reads only; it can be run at any time. It ends with words to paste into a mail. At the
    coordinator it is the board: what came of each site in the newest rounds, and who owes what;
    --json has all rounds. With --rounds at the coordinator: which round is best on validation, over
    whose patients, and which rounds can't be compared.
    """
    if with_rounds:
        from brainfed.cli.finish import rounds_words
        from brainfed.steps.compare_rounds import compare_rounds

        show(compare_rounds(find(workspace)), rounds_words, as_json=as_json)
        return
    from brainfed.steps import status as step

    show(step.status(find(workspace)), _status_words, as_json=as_json)


def _status_words(now: "Status") -> Words:
    yield f"{now.name}, a {now.role}" if now.role == "site" else f"{now.name}, the {now.role}"
    if now.federation is None:
        yield "No federation yet."
    else:
        yield f"Federation {now.federation[:16]}, plan {now.plan}"
    if now.closed_round is not None:
        yield f"Newest global weights: round {now.closed_round} of {now.rounds_planned}"
    if now.board is not None:
        yield from _board_words(now.board)
    if now.outbox:
        yield "\nIn the outbox, each with its .sig:"
        yield from (f"- {name}" for name in now.outbox)
    yield "\nNext:"
    yield from (f"{number}. {todo}" for number, todo in enumerate(now.todo, start=1))
    for mail in now.mails:
        yield from _mail_words(mail)


def _board_words(board: "Board") -> Words:
    if not board.parties:
        return
    shown = [entry for entry in board.rounds if entry.round][-N_SHOWN:]
    scored = next((r for r in reversed(board.rounds) if r.edition or not r.round), None)
    columns = (
        "site",
        *(f"r{e.round}" if e.edition else f"r{e.round}, open" for e in shown),
        "in so far",
        *(() if scored is None else (f"scores of r{scored.round}",)),
    )
    rows = [
        (
            party.name,
            *(entry.updates.get(party.name, "-").partition(":")[0] for entry in shown),
            f"{party.n_included} of {party.n_closed}",
            *(() if scored is None else ("here" if party.name in scored.scored else "-",)),
        )
        for party in board.parties
    ]
    yield ""
    yield Table(columns, rows)
    hidden = sum(1 for entry in board.rounds if entry.round) - len(shown)
    if hidden > 0:
        yield f"{counted(hidden, 'older round')}: brainfed status --json"
    for entry in shown:
        for site, fate in entry.updates.items():
            if ": " in fate:
                yield f"Round {entry.round}, {site}: {fate.replace(': ', ', ')}."
    for party in board.parties:
        if party.key != "counts":
            yield f"Key of {party.name}: {party.key}."
    if board.owed:
        yield "\nOwed to the coordinator:"
    for owed in board.owed:
        yield f"- {owed.what}, by {', '.join(owed.by)}"


def _mail_words(mail: "Mail") -> Words:
    names = ", ".join(mail.to[:MOST_NAMES])
    if len(mail.to) > MOST_NAMES:
        names += f" and {len(mail.to) - MOST_NAMES} more, named above"
    yield f"\nTo paste into a mail to {names or 'each site that is to take part'}:"
    yield mail.text
