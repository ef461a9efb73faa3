"""What label values mean, by named protocol, and the regions that follow from them.

The protocol is always named by whoever has the scans: the values 1, 2, 3 alone say nothing, since
`msd` counts oedema as 1 and `brats2023` as 2.
"""

from collections.abc import Iterable
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from brainfed.errors import ScanError
from brainfed.plan import Region


class LabelProtocol(StrEnum):
    """A published meaning of label values."""

    BRATS2012 = "brats2012"
    BRATS2017 = "brats2017"
    BRATS2023 = "brats2023"
    BRATS2024_POST = "brats2024-post"
    MSD = "msd"
    WHOLE_TUMOUR = "whole-tumour"


class Tissue(StrEnum):
    """What one label value stands for."""

    TUMOUR = "tumour"  # all of it, not told apart
    CORE = "core"  # necrotic or non-enhancing
    OEDEMA = "oedema"
    ENHANCING = "enhancing"
    CAVITY = "cavity"  # left by surgery, never tumour


_VALUES: dict[LabelProtocol, dict[int, Tissue]] = {
    # Menze et al. 2015: 1 necrosis, 2 oedema, 3 non-enhancing, 4 enhancing.
    LabelProtocol.BRATS2012: {
        1: Tissue.CORE,
        2: Tissue.OEDEMA,
        3: Tissue.CORE,
        4: Tissue.ENHANCING,
    },
    # Bakas et al. 2018: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing.
    LabelProtocol.BRATS2017: {1: Tissue.CORE, 2: Tissue.OEDEMA, 4: Tissue.ENHANCING},
    LabelProtocol.BRATS2023: {1: Tissue.CORE, 2: Tissue.OEDEMA, 3: Tissue.ENHANCING},
    LabelProtocol.BRATS2024_POST: {
        1: Tissue.CORE,
        2: Tissue.OEDEMA,
        3: Tissue.ENHANCING,
        4: Tissue.CAVITY,
    },
    # Antonelli et al. 2022, Task01_BrainTumour.
    LabelProtocol.MSD: {1: Tissue.OEDEMA, 2: Tissue.CORE, 3: Tissue.ENHANCING},
    LabelProtocol.WHOLE_TUMOUR: {1: Tissue.TUMOUR},
}

_TISSUES: dict[Region, frozenset[Tissue]] = {
    Region.WT: frozenset({Tissue.TUMOUR, Tissue.CORE, Tissue.OEDEMA, Tissue.ENHANCING}),
    Region.TC: frozenset({Tissue.CORE, Tissue.ENHANCING}),
    Region.ET: frozenset({Tissue.ENHANCING}),
}


def allowed_values(protocol: LabelProtocol) -> frozenset[int]:
    """All values that a label of this protocol may hold, 0 (no tumour) included."""
    return frozenset({0, *_VALUES[protocol]})


def can_give(protocol: LabelProtocol, region: Region) -> bool:
    """Whether the protocol tells enough to outline the region."""
    return not _values_of(protocol, region).isdisjoint(_VALUES[protocol])


def check_regions(protocol: LabelProtocol, regions: Iterable[Region]) -> None:
    """Refuse a protocol that can't give all of the regions.

    Raises:
        ScanError: It can't.
    """
    wanted = list(regions)
    missing = [str(region) for region in wanted if not can_give(protocol, region)]
    if missing:
        raise ScanError(
            f"Labels of the protocol {protocol} can't give {', '.join(missing)}",
            expected=f"a protocol that outlines {', '.join(str(region) for region in wanted)}",
            found=str(protocol),
            hint="name the protocol that the labels follow; a site whose labels do follow this one "
            "can't take part under this plan",
        )


def region_mask(
    label: npt.NDArray[np.uint8], protocol: LabelProtocol, region: Region
) -> npt.NDArray[np.bool_]:
    """Where the region is.

    Args:
        label: Label values, any shape.
        protocol: What they mean.
        region: The region: WT all tumour, TC without oedema, ET the enhancing part.

    Returns:
        A mask of the label's shape.

    Raises:
        ScanError: The protocol can't give the region.
    """
    check_regions(protocol, (region,))
    return np.isin(label, sorted(_values_of(protocol, region)))


def _values_of(protocol: LabelProtocol, region: Region) -> frozenset[int]:
    tissues = _TISSUES[region]
    return frozenset(value for value, tissue in _VALUES[protocol].items() if tissue in tissues)
