"""What is never claimed, in any text or message, in plain words."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

NEVER = {
    "anonymous": r"anonym",
    "compliant": r"\bcompliant\b|\b(gdpr|hipaa)[\s-]+(compliance|conform|certified)",
    "cannot be reconstructed": r"(cannot|can\s?not|can't|can’t|never|impossible to)\s+"
    r"(be\s+)?(reconstruct|recover(ed)?\s+(an?\s+|the\s+)?(image|scan|patient))",
    "fully private": r"(fully|completely|perfectly|100\s?%)[\s-]+(private|secure|safe)",
    "poisoning-proof": r"(poison(ing)?|tamper|hack)[\s-]*proof",
    "privacy guaranteed": r"(guarantee[sd]?\s+(the\s+)?privacy|privacy[\s-]+(is\s+)?guaranteed)",
}
"""What nobody may claim, and how it may be written; case and line breaks don't matter."""
ALLOWED = {
    ("docs/review/questions.md", "**Is that anonymisation?** We don't say so,"),
}
"""Places that say that it isn't claimed."""
FOLDERS = ("src", "docs", "plans", "install")
FILES = ("README.md", "CHANGELOG.md", "SECURITY.md", "Makefile", "pyproject.toml")
SUFFIXES = {".py", ".md", ".toml", ".css", ".html", ".svg", ".json", ".def", ".txt", ""}


def texts() -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))]
    return [
        path
        for path in [*found, *(ROOT / name for name in FILES)]
        if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts
    ]


def claims_in(text: str) -> list[str]:
    """The claims that a text makes, with the words around each."""
    flat = re.sub(r"[\s\"']*\n[\s\"'*#|>]*", " ", text)  # a sentence may be broken over lines
    return [
        f"{name}: ...{flat[max(0, hit.start() - 40) : hit.end() + 40]}..."
        for name, pattern in NEVER.items()
        for hit in re.finditer(pattern, flat, re.IGNORECASE)
    ]


def test_no_text_and_no_message_claims_what_nobody_can_promise() -> None:
    read = texts()
    assert len(read) > 300
    found = []
    for path in read:
        name, text = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        for file, words in ALLOWED:
            if file == name:
                assert words in text, f"{file} no longer says: {words}"
                text = text.replace(words, "")
        found += [f"{name}: {claim}" for claim in claims_in(text)]
    assert found == []


@pytest.mark.parametrize(
    "claim",
    [
        "The weights are anonymous.",
        "Data are fully anonymised first.",
        "brainfed is GDPR-compliant",
        "a HIPAA compliant tool",
        "An image cannot be reconstructed from weights.",
        "Scans can't be\n    reconstructed.",
        "It can never be reconstructed.",
        "fully private training",
        "The mean is poisoning-proof.",
        '"... that it cannot "\n    "be reconstructed"',
    ],
)
def test_a_claim_would_be_noticed(claim: str) -> None:
    assert claims_in(claim)


def test_what_is_said_honestly_is_no_claim() -> None:
    assert claims_in("no check of numbers proves that nothing of a patient can be drawn out") == []
    assert claims_in("Membership and reconstruction attacks are not defended.") == []
