"""Which patient is at which site of a simulated federation, and in which subset.

By patient, seeded, and the same for any order of the patients. A partition is complete: every
patient has a site, and every site has somebody to train on. Source: Sheller et al. 2018, section
3.1.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from brainfed.core.cohort import FEWEST_TO_SPLIT, Subset, assign
from brainfed.core.simulated_sites import (
    Stream,
    by_folder,
    by_prefix,
    drawn_names,
    first_of,
    random_of,
    skewed,
)
from brainfed.errors import ScanError, UsageError
from brainfed.plan import Split

N_SIZE_CLASSES = 4
"""Classes of tumour size of `label-skew`, each a quarter of the patients."""


class Kind(StrEnum):
    """Where the sites come from."""

    FOLDER = "folder"
    """The folder that a patient's scans lie in."""
    BRATS2018 = "brats2018"
    """The institution in the name of a BraTS 2018 patient; the paper's real split."""
    EQUAL = "equal"
    """Sites of equal size by lot; the paper's other splits."""
    SIZE_SKEW = "size-skew"
    """By lot: few large sites and many small ones."""
    LABEL_SKEW = "label-skew"
    """By lot: sites that differ in size and in how large their tumours are."""


DRAWN = (Kind.EQUAL, Kind.SIZE_SKEW, Kind.LABEL_SKEW)
"""The kinds that want a number of sites."""


@dataclass(frozen=True, slots=True)
class Member:
    """A patient of a simulation."""

    patient: str
    """Real name."""
    n_tumour_voxels: int
    """Of the visit with the largest tumour."""
    n_cases: int
    """Visits."""
    folder: str
    """Name of the site's folder that the scans lay in; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """The place of a patient."""

    site: str
    subset: Subset


Partition = dict[str, Assigned]
"""The place of each patient, by name."""


def parse(text: str) -> tuple[Kind, int | None]:
    """The kind and the number of sites from an option such as `folder` or `equal:8`.

    Raises:
        UsageError: An unknown kind, or a number of sites that is missing, not wanted or below 2.
    """
    word, colon, number = text.partition(":")
    is_known = word in list(Kind)
    if is_known and Kind(word) not in DRAWN and not colon:
        return Kind(word), None
    if is_known and Kind(word) in DRAWN and re.fullmatch("[0-9]{1,9}", number) and int(number) > 1:
        return Kind(word), int(number)
    whole = [kind.value if kind not in DRAWN else f"{kind}:K" for kind in Kind]
    raise UsageError(
        "This is no kind of partition",
        expected=f"{', '.join(whole)} with K from 2, or the path of a file that ends in .csv",
        found=text,
        where="--partition",
        hint="`brainfed simulate partition --help` explains each kind",
    )


def draw(
    kind: Kind, members: Sequence[Member], *, n_sites: int | None, split: Split, seed: int
) -> Partition:
    """Give each patient a site and a subset.

    `equal` holds out patients by the plan's rule over all of them, as the paper does, and deals
    those to train on and those held out to the sites apart. In every other kind each site splits
    its own patients, as it would in a real federation. The skewed kinds give each site Dirichlet
    shares, of all patients or of each class of tumour size.

    Args:
        kind: Where the sites come from.
        members: Each patient once, in any order.
        n_sites: For `equal`, `size-skew` and `label-skew`.
        split: The plan's rule.
        seed: The plan's.

    Raises:
        UsageError: More sites than the patients suffice for, or no number of them.
        ScanError: No site can be told from a folder or name, or a site has nobody to train on.
    """
    ordered = by_size(members)
    if kind is Kind.EQUAL:
        return _dealt(ordered, n_sites, split, seed)
    if kind is Kind.FOLDER:
        sites = by_folder({member.patient: member.folder for member in members})
    elif kind is Kind.BRATS2018:
        sites = by_prefix(ordered, seed=seed)
    else:
        n_classes = N_SIZE_CLASSES if kind is Kind.LABEL_SKEW else 1
        sites = skewed(ordered, n_sites, n_classes=n_classes, seed=seed)
    return split_sites(sites, members, split=split, seed=seed)


def by_size(members: Iterable[Member]) -> list[str]:
    """Patients from the smallest largest tumour of any visit to the largest; ties by name."""
    ordered = sorted(members, key=lambda member: (member.n_tumour_voxels, member.patient))
    return [member.patient for member in ordered]


def split_sites(
    sites: Mapping[str, str], members: Iterable[Member], *, split: Split, seed: int
) -> Partition:
    """Split the patients of each site by the plan's rule and seed, as a real site does.

    Args:
        sites: Site of each member, by patient.
        members: All patients.
        split: The plan's rule.
        seed: The plan's.

    Raises:
        ScanError: A site has nobody to train on.
    """
    partition = {
        patient: Assigned(site, subset)
        for site, patients in _by_site(sites, members).items()
        for patient, subset in assign(patients, {}, split, seed=seed).items()
    }
    check_training(partition)
    return partition


def check_training(partition: Partition) -> None:
    """Refuse a partition in which a site has nobody to train on.

    Raises:
        ScanError: There is such a site.
    """
    n_all = Counter(place.site for place in partition.values())
    training = {p.site for p in partition.values() if p.subset is Subset.TRAIN}
    idle = [f"{site} ({n_all[site]})" for site in sorted(n_all) if site not in training]
    if idle:
        raise ScanError(
            "A site has no patient to train on",
            expected=f"at least {FEWEST_TO_SPLIT} patients at each site, one of them to train on",
            found=f"sites (with their patients): {first_of(idle)}",
            hint="leave the patients of this site out, or put them to another site",
        )


def fold(
    sites: Mapping[str, str],
    members: Sequence[Member],
    *,
    n_folds: int,
    number: int,
    split: Split,
    seed: int,
) -> Partition:
    """One fold of a cross-validation inside each site.

    Every patient is held out in exactly one fold. Along the order of tumour size each run of as
    many neighbours as there are folds gives one to each. The held-out patients are the test; the
    plan's share of the site's patients, taken from the others, is for validation. Where the plan
    has no test, they are the validation, as in the paper, and all others train.

    Args:
        sites: Site of each member, by patient.
        members: Each patient once, in any order.
        n_folds: Folds in all, at least 2.
        number: Of this fold, from 0.
        split: The plan's rule.
        seed: The same for all folds.

    Raises:
        UsageError: Fewer than 2 folds, or more than a site has patients.
        ScanError: A site has nobody to train on.
    """
    by_site = _by_site(sites, members)
    smallest = min(by_site, key=lambda site: (len(by_site[site]), site))
    if not 2 <= n_folds <= len(by_site[smallest]):
        raise UsageError(
            "The patients can't be divided into so many folds",
            expected="at least 2, at most as many as the smallest site has patients "
            f"({smallest}: {len(by_site[smallest])})",
            found=n_folds,
            where="--folds",
        )
    folds = _folds(by_site, n_folds, seed)
    held_out = Subset.TEST if split.test > 0 else Subset.VALIDATION
    rest = split.model_copy(update={held_out.value: 0.0})
    partition: Partition = {}
    for site, patients in by_site.items():
        held = {patient: held_out for patient in patients if folds[patient] == number}
        subsets = assign(patients, held, rest, seed=seed)
        partition |= {patient: Assigned(site, subsets[patient]) for patient in patients}
    check_training(partition)
    return partition


def _by_site(sites: Mapping[str, str], members: Iterable[Member]) -> dict[str, list[str]]:
    """The patients of each site, sites by name, patients by tumour size."""
    found: dict[str, list[str]] = defaultdict(list)
    for patient in by_size(members):
        found[sites[patient]].append(patient)
    return dict(sorted(found.items()))


def _dealt(ordered: Sequence[str], n_sites: int | None, split: Split, seed: int) -> Partition:
    """Subsets over all first; then one long deal, so that sites differ by one patient at most."""
    subsets = assign(ordered, {}, split, seed=seed)
    random = random_of(seed, Stream.DEAL)
    names = drawn_names(n_sites, list(subsets.values()).count(Subset.TRAIN))
    row: list[str] = []
    for subset in Subset:
        here = [patient for patient in ordered if subsets[patient] is subset]
        row += [here[place] for place in random.permutation(len(here))]
    return {p: Assigned(name, subsets[p]) for p, name in zip(row, itertools.cycle(names))}


def _folds(by_site: Mapping[str, Sequence[str]], n_folds: int, seed: int) -> dict[str, int]:
    """The fold of each patient; what doesn't fill a run goes to folds that have fewest so far."""
    random = random_of(seed, Stream.FOLDS)
    folds: dict[str, int] = {}
    n_held = [0] * n_folds
    for patients in by_site.values():
        for first in range(0, len(patients), n_folds):
            here = patients[first : first + n_folds]
            by_lot = sorted(random.permutation(n_folds).tolist(), key=lambda f: n_held[f])
            for patient, number in zip(
                here, random.permutation(by_lot[: len(here)]).tolist(), strict=True
            ):
                folds[patient] = number
                n_held[number] += 1
    return folds
