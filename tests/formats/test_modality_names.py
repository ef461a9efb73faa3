import pytest

from brainfed.formats.modality_names import SPELLINGS, modality_named
from brainfed.plan import Modality


@pytest.mark.parametrize(
    ("word", "modality"),
    [
        ("T1", Modality.T1),
        ("t1n", Modality.T1),
        ("T1w", Modality.T1),
        ("t1gd", Modality.T1CE),
        ("T1-CE", Modality.T1CE),
        ("T1+C", Modality.T1CE),
        ("T2W", Modality.T2),
        ("t2f", Modality.FLAIR),
        ("T2-FLAIR", Modality.FLAIR),
        ("FLAIR", Modality.FLAIR),
        ("0", None),
        ("MRI", None),
        ("t1map", None),
        ("T2*", None),
        ("", None),
    ],
)
def test_a_modality_is_known_by_its_usual_names(word: str, modality: Modality | None) -> None:
    assert modality_named(word) is modality


def test_every_modality_is_known_by_its_own_name_and_no_name_means_two() -> None:
    assert all(modality_named(modality) is modality for modality in Modality)
    names = [name for known in SPELLINGS.values() for name in known]
    assert len(set(names)) == len(names)
