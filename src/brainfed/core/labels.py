"""What label values mean, by named protocol, and the regions that follow from them.

The protocol is always named by whoever has the scans: the values 1, 2, 3 alone say nothing, since
`msd` counts oedema as 1 and `brats2023` as 2.
"""

from collections.abc import Iterable, Mapping
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


def check_can_hold(protocol: LabelProtocol, regions: Iterable[Region]) -> None:
    """Refuse a protocol that can't hold an outline of these regions without saying more or less.

    WT, TC and ET together need a protocol that tells core, oedema and enhancing tumour apart. Where
    one of the three is not known, those protocols would say of a voxel what nobody knows, so WT
    alone, or with one other, is held by `whole-tumour`.

    Raises:
        ScanError: It can't.
    """
    known = frozenset(regions)
    if Region.WT not in known:
        right: list[LabelProtocol] = []
    elif known == frozenset(Region):
        right = [p for p in LabelProtocol if can_give(p, Region.ET)]
    else:
        right = [LabelProtocol.WHOLE_TUMOUR]
    if protocol not in right:
        words = ", ".join(str(region) for region in Region if region in known)
        raise ScanError(
            f"A label map of the protocol {protocol} can't say what a network for {words} finds",
            expected=" or ".join(map(str, right)) or "a network that outlines WT",
            found=str(protocol),
            hint="name one of these with --labels" if right else "no label map can be written",
        )


def label_of(
    masks: Mapping[Region, npt.NDArray[np.bool_]], protocol: LabelProtocol
) -> npt.NDArray[np.uint8]:
    """The label map of outlines: ET counts within TC, TC within WT, what lies outside is left out.

    The first value of a protocol that stands for a tissue is written: necrosis for the core.

    Args:
        masks: By region, one shape.
        protocol: One that `check_can_hold` takes.

    Raises:
        ScanError: The protocol can't hold these regions.
    """
    check_can_hold(protocol, masks)
    whole = masks[Region.WT]
    value = {tissue: number for number, tissue in reversed(_VALUES[protocol].items())}
    if protocol is LabelProtocol.WHOLE_TUMOUR:
        return np.where(whole, value[Tissue.TUMOUR], 0).astype(np.uint8)
    label = np.where(whole, value[Tissue.OEDEMA], 0).astype(np.uint8)
    core = whole & masks[Region.TC]
    label[core] = value[Tissue.CORE]
    label[core & masks[Region.ET]] = value[Tissue.ENHANCING]
    return label


def _values_of(protocol: LabelProtocol, region: Region) -> frozenset[int]:
    tissues = _TISSUES[region]
    return frozenset(value for value, tissue in _VALUES[protocol].items() if tissue in tissues)
