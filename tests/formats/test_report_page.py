import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.errors import ConflictError, UsageError
from brainfed.formats import report_page
from brainfed.formats.report_page import (
    FIRST_LINE,
    Cell,
    Chart,
    Facts,
    Items,
    Page,
    Picture,
    Row,
    Section,
    Table,
    Text,
)

HOSTILE = "\"'><script>alert(1)</script>&amp;<img src=http://x.test/y>{{ 7 * 7 }}\udcff"


class Read(HTMLParser):
    """What a browser makes of a page: tags with their attributes, and the text."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.lines: list[str] = []
        self.feed(data.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"style", "title"} & set(self.open):
            self.lines.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def a_page(word: str = "word", **changes: object) -> Page:
    table = Table(
        caption=word,
        columns=("round", word),
        rows=((word, Cell("0.81", f"n 12 {word}", share=0.81, is_worst=True)), ("2", "–")),
        note=word,
    )
    blocks = (
        Text(word),
        Text(word, is_warning=True),
        Items((word, word)),
        Facts(((word, word),)),
        Row((Chart('<svg class="chart" role="img" aria-label="x"></svg>', word),)),
        Picture(b"png", word, word),
        table,
        replace(table, is_folded=True, is_prose=True),
    )
    page = Page(title=word, lead=word, banner=word, sections=(Section(word, blocks),), foot=word)
    return replace(page, **changes)


def test_the_first_line_says_for_research_only() -> None:
    assert Read(report_page.render(a_page())).lines[0] == FIRST_LINE
    assert FIRST_LINE == "For research only. Not a medical device."


def test_the_banner_stands_above_everything_else_and_on_every_sheet() -> None:
    data = report_page.render(a_page(banner="must not leave"))
    assert Read(data).lines[1] == "must not leave"
    assert f'content: "{FIRST_LINE} must not leave."' in data.decode()


def test_the_page_needs_nothing_else() -> None:
    page = Read(report_page.render(a_page()))
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "img-src data:;" in policy
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"} == set()
    assert all(str(img["src"]).startswith("data:image/png;base64,") for img in page.all("img"))
    assert "http:" not in report_page.render(a_page()).decode().replace("http-equiv", "")
    assert "url(" not in report_page.render(a_page()).decode()


def test_every_block_is_there_and_everything_that_is_opened_is_closed() -> None:
    page = Read(report_page.render(a_page()))
    assert page.open == []
    for tag in ("ul", "dl", "svg", "img", "table", "details", "figure", "caption"):
        assert page.all(tag), tag
    assert page.lines.count("worst") == 2


def test_tables_have_headers_and_pictures_have_words() -> None:
    page = Read(report_page.render(a_page()))
    assert {head["scope"] for head in page.all("th")} == {"col", "row"}
    assert all(img["alt"] for img in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) == 2


def test_the_tint_follows_the_share() -> None:
    tints = [Cell("x", share=share).tint for share in (0.0, 0.09, 0.1, 0.55, 1.0)]
    assert tints == [0, 0, 1, 5, 9]
    assert Cell("x").tint is None
    css = (Path(report_page.__file__).parent / "report_page.css").read_text("utf-8")
    assert all(f".tint-{n} {{" in css for n in range(report_page.N_TINTS))


def test_what_comes_from_files_stays_text() -> None:
    page = Read(report_page.render(a_page(HOSTILE)))
    assert page.open == []
    assert {tag for tag, _ in page.tags} & {"script", "iframe"} == set()
    assert len(page.all("img")) == 1
    assert any("<script>alert(1)</script>" in line for line in page.lines)
    assert any("{{ 7 * 7 }}" in line for line in page.lines)


@given(st.text(min_size=1, max_size=60))
def test_any_text_gives_a_page_with_the_same_tags(word: str) -> None:
    usual = [tag for tag, _ in Read(report_page.render(a_page())).tags]
    assert [tag for tag, _ in Read(report_page.render(a_page(word))).tags] == usual


def test_the_same_page_gives_the_same_bytes() -> None:
    assert report_page.render(a_page()) == report_page.render(a_page())


@pytest.mark.parametrize(("is_private", "mode"), [(True, 0o600), (False, 0o644)])
def test_a_private_page_is_for_its_owner_alone(tmp_path: Path, is_private: bool, mode: int) -> None:
    path = tmp_path / "new" / "report.html"
    report_page.write(path, a_page(), is_private=is_private)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_an_older_report_is_replaced_and_another_file_never(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report_page.write(path, a_page("old"), is_private=True)
    report_page.write(path, a_page("new"), is_private=True)
    assert b"new" in path.read_bytes()
    other = tmp_path / "thesis.html"
    other.write_text("<!DOCTYPE html>\n<p>mine")
    with pytest.raises(ConflictError) as caught:
        report_page.write(other, a_page(), is_private=True)
    assert caught.value.where == str(other)
    assert other.read_text() == "<!DOCTYPE html>\n<p>mine"
    with pytest.raises(ConflictError):
        report_page.write(tmp_path, a_page(), is_private=True)


def test_no_report_lies_in_an_outbox(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outbox")
    for folder in ("outbox", "outbox/deep", "link"):
        with pytest.raises(UsageError):
            report_page.write(tmp_path / folder / "r.html", a_page(), is_private=False)
    assert list((tmp_path / "outbox").iterdir()) == []


COLOURS = re.findall(
    r"--([a-z0-9-]+): (#[0-9a-f]{3,6})",
    (Path(report_page.__file__).parent / "report_page.css").read_text("utf-8"),
)
HALF = [name for name, _ in COLOURS].index("paper", 1)
LIGHT = dict(COLOURS[:HALF])
DARK = LIGHT | dict(COLOURS[HALF:])


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.1, from 1 to 21."""

    def luminance(code: str) -> float:
        code = code[1:] if len(code) == 7 else "".join(2 * c for c in code[1:])
        parts = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_letters_and_lines_stand_out_from_what_is_behind_them(colours: dict[str, str]) -> None:
    paper = colours["paper"]
    for name in ("ink", "soft", "link", "worst"):
        assert contrast(colours[name], paper) >= 4.5, name
    assert contrast(colours["on-alarm"], colours["alarm"]) >= 4.5
    for name in ("ink", "soft", "worst"):
        assert contrast(colours[name], colours["shade"]) >= 4.5, name
    for number in range(report_page.N_TINTS):
        assert contrast(colours["ink"], colours[f"tint-{number}"]) >= 4.5, number
    for number in range(8):
        assert contrast(colours[f"site-{number}"], paper) >= 3, number
