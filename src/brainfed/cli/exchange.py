"""`brainfed import` and `brainfed export`: files from and to a medium."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import (
    COMMAND,
    Table,
    Words,
    confirm,
    counted,
    progress,
    say,
    show,
    size_words,
)
from brainfed.cli.options import Fingerprints, Json, WorkspaceFolder, Yes
from brainfed.cli.place import check_fingerprints, confirm_fingerprint, working
from brainfed.cli.plan_words import plan_in_words
from brainfed.errors import FileRefusedError, QuorumError, StrangerError, UsageError

if TYPE_CHECKING:
    from brainfed.cli.bar import Bar
    from brainfed.steps.accept import JoinRequest
    from brainfed.steps.exchange import Exported
    from brainfed.steps.own_update import Counts
    from brainfed.steps.receive import Import


def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER_OR_FILE...",
            help="Folders (searched three levels deep) or files.",
            show_default=False,
        ),
    ],
    yes: Yes = False,
    fingerprint: Fingerprints = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Take from a medium all that concerns this workspace, after checking it.

    Before a site joins, this shows the coordinator's fingerprint and the plan in words, and asks;
    before it goes on under an amended plan, what that changes.
    Files are told by their signed content, never by their names. A file that is refused changes
    nothing, and the command ends with exit code 6; with 7 where it only came out of turn.
    """
    from brainfed.steps.receive import receive

    check_fingerprints(fingerprint)
    with working(workspace) as place, progress() as bar:
        done = receive(
            place,
            sources,
            confirm=lambda request: _agree(request, bar, yes=yes, fingerprints=fingerprint),
            progress=bar,
        )
    show(done, _import_words, as_json=as_json)
    if done.refused:
        are_early = all(isinstance(file.error, QuorumError) for file in done.refused)
        raise typer.Exit((QuorumError if are_early else FileRefusedError).exit_code)


def _agree(
    request: "JoinRequest", bar: "Bar", *, yes: bool, fingerprints: list[str] | None
) -> bool:
    """Show what is asked for, and ask a person."""
    bar.hide()
    if request.version > 1:
        return _go_on(request, yes=yes)
    return _join(request, yes=yes, fingerprints=fingerprints)


def _go_on(request: "JoinRequest", *, yes: bool) -> bool:
    """Show what a new plan changes, key by key; ask whether to go on under it."""
    rows = [(change.key, change.before, change.after) for change in request.changes]
    say(
        f"{request.coordinator} asks {request.site} to go on under version {request.version} of "
        f"the plan, from round {request.from_round} on. It changes:",
        "",
        Table(("key", "now", "then"), rows),
        "",
        f"Digest of the plan: {request.plan_digest}",
    )
    return yes or confirm("Go on under this plan?", flag="--yes")


def _join(request: "JoinRequest", *, yes: bool, fingerprints: list[str] | None) -> bool:
    """Show the plan and the coordinator's fingerprint; ask about both."""
    say(
        f"{request.coordinator} asks {request.site} to join the federation "
        f"{request.federation[:16]} ({_PURPOSES.get(request.purpose, request.purpose)}).",
        "",
        *plan_in_words(request.plan),
        "",
        f"Digest of the plan: {request.plan_digest}",
        f"{request.coordinator} signed this with the key",
        f"  {request.fingerprint}",
    )
    if not confirm_fingerprint(request.coordinator, request.fingerprint, fingerprints):
        return False
    if yes or confirm("Join under this plan?", flag="--yes"):
        return True
    raise StrangerError(
        "The plan was not agreed to; the site has not joined",
        hint="talk to the coordinator; importing again asks again",
    )


_PURPOSES = {
    "real": "real training on patients' scans",
    "simulation": "a simulation, no real patients",
    "drill": "a drill, its results are thrown away",
}


def _import_words(done: "Import") -> Words:
    if done.files:
        rows = [(file.name, str(file.verdict), file.what) for file in done.files]
        yield Table(("file", "", "what it is"), rows)
    else:
        yield "Nothing here concerns this workspace."
    for file in done.refused:
        if file.error is not None:
            yield f"\n{file.name}: {file.error.message}"
            for name, value in file.error.details().items():
                yield f"  {name}: {value}"
    if done.n_foreign:
        yield f"{counted(done.n_foreign, 'other file')} left alone."
    if done.refused:
        yield f"\n{counted(len(done.refused), 'file')} refused; nothing was changed by them."
    yield "Next: brainfed status"


TrainedOn = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="With --weights: trained on so many.", show_default=False
    ),
]


def export(
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FOLDER",
            help="Where to copy the outbox; without it, the outbox is only filled.",
            show_default=False,
        ),
    ] = None,
    unsigned: Annotated[
        bool,
        typer.Option(
            "--unsigned",
            metavar="",
            help="Sign nothing, and print the lines that sign by hand: for a key in an agent or a "
            "hardware token.",
        ),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="First make the update of the open round from weights that your own program "
            "trained: a safetensors file.",
            show_default=False,
        ),
    ] = None,
    patients: TrainedOn = None,
    cases: TrainedOn = None,
    slices: TrainedOn = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Sign what is to be carried now and copy it to a medium.

    At a site that is its enrolment, or its acceptance of the plan and its update of the open round;
    at the coordinator the start, newer rosters and plans, the newest global weights and their
    record. Every copy is read back from the medium, and a packing list for people lies beside.
    Weights are encrypted where the plan says so. A signature in the outbox that was made by hand is
    taken over. Where the network is the sites' own, --weights takes what their program trained;
    --patients, --cases and --slices say on how much, unless this workspace has cases and a split.
    """
    from brainfed.steps import exchange

    declared = _declared(weights, patients, cases, slices)
    with working(workspace) as place, progress() as bar:
        if weights is not None:
            from brainfed.steps.own_update import take_update

            take_update(place, weights, declared)
        done = exchange.export(place, to, unsigned=unsigned, progress=bar)
    show(done, _export_words, as_json=as_json)


def _declared(weights: Path | None, *counts: int | None) -> "Counts | None":
    """What a person says that the weights were trained on: all three numbers or none."""
    given = [count for count in counts if count is not None]
    if not given:
        return None
    if weights is None or len(given) < len(counts):
        raise UsageError(
            "These numbers go together, and with --weights",
            expected="--weights FILE --patients N --cases N --slices N",
            where="--patients, --cases, --slices",
            hint="give all of them; or none, where this workspace has cases and a split",
        )
    from brainfed.steps.own_update import Counts

    return Counts(*given)


def _export_words(done: "Exported") -> Words:
    if done.to is None:
        yield "In the outbox, to be carried:"
        yield from (f"- {name}" for name in done.outbox)
    else:
        files = [file for file in done.copied if not file.name.endswith(".sig")]
        rows = [(file.name, size_words(file.n_bytes), file.digest[:8]) for file in files]
        yield Table(("file", "size", "SHA-256 begins"), rows)
        yield f"{counted(len(done.copied), 'file')} in {done.to}, each read back and equal."
    if done.packing_list is not None:
        yield f"What lies there, for people: {done.packing_list.name}"
    if done.unsigned:
        yield from _by_hand(done)
    elif done.to is None:
        yield "Next: brainfed export --to FOLDER"
    else:
        yield "The medium is safe to remove once the system has let go of it (unmount, eject)."


def _by_hand(done: "Exported") -> Words:
    from brainfed.core.sshsig import NAMESPACE

    yield f"\nNot signed yet: {counted(len(done.unsigned), 'file')}. Sign by hand:"
    for path in done.unsigned:
        words = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", done.public_key, path]
        yield COMMAND + shlex.join(str(word) for word in words)
    yield "Adding `-O hashalg=sha256` is not needed: the SHA-512 of ssh-keygen is read too."
    if done.to is None:
        yield "Next: brainfed export --to FOLDER, which takes the signatures over from the outbox."
    else:
        yield "Each signature belongs on the medium, beside its file."
