"""`brainfed train-round`: the network on a site's own cases."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brainfed.cli.console import Table, Words, counted, show, size_words
from brainfed.cli.launch import training_place
from brainfed.cli.live import training_view
from brainfed.cli.options import Device, Json, Precision, Threads, WorkspaceFolder

if TYPE_CHECKING:
    from brainfed.core.device import Precision as PrecisionUsed
    from brainfed.core.scoring import Summary
    from brainfed.formats.weights import WeightsFile
    from brainfed.steps.train import TrainResult


def train_round(
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    workspace: WorkspaceFolder = None,
    as_json: Json = False,
) -> None:
    """Train from the newest global weights on this site's cases.

    Scores the weights that came, trains, and scores the result, on the validation patients. The
    site's update lies in the folder of its round; `brainfed export` signs it. Every few minutes and
    at Ctrl-C a checkpoint is written; run again, it goes on from there, or gives the update that is
    there. Several GPUs share the work under `torchrun --nproc-per-node=K -m brainfed train-round`.
    """
    from brainfed.steps import train

    with (
        training_place(workspace, device) as (place, team),
        training_view(quiet=as_json or (team is not None and team.rank > 0)) as view,
    ):
        done = train.train_round(
            place,
            device=device if team is None else str(team.device),
            precision=precision,
            threads=threads,
            team=team,
            on_step=view.step,
            progress=view.progress,
        )
    if done is None or (team is not None and team.rank > 0):
        return  # the first of several processes says it
    show(_facts(done) if as_json else done, _train_words, as_json=as_json)


@dataclass(frozen=True, kw_only=True)
class TrainFacts:
    """A trained round, without the weights themselves, which lie in the file."""

    round: int
    already: bool
    """Whether the update was there already; then nothing was trained."""
    update: "WeightsFile"
    n_steps: int | None
    best_epoch: int | None
    """Whose weights are handed on, where the plan lets a site choose."""
    last_loss: float | None
    seconds: float | None
    device: str
    precision: "PrecisionUsed | None"
    memory_bytes: int | None
    """Estimated, for training."""
    resumed: str
    """What became of a checkpoint that lay there."""
    incoming: "tuple[Summary, ...]"
    """The weights that came, on the validation patients; for this site alone."""
    result: "tuple[Summary, ...]"
    """The site's own after training, likewise."""
    log: Path | None


def _facts(done: "TrainResult") -> TrainFacts:
    how = done.trained
    return TrainFacts(
        round=done.round_number,
        already=done.already,
        update=done.update,
        n_steps=None if how is None else len(how.steps),
        best_epoch=None if how is None else how.best_epoch,
        last_loss=None if how is None else how.last_loss,
        seconds=None if how is None else how.seconds,
        device=done.device,
        precision=done.precision,
        memory_bytes=None if how is None else how.memory_bytes,
        resumed=done.word,
        incoming=done.incoming,
        result=done.result,
        log=done.log_path,
    )


def _train_words(done: "TrainResult") -> Words:
    manifest, how = done.update.manifest, done.trained
    if how is None:
        yield f"The update of round {done.round_number} is there already; nothing was trained."
    else:
        took = f"{how.seconds / 60:.1f} minutes" if how.seconds >= 60 else f"{how.seconds:.1f} s"
        yield (
            f"Round {done.round_number}: {counted(len(how.steps), 'step')} in {took} on "
            f"{done.device} ({done.precision}), loss at the end {how.last_loss:.3f}; memory "
            f"for training estimated at {size_words(how.memory_bytes)}"
        )
        if how.best_epoch is not None:
            yield (
                f"The weights of epoch {how.best_epoch} are handed on, the best on the "
                "validation patients."
            )
        if done.word:
            yield f"This round was {done.word}."
        yield "Dice on the validation patients, for this site's eyes (the file obeys the floor):"
        yield _before_and_after(done)
    yield (
        f"Trained on {counted(manifest.n_patients or 0, 'patient')}, "
        f"{counted(manifest.n_cases or 0, 'case')}, {counted(manifest.n_slices or 0, 'slice')}."
    )
    yield f"The update: {done.update.path}"
    yield "Next: brainfed release, to see what would leave; then brainfed export --to FOLDER"


def _before_and_after(done: "TrainResult") -> Table:
    rows = [
        (str(before.region), MEASURES[before.measure], before.n, before.mean, after.mean)
        for before, after in zip(done.incoming, done.result, strict=True)
    ]
    return Table(("region", "measure", "patients", "weights that came", "after training"), rows)


MEASURES = {"dice": "Dice, 3-D", "soft-slice-dice": "soft slice Dice (paper)"}
"""Names of the measures for people."""
