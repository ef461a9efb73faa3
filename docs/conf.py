"""Sphinx makes a site of the Markdown in this folder: `make docs-site`.

The sources stay plain Markdown that reads on a forge. The tree of pages is made from the links of
the index pages, so it stands in one place. `-t review` makes the pack of `make
review-pack`: the same pages, each marked, beginning at `docs/review/README.md`.
"""

import posixpath
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

INDEX = "docs/index"
REVIEW = "docs/review/README"
PARTS = "docs/review/parts"
FOLDERS = ("docs/formats/README", "docs/decisions/README", "docs/results/README", REVIEW)
"""Pages that list the pages of their own folder."""
MARK = "Input to a review, not legal advice."

is_review = tags.has("review")  # noqa: F821 (Sphinx brings `tags`)

project = "brainfed"
html_title = "brainfed: input to a review" if is_review else "brainfed"
extensions = ["myst_parser"]
# The folder of sources is the repository, so that links to plans and to SECURITY.md are right.
include_patterns = ["docs/**.md", "SECURITY.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "demo", "dist", "src", "tests", "work", "**/__pycache__"]
root_doc = REVIEW if is_review else INDEX
myst_heading_anchors = 4
myst_enable_extensions = ["tasklist"]
# Pygments knows no CSV.
suppress_warnings = ["misc.highlighting_failure"]
nitpicky = True

html_theme = "furo"
html_theme_options = {"announcement": MARK} if is_review else {}
html_static_path = ["site/static"]
html_css_files = ["site.css", *(["review.css"] if is_review else [])]
html_additional_pages = {"index": "start.html"}
templates_path = ["site"]
html_context = {"start": f"{root_doc}.html"}
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# A summary of a hit would have to be fetched, which no browser does from a folder.
html_show_search_summary = False
html_use_index = False
# No time of day: the same sources make the same pages.
html_last_updated_fmt = None


def setup(app: Sphinx) -> None:
    """Make the tree of pages from the links of the index pages, and the table of parts."""
    app.connect("source-read", _add_tree)
    app.connect("source-read", _add_parts)


def _add_parts(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the table of parts to its page, from the SBOM that lies in the pack."""
    if is_review and page == PARTS:
        sys.path.insert(0, str(Path(__file__).parent / "review"))
        from pack import SBOM, components

        rows = [f"| {' | '.join(part)} |" for part in components(Path(app.outdir) / SBOM)]
        head = ["", "## The parts", "", "| package | version | licence |", "|---|---|---|"]
        source[0] += "\n".join([*head, *rows, ""])


def _add_tree(_app: Sphinx, page: str, source: list[str]) -> None:
    """Append a hidden toctree to an index page: a group for each of its headings that has links."""
    if page == root_doc == REVIEW:
        source[0] += _toctree("The whole documentation", [f"/{INDEX}"])
    if page != INDEX and page not in FOLDERS:
        return
    listed = {page, root_doc}  # a page has one place in the tree, and the first one none
    for heading, text in _sections(source[0]):
        links = dict.fromkeys(re.findall(r"\]\(([^)#:]+)\.md\)", text))
        if page in FOLDERS:
            links = {link: None for link in links if "/" not in link}
        names = [posixpath.normpath(f"{posixpath.dirname(page)}/{link}") for link in links]
        names = [name for name in names if name not in listed]
        listed.update(names)
        if names:
            source[0] += _toctree(heading, [f"/{name}" for name in names])


def _sections(text: str) -> list[tuple[str, str]]:
    """The text below each heading of the second level, with the heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return list(zip(["", *parts[1::2]], parts[::2], strict=True))


def _toctree(caption: str, pages: list[str]) -> str:
    lines = ["", "```{toctree}", ":hidden:", f":caption: {caption}", *pages, "```", ""]
    return "\n".join(line for line in lines if line != ":caption: ")
