"""How the modalities are spelled in file names, tables and lists of channels."""

import re

from brainfed.plan import Modality

SPELLINGS: dict[Modality, tuple[str, ...]] = {
    Modality.T1: ("t1", "t1n", "t1w"),
    Modality.T1CE: ("t1ce", "t1gd", "t1c"),
    Modality.T2: ("t2", "t2w"),
    Modality.FLAIR: ("flair", "t2f", "t2flair"),
}
"""Of BraTS, FeTS, MSD and BIDS; a ground for knowing a modality, where a number is none."""


def modality_named(word: str) -> Modality | None:
    """The modality of this name; capitals, spaces and hyphens don't matter. T2* is no T2.

    >>> modality_named("T2-FLAIR")
    <Modality.FLAIR: 'flair'>
    """
    plain = plain_word(word)
    return next((modality for modality, known in SPELLINGS.items() if plain in known), None)


def plain_word(word: str) -> str:
    """The word in small letters, without what parts it: `Label_Protocol` is `labelprotocol`."""
    return re.sub(r"[\s_.+-]", "", word.lower())
