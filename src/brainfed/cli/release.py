"""`brainfed release`: what leaves with an update, and the approver's signature under it."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import COMMAND, Table, Words, confirm, counted, progress, say, show
from brainfed.cli.options import Device, Json, WorkspaceFolder, Yes
from brainfed.cli.place import ask_passphrase, working
from brainfed.errors import NotReadyError, UsageError

if TYPE_CHECKING:
    from brainfed.steps.approve import Approved
    from brainfed.steps.release import Released


def release(
    approve: Annotated[
        bool,
        typer.Option(
            "--approve", metavar="", help="Let the update leave, with the approver's own key."
        ),
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="With --approve: the approver's private key, or the .pub of one in an ssh-agent "
            "or a hardware token.",
            show_default=False,
        ),
    ] = None,
    who: Annotated[
        str | None,
        typer.Option(
            "--who",
            metavar="NAME",
            help="With --approve: the person who approves; stays in this site's ledger.",
            show_default=False,
        ),
    ] = None,
    yes: Yes = False,
    device: Device = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Write the page about the update that is to leave: who will read it, what it holds.

    One HTML page beside the update, and the same as signed JSON; neither ever leaves. It names
    every file, tensor and number that goes, says what was checked, and tests whether losses give
    training patients away. With --approve the site's approver signs for these very bytes; where the
    plan asks for that, `export` sends no update without it, and the coordinator takes none.
    """
    if not approve:
        if key is not None or who is not None or yes:
            raise UsageError(
                "These options are for an approval",
                expected="--approve --key FILE --who NAME",
                where="--key, --who, --yes",
                hint="brainfed release makes the page; add --approve once it has been read",
            )
        _make(device, workspace, as_json=as_json)
        return
    if key is None or who is None:
        raise UsageError(
            "An approval needs the approver's key and name",
            expected="--approve --key FILE --who NAME",
            where="--approve",
            hint="brainfed release --approve --key FILE --who NAME",
        )
    _approve(key, who, workspace, yes=yes, as_json=as_json)


def _make(device: str | None, workspace: Path | None, *, as_json: bool) -> None:
    from brainfed.steps import release as step

    with working(workspace, only="site") as place, progress() as bar:
        done = step.release(place, device=device, progress=bar)
    show(done, _words, as_json=as_json)


def _approve(key: Path, who: str, workspace: Path | None, *, yes: bool, as_json: bool) -> None:
    from brainfed.steps import approve as step
    from brainfed.steps.release import release as make_page

    with working(workspace, only="site") as place:
        with progress() as bar:
            made = make_page(place, progress=bar)
        asked = step.to_approve(place)
        say(
            asked.release.sentence,
            f"The page: {asked.page}",
            f"SHA-256 of the page: {asked.page_digest}",
            f"SHA-256 of the update: {asked.release.update}",
        )
        if yes and not made.already:
            raise NotReadyError(
                "The page was made just now, so nobody can have read it",
                where=asked.page,
                hint="read the page; brainfed release --approve --key FILE --who NAME asks for it",
            )
        if not (yes or confirm("Has the page been read, and may this update leave?", flag="--yes")):
            raise NotReadyError(
                "The update was not approved, and stays here",
                where=asked.update,
                hint="read the page; brainfed release --approve --key FILE --who NAME asks again",
            )
        done = step.approve(
            place,
            key.expanduser().resolve(),
            who,
            today=datetime.now(UTC).date(),
            passphrase=ask_passphrase,
        )
    show(done, _approved_words, as_json=as_json)


def _words(done: "Released") -> Words:
    told = done.release
    yield told.sentence
    yield Table(
        ("what was checked", "result"), [(check.what, str(check.result)) for check in told.checks]
    )
    for attack in told.membership.attacks:
        yield (
            f"Membership test, {attack.weights}: area {attack.auc / 1e6:.2f} "
            f"({attack.low / 1e6:.2f} to {attack.high / 1e6:.2f}); 0.5 is chance."
        )
    if not told.membership.attacks:
        yield f"Membership test: {told.membership.words}"
    was = "was there already" if done.already else "was made"
    yield f"{counted(len(told.files), 'file')} would leave. The page {was}: {done.page}"
    if not done.is_signed:
        yield (
            "Its JSON is not signed: the key is in an agent or a hardware token. The page counts "
            "all the same."
        )
    if done.approval is not None:
        yield "This update is approved."
    if done.needs_approval and done.approval is None:
        yield (
            "Next: look at the release page and let the approver approve it: brainfed release "
            "--approve --key FILE --who NAME"
        )
    else:
        yield "Next: brainfed export --to FOLDER"


def _approved_words(done: "Approved") -> Words:
    if done.already:
        yield f"This update is approved already: {done.path}"
    elif done.is_signed:
        yield f"Approved by {done.approval.sender}: {done.path}"
        yield "Key and role travel with the update; the name stays in this site's ledger."
    else:
        from brainfed.core.sshsig import RELEASE_NAMESPACE

        yield f"The approval is written, and not signed yet: {done.path}"
        yield "Sign it by hand:"
        words = ["ssh-keygen", "-Y", "sign", "-n", RELEASE_NAMESPACE]
        words += ["-f", str(done.key_path), str(done.path)]
        yield COMMAND + shlex.join(words)
        yield "The signature counts from the moment when it lies beside the file."
    yield "Next: brainfed export --to FOLDER"
