"""`brainfed audit` and `brainfed archive`: for those who trust nobody."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import COMMAND, Table, Words, counted, progress, show, size_words
from brainfed.cli.options import Json, WorkspaceFolder
from brainfed.cli.place import working
from brainfed.errors import FileRefusedError

if TYPE_CHECKING:
    from brainfed.steps.archive import Archived
    from brainfed.steps.audit import Audited
    from brainfed.steps.findings import Finding


def audit(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Workspaces, archives, outboxes or sticks, of one party or of several.",
            show_default=False,
        ),
    ],
    federation: Annotated[
        str | None,
        typer.Option(
            "--federation",
            metavar="DIGEST",
            help="The federation, by the beginning of its digest, where the folders hold several.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every signed file of a federation and compute every round again, to the bit.

    Works on any machine, without a workspace and without a key, and writes nothing. Ends with one
    table and one verdict: re-derived, incomplete (something is missing) or diverges (something is
    wrong). For the last two the exit code is 6.
    """
    from brainfed.steps import audit as step

    with progress() as bar:
        done = step.audit(folders, wanted=federation, progress=bar)
    show(done, _audit_words, as_json=as_json)
    if done.verdict is not step.Verdict.REDERIVED:
        raise typer.Exit(FileRefusedError.exit_code)


def _audit_words(done: "Audited") -> Words:
    wrong = [finding for finding in done.findings if finding.kind.is_wrong]
    missing = [finding for finding in done.findings if not finding.kind.is_wrong]
    for title, findings in (("What is wrong", wrong), ("What is missing", missing)):
        if findings:
            yield f"{title}:"
            yield from (_finding_line(finding) for finding in findings)
            yield ""
    foreign = f"; {counted(done.n_foreign, 'other file')} left alone" if done.n_foreign else ""
    yield f"{counted(done.n_files, 'signed file')} of the federation{foreign}."
    yield f"Federation:  {done.federation}"
    for fingerprint in done.fingerprints:
        yield f"Key of {done.coordinator}: {fingerprint}"
    yield (
        "All else hangs on these. Compare them with the coordinator and with a site by telephone "
        "or in person."
    )
    yield ""
    rows = [
        (
            row.round,
            row.edition,
            "\n".join(row.included) or None,
            "\n".join(row.excluded) or None,
            "\n".join(row.absent) or None,
            str(row.outcome),
            row.digest[:12],
        )
        for row in done.rounds
    ]
    columns = ("round", "edition", "included", "excluded", "absent", "re-derived", "digest")
    yield Table(columns, rows)
    yield ""
    yield from (f"Note: {note}" for note in done.notes)
    yield f"Verdict: {done.sentence}"


def _finding_line(finding: "Finding") -> str:
    where = "" if finding.file is None else f" {finding.file}:"
    number = "" if finding.round is None else f" round {finding.round}:"
    kind = f" {finding.kind}:" if finding.kind.is_wrong else ""
    return f"-{kind}{number}{where} {finding.sentence}"


def archive(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A new folder, or an archive of this federation to be brought up to date.",
            show_default=False,
        ),
    ],
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Copy all signed files of the federation for an auditor, and nothing else.

    No scans, no keys, no reports, no training logs, no ledger. Every copy is read back.
    """
    from brainfed.steps import archive as step

    with working(workspace) as place, progress() as bar:
        done = step.archive(place, folder, progress=bar)
    show(done, _archive_words, as_json=as_json)


def _archive_words(done: "Archived") -> Words:
    yield (
        f"{counted(done.n_files, 'signed file')} in {done.path}, each with its .sig; "
        f"{done.n_new} copied now ({size_words(done.n_bytes)}), read back and equal."
    )
    yield f"Federation: {done.federation}"
    yield "Next:"
    yield f"{COMMAND}brainfed audit {done.path}"
