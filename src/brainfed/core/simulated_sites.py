"""At which site of a simulated federation each patient is, and what the sites are called.

Seeded; the bits are numpy's. Sources: Sheller et al. 2018, section 3.1, for the institutions in the
names of BraTS 2018; Hsu et al. 2019 (arXiv 1909.06335) for Dirichlet shares.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

import numpy as np

from brainfed.core.cohort import FEWEST_TO_SPLIT
from brainfed.errors import ScanError, UsageError
from brainfed.plan import check_name

ALPHA = 0.5
"""Concentration of the Dirichlet shares: a site of average size is the exception."""
N_SHOWN = 3
"""Names in a message, where there are many."""

_BRATS_2018 = re.compile(r"brats18_(?P<site>[A-Za-z0-9]+)_.+", re.IGNORECASE | re.ASCII)
_TWO_SITES = "2013"
"""The prefix of two sites: 15 and 5 of the 20 patients with a high-grade glioma."""
_SECOND_SITE = 4
"""One patient of so many is at the second of the two."""
_OURS = int.from_bytes(b"part")
"""Keeps these random numbers apart from those of a site's split under the same seed."""


class Stream(IntEnum):
    """What is drawn; the numbers of different streams have nothing in common."""

    BRATS_2013 = 0
    DEAL = 1
    SKEW = 2
    FOLDS = 3


def random_of(seed: int, stream: Stream) -> np.random.Generator:
    """The generator of a stream."""
    return np.random.default_rng((seed, _OURS, stream))


def site_names(words: Mapping[str, str]) -> dict[str, str]:
    """The name of the site of each id: `1` gives `site-01`, `CS` gives `cs`, `St. Mary` `st-mary`.

    Args:
        words: How a message speaks of an id, by id.

    Raises:
        ScanError: No name can be made of an id, or two of them give the same.
    """
    owners: dict[str, str] = {}
    for text in words:
        name = _site_name(text)
        try:
            check_name(name)
        except UsageError as error:
            raise ScanError(
                "No name of a site can be made of this",
                expected=error.expected,
                found=words[text],
                hint="give this site another name",
            ) from None
        other = owners.setdefault(name, text)
        if other != text:
            raise ScanError(
                "Two sites would have the same name",
                expected="sites that differ in more than capitals and signs",
                found=f"{words[other]} and {words[text]} are both {name}",
                hint="rename one of the two",
            )
    return {text: name for name, text in owners.items()}


def _site_name(partition_id: str) -> str:
    text = partition_id.strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return f"site-{int(text):02d}"
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "-", plain).strip("-")


def drawn_names(n_sites: int | None, largest: int) -> list[str]:
    """The names of sites that are made by lot.

    Args:
        n_sites: How many are wanted.
        largest: The most that the patients suffice for.

    Raises:
        UsageError: No number, fewer than 2, or too many.
    """
    if n_sites is None or not 2 <= n_sites <= largest:
        raise UsageError(
            "The patients can't be divided among so many sites",
            expected=f"at least 2 sites, at most {largest} with these patients",
            found="no number" if n_sites is None else n_sites,
            where="--partition",
            hint="each site needs patients to train on",
        )
    return [_site_name(str(number + 1)) for number in range(n_sites)]


def by_folder(folders: Mapping[str, str]) -> dict[str, str]:
    """The site of each patient from the folder that its scans lie in.

    Args:
        folders: Name of the site's folder by patient; empty where there is none.

    Raises:
        ScanError: A patient is in no folder, or a folder's name is no name of a site.
    """
    without = sorted(patient for patient, folder in folders.items() if not folder)
    if without:
        raise ScanError(
            "The scans don't lie in a folder for each site",
            expected="SITE/CASE/files: a folder for each site, a folder in it for each case",
            found=f"no site's folder above {first_of(without)}",
            hint="choose another partition, or put each site's cases into a folder of their own",
        )
    names = site_names(
        {folder: f"folder {as_shown(folder)}" for folder in sorted(folders.values())}
    )
    return {patient: names[folder] for patient, folder in folders.items()}


def by_prefix(patients: Iterable[str], *, seed: int) -> dict[str, str]:
    """The site of each patient from its BraTS 2018 name.

    The prefix 2013 is two sites. Of the 20 patients with a high-grade glioma the second has 5, in
    general a quarter rounded down. Which ones isn't known: by lot.

    Args:
        patients: Names such as Brats18_TCIA02_606, in any order.
        seed: Root of the lot.

    Raises:
        ScanError: A name is not of BraTS 2018.
    """
    matches = {patient: _BRATS_2018.fullmatch(patient) for patient in sorted(patients)}
    foreign = [patient for patient, match in matches.items() if match is None]
    if foreign:
        raise ScanError(
            "A patient bears no name of BraTS 2018",
            expected="names such as Brats18_TCIA02_606_1, the institution behind Brats18_",
            found=first_of(foreign),
            hint="choose another partition",
        )
    sites = {patient: match["site"].lower() for patient, match in matches.items() if match}
    two = [patient for patient, site in sites.items() if site == _TWO_SITES]
    chosen = random_of(seed, Stream.BRATS_2013).permutation(len(two))[: len(two) // _SECOND_SITE]
    second = {two[place] for place in chosen}
    return sites | {p: f"{_TWO_SITES}-{'b' if p in second else 'a'}" for p in two}


def skewed(
    ordered: Sequence[str], n_sites: int | None, *, n_classes: int, seed: int
) -> dict[str, str]:
    """The site of each patient by lot: every class of tumour size in Dirichlet shares of its own.

    Where that leaves a site fewer than 3 patients, it gets some by lot from those that have most.

    Args:
        ordered: Patients by tumour size.
        n_sites: Sites.
        n_classes: Classes of size, of as many patients each; with 1 the sites differ in number
            alone.
        seed: Root of the lot.

    Raises:
        UsageError: Sites and patients don't go together.
    """
    names = drawn_names(n_sites, len(ordered) // FEWEST_TO_SPLIT)
    random = random_of(seed, Stream.SKEW)
    homes: dict[str, list[str]] = {name: [] for name in names}
    for number in range(n_classes):
        first, end = (len(ordered) * edge // n_classes for edge in (number, number + 1))
        shares = random.dirichlet([ALPHA] * len(names))
        edges = np.rint(np.cumsum(shares)[:-1] * (end - first)).astype(int)
        places = np.split(first + random.permutation(end - first), edges)
        for name, here in zip(names, places, strict=True):
            homes[name] += [ordered[place] for place in here]
    for name in names:
        while len(homes[name]) < FEWEST_TO_SPLIT:
            largest = homes[max(names, key=lambda other: len(homes[other]))]
            homes[name].append(largest.pop(int(random.integers(len(largest)))))
    return {patient: name for name, patients in homes.items() for patient in patients}


def as_shown(name: str) -> str:
    """A name for a message; what isn't printable ASCII is escaped."""
    return ascii(name)[1:-1]


def first_of(names: Iterable[str]) -> str:
    """The first few of many names, for a message."""
    listed = [as_shown(name) for name in names]
    more = f" and {len(listed) - N_SHOWN} more" if len(listed) > N_SHOWN else ""
    return ", ".join(listed[:N_SHOWN]) + more
