"""`brainfed withdraw`: what is true when a site wants its part taken out."""

from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli import completion
from brainfed.cli.console import Table, Words, counted, show
from brainfed.cli.options import Json, WorkspaceFolder
from brainfed.cli.place import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainfed.steps.withdraw import Withdrawal


def withdraw(
    site: Annotated[
        str,
        typer.Argument(
            metavar="SITE",
            autocompletion=completion.sites,
            help="Who withdraws.",
            show_default=False,
        ),
    ],
    from_round: Annotated[
        int,
        typer.Option(
            "--from-round",
            min=1,
            metavar="R",
            help="The first round that is to be without it.",
            show_default=False,
        ),
    ],
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Say what a site's withdrawal means for the global weights; changes nothing.

    From the records: in which rounds it took part, which weights are free of it, what can be
    averaged again and what must be trained again, which files carry it, and who would have to bring
    what to whom. Weights that learned from a site are never made free of it afterwards.
    """
    from brainfed.steps import withdraw as step

    done = step.withdraw(find(workspace), site, from_round)
    show(done, _words, as_json=as_json)


def _words(told: "Withdrawal") -> Words:
    yield from _what_is_true(told)
    yield from _what_can_be_done(told)
    if told.passings:
        yield ""
        yield f"{counted(sum(p.n for p in told.passings), 'hand-over')}:"
        rows = [(p.sender, p.what, ", ".join(p.receivers), p.n_times) for p in told.passings]
        yield Table(("who brings", "what", "to whom", "times"), rows)
    if told.files:
        yield ""
        yield (
            f"Files here, from round {told.from_round} on, that carry {told.site}; the global ones "
            "lie at every site and evaluator too. brainfed destroys none. Without them an audit of "
            "these rounds is incomplete."
        )
        yield from (f"- {path.name}" for path in told.files)
    yield ""
    yield from _next(told)


def _what_is_true(told: "Withdrawal") -> Words:
    site, first = told.site, told.first
    if first is None and not told.carrying:
        yield f"{site} took part in no closed round: no global weights carry it."
    else:
        yield f"{site} took part in {_rounds(told.included) or 'no round that is in force'}."
        yield (
            f"The last global weights free of it are those of round {told.last_free}"
            f"{', the initial ones' if told.last_free == 0 else ''}. All later ones carry it: "
            f"{_rounds(told.carrying)}. Weights that learned from its updates keep that, also "
            "where a later round is made without it."
        )
    if told.begins_with_given:
        yield (
            "The weights of round 0 were brought by the coordinator: no file says what they have "
            "learned from."
        )
    if told.carrying and told.from_round - 1 >= told.carrying[0]:
        yield (
            f"So to begin without it in round {told.from_round} is too late: the weights of round "
            f"{told.from_round - 1} still carry it, and so will all that is made from them. Free "
            f"of it is only what begins again in round {told.carrying[0]}."
        )
    if told.final_round is not None:
        carries = "carry it" if told.final_round in told.carrying else "are free of it"
        yield f"The final names the weights of round {told.final_round}, which {carries}."


def _what_can_be_done(told: "Withdrawal") -> Words:
    if told.redo_from is None:
        yield f"From round {told.from_round} on no closed round holds its update."
    elif told.average_again:
        free = "are then free of it" if told.is_free_then else "still carry it, from earlier rounds"
        yield (
            f"Round {told.newest}, the newest, can be averaged again without it; its weights "
            f"{free}. No older round can."
        )
    else:
        yield f"To be trained again without it: {_rounds(told.train_again)}. {_why(told)}"
    if told.average_again and told.open_updates:
        yield (
            f"Updates of round {told.newest + 1} lie here that were trained from the weights that "
            f"carry it, of {', '.join(told.open_updates)}: they are trained again."
        )
    if told.is_below_quorum:
        yield "Without it there are fewer sites than the plan's quorum: a round can't be closed."


def _why(told: "Withdrawal") -> str:
    """Why averaging again doesn't do."""
    if told.final_round is not None:
        return "After the final no round is averaged again."
    if told.train_again == (told.newest,):
        return (
            "Without it that round has too few updates for the plan's quorum; another site's may "
            "still be brought."
        )
    return (
        "Averaging again doesn't do: only the newest round can be, and it learned from weights "
        "that carry it."
    )


def _next(told: "Withdrawal") -> Words:
    site = told.site
    steps = []
    if told.average_again:
        steps.append(f"brainfed aggregate --again --without {site} --reason withdrew")
    elif site in told.open_updates and told.final_round is None:
        steps.append(
            f"Its update of round {told.newest + 1} lies here; leave it out when the round is "
            f"closed: brainfed aggregate --without {site} --reason withdrew"
        )
    if told.train_again:
        begin = told.train_again[0] - 1
        steps.append(
            "To train again: in empty folders, a new federation of the other sites that begins "
            f"with the weights of round {begin}: brainfed start PLAN --weights FILE. This one, "
            "with its weights, stays as it is until the parties decide."
        )
    if told.is_active:
        steps.append(
            f"brainfed revoke {site}: from round {told.newest + 1} on nothing counts that it "
            "signs; it takes part no more."
        )
    if steps:
        yield "Next:"
        yield from (f"{number}. {step}" for number, step in enumerate(steps, start=1))
    yield (
        "What becomes of weights that exist is for the parties and their ethics boards to decide "
        "(docs/how-to/withdrawal.md)."
    )


def _rounds(numbers: "Sequence[int]") -> str:
    if not numbers:
        return ""
    listed = ", ".join(str(number) for number in numbers)
    return f"round {listed}" if len(numbers) == 1 else f"rounds {listed}"
