"""How `train-round` begins: alone, or as one of the processes that torchrun started."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from brainfed.cli.place import find, working
from brainfed.errors import BrainfedError, InterruptedByUserError

if TYPE_CHECKING:
    from brainfed.core.distributed import Launched
    from brainfed.formats.workspace import Workspace

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""The environment variable by which torchrun tells its processes from others."""
LAST_WORDS_SECONDS = 2.0
"""torchrun ends all processes once one has ended: the one that speaks gets this long to do so."""


@contextlib.contextmanager
def training_place(
    folder: Path | None, device: str | None
) -> Iterator[tuple["Workspace", "Launched | None"]]:
    """The site's workspace, held for training, and the processes that share it under torchrun.

    The first process alone holds the lock. Of an error, or of Ctrl-C, one process speaks; the
    others leave quietly.

    Raises:
        NoWorkspaceError: There is none.
        WrongRoleError: It is not a site's.
        LockedError: Another command works in it.
        UsageError: A single GPU was named under torchrun.
        ResourceError: More processes than GPUs.
    """
    if TORCHRUN not in os.environ:
        with working(folder, only="site") as place:
            yield place, None
        return
    from brainfed.core.distributed import launched
    from brainfed.formats.roster import Role

    with launched() as team:
        try:
            team.begin(device)
            if team.rank == 0:
                with working(folder, only="site") as place:
                    team.greatest(0)
                    yield place, team
            else:
                team.greatest(0)  # the first process holds the lock now
                place = find(folder)
                place.require(Role.SITE)
                yield place, team
        except (Exception, KeyboardInterrupt) as error:
            if _is_for_others(error, team):
                time.sleep(LAST_WORDS_SECONDS)
                raise typer.Exit(_code_of(error)) from None
            raise


def _is_for_others(error: BaseException, team: "Launched") -> bool:
    """Whether another process says, or has said, what is wrong."""
    from brainfed.core.distributed import is_lost_peer

    return is_lost_peer(error) or not team.speaks()


def _code_of(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return InterruptedByUserError.exit_code
    return error.exit_code if isinstance(error, BrainfedError) else BrainfedError.exit_code
