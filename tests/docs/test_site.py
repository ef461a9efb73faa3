"""The documentation as a site: what leads somewhere, what is shown, what it needs of the world."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit
from xml.etree import ElementTree
from zipfile import ZipFile

import pytest

from brainfed.formats.manifest import Kind
from brainfed.steps.gather import KINDS
from tests.browser import PROGRAM, Browser, a_browser
from tests.docs.pages import DOCS, PAGES, ROOT, name_of, script

REVIEW = DOCS / "review"
leaves = script(REVIEW / "leaves.py")
PICTURES = {"docs/review/data-flow.svg": "python docs/review/leaves.py"}
"""Every picture of the documentation, and the command that makes it. Only phantoms may be shown."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".bmp", ".tif", ".pdf", ".mp4"}
MARK = "Input to a review, not legal advice."
PAGES_OF_ROLES = ("site-engineer", "coordinator", "officer", "it", "auditor")


def sphinx(source: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    options = ["-q", "-E", "-W", "--keep-going", "-c", str(DOCS), "-d", f"{out}-doctrees", *words]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- the sources --------------------------------------------------------------------------------


def test_every_link_anchor_picture_and_entry_of_the_tree_leads_somewhere(tmp_path: Path) -> None:
    done = sphinx(ROOT, tmp_path / "out", "-b", "dummy")
    assert done.returncode == 0, done.stderr


def test_what_leads_nowhere_and_a_page_that_no_index_names_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    wrong = ("[a](gone.md)", "[a](#nowhere)", "![a](gone.png)", "[a](../plans/gone.toml)")
    text = "\n\n".join(["# A page", "## More", "[b](named.md)", *wrong])
    (tmp_path / "docs" / "index.md").write_text(text)
    for name in ("named", "forgotten"):
        (tmp_path / "docs" / f"{name}.md").write_text("# Another\n")
    done = sphinx(tmp_path, tmp_path / "out", "-b", "dummy")
    assert done.returncode != 0
    for complaint in ("gone.md", "nowhere", "gone.png", "gone.toml", "forgotten.md"):
        assert complaint in done.stderr
    assert "named.md" not in done.stderr


def test_links_of_the_readme_lead_somewhere_too() -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text("utf-8")):
        if not link.startswith("http"):
            assert (ROOT / urldefrag(link).url).exists(), link


def test_every_picture_is_known_and_made_by_a_command() -> None:
    lying = {
        path.relative_to(ROOT).as_posix()
        for folder in ("docs", "plans", "src")
        for path in (ROOT / folder).rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    assert lying == set(PICTURES)
    assert all((ROOT / command.split()[1]).is_file() for command in PICTURES.values())
    for page in PAGES:
        text = page.read_text("utf-8")
        assert "data:image" not in text, name_of(page)
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)|<img[^>]+src=\"([^\"]+)", text):
            shown = (page.parent / (target[0] or target[1])).resolve()
            assert shown.relative_to(ROOT).as_posix() in PICTURES, name_of(page)


def test_every_page_of_formats_that_the_code_names_is_there() -> None:
    named = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"docs/formats/([\w-]+\.\w+)", path.read_text("utf-8"))
    }
    assert len(named) > 20
    assert [name for name in sorted(named) if not (DOCS / "formats" / name).is_file()] == []


def test_every_kind_of_exchanged_file_has_its_page_in_the_list_of_formats() -> None:
    listed = (DOCS / "formats" / "README.md").read_text("utf-8")
    for kind in KINDS:
        assert f"[{kind}.md]({kind}.md)" in listed


@pytest.mark.parametrize("role", PAGES_OF_ROLES)
def test_a_page_of_a_role_begins_with_what_to_do_and_ends_with_where_to_look(role: str) -> None:
    text = (DOCS / "how-to" / f"{role}.md").read_text("utf-8")
    assert re.match(r"# For [^\n]+\n\nYou ", text)
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert len(headings) > 1
    assert headings[-1] == "Where to look"
    assert f"(how-to/{role}.md)" in (DOCS / "index.md").read_text("utf-8").split("## Set up")[0]


# --- what leaves --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fields.md", "data-flow.svg"])
def test_what_leaves_is_what_the_code_gives(name: str) -> None:
    assert (REVIEW / name).read_text("utf-8") == leaves.made()[name], "run `make docs`"


def test_the_picture_names_every_kind_of_file_once_and_no_other() -> None:
    root = ElementTree.fromstring((REVIEW / "data-flow.svg").read_bytes())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    words = [text.partition(" ")[0] for text in texts if text]
    for kind in (*KINDS, *Kind):
        assert words.count(kind) == 1, kind
    assert root.find("{http://www.w3.org/2000/svg}title") is not None


def test_every_field_of_every_exchanged_file_has_a_meaning() -> None:
    for kind in KINDS.values():
        rows = leaves.meanings(kind)
        assert list(rows) == list(kind.model_fields)
    text = (REVIEW / "fields.md").read_text("utf-8")
    for kind in KINDS:
        assert f"\n### {kind}\n" in text
    with pytest.raises(LookupError):
        leaves.meanings(_Stranger)


class _Stranger:
    """A kind without a page."""


# --- the pages made -----------------------------------------------------------------------------


class _Page(HTMLParser):
    """What an HTML page loads, where it leads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        self.loads += [given[name] for name in ("src", "srcset", "data", "poster") if name in given]
        if tag == "link":
            self.loads.append(given.get("href", ""))
        elif "href" in given:
            self.leads.append(given["href"])


def loaded_from_outside(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.html"):
        for target in _Page(path).loads:
            if re.match(r"(?:\w+:)?//|https?:", target):
                yield f"{path.name}: {target}"
    for path in folder.rglob("*.css"):
        for target in re.findall(r"@import|url\(\s*['\"]?(?:https?:)?//[^)]+", path.read_text()):
            yield f"{path.name}: {target}"


def broken_links(folder: Path) -> Iterator[str]:
    pages = {path.resolve(): _Page(path) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        for target in {*page.leads, *page.loads}:
            if urlsplit(target).scheme:
                continue
            way, anchor = unquote(urlsplit(target).path), unquote(urlsplit(target).fragment)
            end = (path.parent / way).resolve() if way else path
            if not end.is_file() or (anchor and end in pages and anchor not in pages[end].ids):
                yield f"{path.relative_to(folder)}: {target}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "a site"
    done = sphinx(ROOT, out, "-b", "html")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_a_page_of_the_site_loads_nothing_from_outside_and_no_link_is_broken(site: Path) -> None:
    assert list(loaded_from_outside(site)) == []
    assert list(broken_links(site)) == []


@pytest.mark.slow
def test_every_page_and_every_command_key_and_error_is_in_the_site(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        made = site / page.relative_to(ROOT).with_suffix(".html")
        assert made.is_file(), name_of(page)
    index = (site / "docs" / "index.html").read_text("utf-8")
    for page in ("tutorial", *(f"how-to/{role}" for role in PAGES_OF_ROLES), "formats/manifest"):
        assert f'class="reference internal" href="{page}.html"' in index
    for name in ("commands", "plan", "errors"):
        source = (DOCS / "reference" / f"{name}.md").read_text("utf-8")
        shown = (site / "docs" / "reference" / f"{name}.html").read_text("utf-8")
        rows = re.findall(r"^(?:### (brainfed [\w -]+)|\| `(\w+)`)", source, re.M)
        assert rows
        assert all((command or key) in shown for command, key in rows)


def soon(browser: Browser, expression: str) -> bool:
    """Whether a line of JavaScript becomes true within seconds, in a page that may lead on."""
    for _ in range(40):
        time.sleep(0.25)
        if browser.value(expression):
            return True
    return False


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
def test_the_site_and_its_search_work_from_a_folder(site: Path, tmp_path: Path) -> None:
    with a_browser(tmp_path) as browser:
        browser.open(site / "index.html", width=1200)
        assert soon(browser, "location.pathname.endsWith('/docs/index.html')")
        browser.open(site / "search.html", width=1200)
        browser.value("setTimeout(() => { location.search = '?q=fingerprint' }, 50); 1")
        assert soon(browser, "document.querySelectorAll('#search-results li').length > 3")
        assert all(address.startswith(("file:", "data:")) for address in browser.requests)
        assert browser.complaints == []
        for width in (1200, 400):
            browser.open(site / "docs" / "how-to" / "officer.html", width=width)
            wider = "document.documentElement.scrollWidth > innerWidth"
            assert browser.value(wider) is False
            assert browser.complaints == []


@pytest.mark.slow
def test_the_pack_for_a_review_is_marked_on_every_page_and_complete(tmp_path: Path) -> None:
    out = tmp_path / "pack"
    command = [sys.executable, str(REVIEW / "pack.py"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [path for path in out.rglob("*.html") if path != out / "index.html"]
    assert len(pages) > 80
    for path in pages:
        assert MARK in path.read_text("utf-8"), path
    assert "docs/review/README.html" in (out / "index.html").read_text("utf-8")
    assert list(loaded_from_outside(out)) == []
    assert list(broken_links(out)) == []

    parts = {part["name"] for part in json.loads((out / "sbom.cdx.json").read_text())["components"]}
    shown = (out / "docs" / "review" / "parts.html").read_text("utf-8")
    assert {"torch", "numpy", "cryptography"} <= parts
    assert all(f"<p>{name}</p>" in shown for name in parts)
    texts = [path.parent.name.rpartition("-")[0] for path in out.glob("licences/*/*")]
    assert {"torch", "numpy", "cryptography"} <= set(texts)
    assert (out / "licences" / "brainfed-LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    with ZipFile(f"{out}.zip") as packed:
        assert packed.testzip() is None
        names = {name for name in packed.namelist() if not name.endswith("/")}
    assert names == {
        f"pack/{path.relative_to(out).as_posix()}" for path in out.rglob("*") if path.is_file()
    }
