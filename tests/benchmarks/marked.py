"""Parts of a page that a benchmark writes, between two marks, so that several can share a page."""

from pathlib import Path


def rewrite(page: Path, name: str, text: str) -> None:
    """Put text between the marks of that name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    old = page.read_text()
    before, _, rest = old.partition(begin)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{begin}{text.rstrip()}\n{end}{after}")
