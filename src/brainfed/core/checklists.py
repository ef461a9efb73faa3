"""The items that readers of studies ask for: CLAIM (2024 update) and TRIPOD+AI (2024).

Item numbers are those of the lists, the words are ours and short: whoever fills a list in reads the
original. Sources: Tejani et al. 2024; Collins et al. 2024 (`checklists.toml`).
"""

import importlib.resources
import tomllib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a list."""

    number: str
    text: str
    fill: str
    """What a model card can say of it; empty where only the authors can."""


@dataclass(frozen=True, slots=True)
class Checklist:
    """A list with its items, in its order."""

    title: str
    source: str
    items: tuple[Item, ...]


def checklists() -> tuple[Checklist, ...]:
    """CLAIM and TRIPOD+AI."""
    text = importlib.resources.files("brainfed.core").joinpath("checklists.toml").read_text("utf-8")
    return tuple(
        Checklist(
            entry["title"],
            entry["source"],
            tuple(Item(i["number"], i["text"], i.get("fill", "")) for i in entry["items"]),
        )
        for entry in tomllib.loads(text).values()
    )
