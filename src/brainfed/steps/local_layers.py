"""Layers that never leave a site: kept round by round, joined to the weights that travel.

Weights of round r work with the site's own layers of its newest round up to r. Before it has any
they work with those that the plan's seed draws, the same at every site. Source: Li et al., FedBN,
ICLR 2021 (arXiv 2102.07623), where the layers are those of the norms.
"""

import hashlib
from pathlib import Path

from brainfed.core.architecture import network_table
from brainfed.core.progress import Progress, silent
from brainfed.core.training import Weights
from brainfed.core.unet import initial_weights
from brainfed.errors import NotReadyError, PlanError, WrongRoundError
from brainfed.formats import checkpoint, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.roster import Role
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan


def whole(
    place: Workspace, known: Federation, file: WeightsFile, progress: Progress = silent
) -> Weights:
    """The tensors of a weight file, and beside them this site's layers that never travel.

    Args:
        place: The site's workspace.
        known: Its federation.
        file: Checked weights of it.
        progress: Told where the site has no layers of its own yet, though rounds were closed.

    Raises:
        FileRefusedError: The weights or the layers are damaged, or they don't belong together.
        NotReadyError: The file is this site's update, and its layers are gone.
    """
    exchanged = weights.read_tensors(file.path, known.table)
    if not known.first_plan.network.local:
        return exchanged
    path = _path(place, known, file)
    if path is not None:
        return exchanged | dict(_read(place, known, file, path))
    if file.manifest.round > 0:
        words = "this site has none of its own yet: they begin as the plan's seed draws them"
        progress("layers that stay local", 1, 1, words)
    return initial_weights(known.first_plan) | exchanged


def digest_of(place: Workspace, known: Federation, file: WeightsFile) -> str:
    """SHA-256 of what decides the values that `whole` gives: without local layers the file's own.

    Raises:
        NotReadyError: The file is this site's update, and its layers are gone.
    """
    path = _path(place, known, file)
    if path is None:
        return file.digest
    return hashlib.sha256(f"{file.digest} {signature.digest_of(path).hex()}".encode()).hexdigest()


def are_drawn(place: Workspace, known: Federation, file: WeightsFile) -> bool:
    """Whether the plan keeps layers local and this site has none for these weights.

    Raises:
        NotReadyError: The file is this site's update, and its layers are gone.
    """
    return bool(known.first_plan.network.local) and _path(place, known, file) is None


def keep(folder: Path, known: Federation, manifest: Manifest, trained: Weights) -> Weights:
    """Write the layers that stay at the site; gives what is to travel.

    Args:
        folder: Of the round.
        known: The federation.
        manifest: Of the update.
        trained: All of the network's weights, finite.

    Raises:
        ResourceError: The disk refuses.
    """
    own = {name: trained[name] for name in known.first_plan.network.local}
    if own:
        layers = checkpoint.Layers(manifest.round, manifest.edition, own)
        checkpoint.write_layers(folder / checkpoint.LAYERS, layers)
    return {name: trained[name] for name in known.table}


def check_can_run(plan: Plan, place: Workspace | None, what: str) -> None:
    """Refuse to run weights with local layers where nobody has such layers.

    Args:
        plan: The plan.
        place: The workspace that the weights are run in; None outside of the federation's.
        what: What can't be done, a verb.

    Raises:
        PlanError: The plan keeps layers local, and this is no site.
    """
    n_local = len(plan.network.local)
    if n_local == 0 or (place is not None and place.role is Role.SITE):
        return
    raise PlanError(
        f"These weights lack layers that stay at the sites, so only a site can {what} them",
        expected="the workspace of a site, which has such layers of its own",
        found="no workspace of this federation" if place is None else f"the role {place.role}",
        where=f"network.local: {n_local} of {len(network_table(plan))} tensors",
        hint="run this command in a site's workspace",
    )


def check_has_own(place: Workspace, known: Federation, file: WeightsFile, what: str) -> None:
    """Refuse what makes no sense with layers that nobody has trained.

    Args:
        place: The site's workspace.
        known: Its federation.
        file: The weights.
        what: What is not to be done, a clause.

    Raises:
        NotReadyError: The plan keeps layers local, and this site has none of its own by the round
            of these weights.
    """
    if are_drawn(place, known, file):
        raise NotReadyError(
            f"This site has no trained layers of its own, so {what}",
            expected=f"{checkpoint.LAYERS} of round {file.manifest.round} or an earlier one",
            where=place.rounds,
            hint="`brainfed train-round` trains them, while the federation still trains",
        )


def _path(place: Workspace, known: Federation, file: WeightsFile) -> Path | None:
    """Where the layers lie that belong to these weights; None where there are none."""
    if not known.first_plan.network.local:
        return None
    until = place.round_folder(file.manifest.round)
    paths = place.rounds.glob(f"r[0-9][0-9][0-9][0-9]/{checkpoint.LAYERS}")
    newest = max((path for path in paths if path.parent <= until), default=None)
    if _is_own(place, file) and (newest is None or newest.parent != until):
        raise NotReadyError(
            "The layers that were trained with this update are gone",
            expected=checkpoint.LAYERS,
            where=until,
            hint="bring it back from a backup; without it this update can't be scored here",
        )
    return newest


def _read(place: Workspace, known: Federation, file: WeightsFile, path: Path) -> Weights:
    """The layers at this place, if they are of their folder's round, and of their own update."""
    local = set(known.first_plan.network.local)
    table = network_table(known.first_plan)
    found = checkpoint.read_layers(path, {name: table[name] for name in table if name in local})
    edition = file.manifest.edition if _is_own(place, file) else found.edition
    if (place.round_folder(found.round), edition) != (path.parent, found.edition):
        raise WrongRoundError(
            "The layers that stay at this site are of another training",
            expected=f"those of {path.parent.name}, edition {edition}",
            found=f"those of round {found.round}, edition {found.edition}",
            where=path,
            hint="an update of an earlier edition can't be scored any more: its layers have given "
            "way; a file that was put here by hand belongs elsewhere",
        )
    return found.tensors


def _is_own(place: Workspace, file: WeightsFile) -> bool:
    return file.manifest.kind is Kind.UPDATE and file.manifest.sender == place.name
