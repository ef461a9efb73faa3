"""The command line: which commands there are, and how an error becomes words and an exit code."""

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from brainfed.cli import (
    audit,
    check,
    completion,
    data,
    demo,
    doctor,
    drill,
    evaluate,
    exchange,
    finish,
    init,
    inspect,
    key,
    plan,
    predict,
    release,
    report,
    review,
    roster,
    rounds,
    simulate,
    start,
    status,
    training,
    withdraw,
    withdrawal,
)
from brainfed.cli.console import show_error
from brainfed.cli.help_map import EXAMPLES, ByRole
from brainfed.errors import BrainfedError, InterruptedByUserError, ResourceError, UsageError

BOTH, COORDINATOR, SITE, ANYWHERE = "Both", "Coordinator", "Site", "Without a workspace"

app = typer.Typer(
    name="brainfed",
    cls=ByRole,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, the same on every terminal
)


def _print_version(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        sys.stdout.write(f"brainfed {version('brainfed')}\n")
        raise typer.Exit


@app.callback(
    help="Train one brain-tumour network across hospitals by signed weight files; scans stay "
    "where they are. For research only, not a medical device."
)
def brainfed(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            metavar="",
            help="Print the version and exit.",
        ),
    ] = False,
    completion_of: Annotated[
        completion.Shell | None,
        typer.Option(
            "--completion",
            callback=completion.print_script,
            is_eager=True,
            metavar="bash|zsh|fish",
            help="Print the script that completes commands, and exit.",
        ),
    ] = None,
) -> None:
    """Take the options that stand before any command."""


def _add(
    to: typer.Typer, name: str, command: Callable[..., None], panel: str | None = None
) -> None:
    """Add a command; its help is its docstring, each paragraph one line, and its example."""
    paragraphs = (command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    example = EXAMPLES.get(name if to is app else f"{to.info.name} {name}")
    epilog = None if example is None else f"Example: {example}"
    to.command(name, help=text, epilog=epilog, rich_help_panel=panel)(command)


_add(app, "init", init.init, BOTH)
_add(app, "status", status.status, BOTH)
_add(app, "import", exchange.import_, BOTH)
_add(app, "export", exchange.export, BOTH)
_add(app, "archive", audit.archive, BOTH)
_add(app, "report", report.report, BOTH)
_add(app, "drill", drill.drill, BOTH)
_add(app, "admit", start.admit, COORDINATOR)
_add(app, "start", start.start, COORDINATOR)
_add(app, "amend", roster.amend, COORDINATOR)
_add(app, "revoke", roster.revoke, COORDINATOR)
_add(app, "aggregate", rounds.aggregate, COORDINATOR)
_add(app, "finish", finish.finish, COORDINATOR)
_add(app, "withdraw", withdraw.withdraw, COORDINATOR)
_add(app, "check", check.check, SITE)
_add(app, "preprocess", data.preprocess, SITE)
_add(app, "review", review.review, SITE)
_add(app, "split", data.split, SITE)
_add(app, "train-round", training.train_round, SITE)
_add(app, "release", release.release, SITE)
_add(app, "evaluate", evaluate.evaluate, SITE)
_add(app, "exclude", withdrawal.exclude, SITE)
_add(app, "purge", withdrawal.purge, SITE)
_add(app, "predict", predict.predict, ANYWHERE)
_add(app, "doctor", doctor.doctor, ANYWHERE)
_add(app, "demo", demo.demo, ANYWHERE)
_add(app, "inspect", inspect.inspect, ANYWHERE)
_add(app, "audit", audit.audit, ANYWHERE)
simulations = typer.Typer(
    name="simulate",
    cls=simulate.PlanFirst,
    help="Compare methods on scans that lie on one machine: brainfed simulate PLAN --data FOLDER.",
)
_add(simulations, "run", simulate.simulate)
_add(simulations, "partition", simulate.partition)
app.add_typer(simulations, rich_help_panel=ANYWHERE)
keys = typer.Typer(name="key", cls=ByRole, help="Look at this party's key, or replace it.")
_add(keys, "show", key.show_key)
_add(keys, "rotate", key.rotate)
app.add_typer(keys, rich_help_panel=BOTH)
plans = typer.Typer(name="plan", cls=ByRole, help="Look at a plan file.")
_add(plans, "show", plan.show_plan)
_add(plans, "check", plan.check_plan)
_add(plans, "from-weights", plan.plan_from_weights)
_add(plans, "cost", plan.plan_cost)
app.add_typer(plans, rich_help_panel=ANYWHERE)


def run(argv: Sequence[str]) -> int:
    """Carry out one command line; gives the exit code."""
    # Even a command line that can't be understood gets its answer in the form that it asked for.
    as_json = "--json" in argv
    if completion.VARIABLE in os.environ:
        return completion.answer(app)
    try:
        code = completion.command_of(app).main(
            args=list(argv) or ["--help"], prog_name="brainfed", standalone_mode=False
        )
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # The reader has gone, as with `| head`, and there is nobody left to tell: typer exits for
        # that where it notices first. The work is done; what can't be flushed is let go.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
        return 0
    except KeyboardInterrupt:
        code = InterruptedByUserError.exit_code
    except Exception as error:  # the one place where every error ends; `_as_ours` sorts them
        return _fail(_as_ours(error, argv), as_json=as_json)
    if code == InterruptedByUserError.exit_code:
        return _fail(_interrupted(), as_json=as_json)
    return code if isinstance(code, int) else 0


def _fail(error: BrainfedError, *, as_json: bool) -> int:
    show_error(error, as_json=as_json)
    return error.exit_code


def _interrupted() -> BrainfedError:
    return InterruptedByUserError(
        "Stopped by you", hint="run the command again; what was finished is kept"
    )


def _as_ours(error: Exception, argv: Sequence[str]) -> BrainfedError:
    """The error as one of ours; what is left over is a bug, and gets a report."""
    if isinstance(error, BrainfedError):
        return error
    if isinstance(error, typer.TyperException):
        return _usage(error, argv)
    if isinstance(error, MemoryError):
        return ResourceError(
            "The memory is too small for this", hint="close other programs and run it again"
        )
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return ResourceError(
            "The system refuses to read or write",
            found=error.strerror,
            where=error.filename,
            hint="check the disk and the permissions, then run the command again",
        )
    return _bug(error, argv)


_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


def _usage(error: typer.TyperException, argv: Sequence[str]) -> BrainfedError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "brainfed"
    # On one line, and without what the library puts before the words of a choice.
    words = " ".join(error.format_message().replace("Value error, ", "").split())
    meant = _meant(words, argv)
    hint = f"{command} --help" if meant is None else f"{meant}; {command} --help tells more"
    return UsageError(words.rstrip("."), hint=hint)


_MISSPELT = re.compile(
    r"No such command '(?P<word>.+?)'\. Did you mean '(?P<near>[\w-]+)"
    r"|No such option: (?P<option>\S+) \(Possible options: (?P<known>[\w-]+)"
    r"|'(?P<choice>[^']*)' is not one of (?P<choices>.*)"
)


def _meant(words: str, argv: Sequence[str]) -> str | None:
    """The command line with its misspelt word mended, if it is near to a right one."""
    import difflib
    import shlex

    told = _MISSPELT.search(words)
    if told is None:
        return None
    wrong = told["word"] or told["option"] or told["choice"]
    choices = re.findall(r"[\w-]+", told["choices"] or "")
    near = (
        told["near"]
        or told["known"]
        or next(iter(difflib.get_close_matches(wrong, choices, 1)), None)
    )
    if near is None:
        return None
    parts = [re.split("(=)", word, maxsplit=1) for word in argv if word != "--json"]
    mended = ["".join(near if part == wrong else part for part in word) for word in parts]
    return f"brainfed {shlex.join(mended)}"


def _bug(error: Exception, argv: Sequence[str]) -> BrainfedError:
    from brainfed.cli import bug

    try:
        path = bug.write_report(error, argv, _named_workspace(argv))
    except BrainfedError as refused:
        return refused
    return BrainfedError(
        "This is a bug in brainfed; nothing of yours was lost",
        where=path,
        hint="send that file to the developers, after reading it",
    )


def _named_workspace(argv: Sequence[str]) -> Path | None:
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name == "--workspace":
            return Path(value or following)
    return None
