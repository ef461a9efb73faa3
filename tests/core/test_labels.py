import numpy as np
import pytest

from brainfed.core.labels import LabelProtocol, allowed_values, can_give, check_regions, region_mask
from brainfed.errors import ScanError
from brainfed.plan import Region

# Values of WT, TC and ET by protocol, written out from the publications.
MEANINGS = {
    LabelProtocol.BRATS2012: ({1, 2, 3, 4}, {1, 3, 4}, {4}),
    LabelProtocol.BRATS2017: ({1, 2, 4}, {1, 4}, {4}),
    LabelProtocol.BRATS2023: ({1, 2, 3}, {1, 3}, {3}),
    LabelProtocol.BRATS2024_POST: ({1, 2, 3}, {1, 3}, {3}),
    LabelProtocol.MSD: ({1, 2, 3}, {2, 3}, {3}),
}


@pytest.mark.parametrize("protocol", MEANINGS)
def test_regions_are_made_of_the_protocols_values(protocol: LabelProtocol) -> None:
    label = np.arange(5, dtype=np.uint8)
    for region, values in zip(Region, MEANINGS[protocol], strict=True):
        assert set(label[region_mask(label, protocol, region)]) == values


def test_a_cavity_is_allowed_but_never_tumour() -> None:
    assert 4 in allowed_values(LabelProtocol.BRATS2024_POST)
    assert 4 not in allowed_values(LabelProtocol.BRATS2023)
    assert not region_mask(np.array([4], np.uint8), LabelProtocol.BRATS2024_POST, Region.WT).any()


def test_a_whole_tumour_label_gives_no_other_region() -> None:
    assert can_give(LabelProtocol.WHOLE_TUMOUR, Region.WT)
    for region in (Region.TC, Region.ET):
        with pytest.raises(ScanError, match=str(region)):
            region_mask(np.zeros((2, 2), np.uint8), LabelProtocol.WHOLE_TUMOUR, region)
    with pytest.raises(ScanError, match="TC, ET"):
        check_regions(LabelProtocol.WHOLE_TUMOUR, Region)
