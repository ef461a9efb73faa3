"""The packing list: a text for people beside what was exported (`docs/formats/packing-list.md`).

It is foreign to `import`, unsigned, and holds nothing of a patient.
"""

from dataclasses import dataclass

ENDING = "packing-list.txt"
FIRST_LINE = "Packing list of brainfed, for people. No program reads it; it is not signed."


@dataclass(frozen=True)
class Packed:
    """One file on the medium."""

    name: str
    n_bytes: int
    digest: str
    """SHA-256, hexadecimal."""


@dataclass(frozen=True)
class PackingList:
    """What lies on a medium, from whom and to whom."""

    federation: str
    """Its name and the first 8 digits of its digest, or that there is none yet."""
    round: int | None
    sender: str
    readers: tuple[str, ...]
    files: tuple[Packed, ...]

    def text(self) -> str:
        """The list, ended by a line feed."""
        width = max((len(f"{file.n_bytes:,}") for file in self.files), default=0)
        rows = [f"  {f.digest[:8]}  {f.n_bytes:>{width},} B  {f.name}" for f in self.files]
        lines = [
            FIRST_LINE,
            "",
            f"federation  {self.federation}",
            f"round       {'none' if self.round is None else self.round}",
            f"from        {self.sender}",
            f"to          {', '.join(self.readers)}",
            "",
            "SHA-256 begins, size, file:",
            *rows,
        ]
        return "\n".join(lines) + "\n"


def file_name(stem: str, sender: str) -> str:
    """The list's name: it tells the sender, so that two lists on one medium don't collide."""
    return ".".join(part for part in (stem, sender, ENDING) if part)
