"""Each page in a browser: nothing is fetched, everything is there, and it can be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from brainfed.formats.dataset import Subset
from brainfed.formats.report_page import FIRST_LINE
from brainfed.steps.report import report
from brainfed.steps.report_facts import Reader
from tests.browser import PROGRAM, Browser, a_browser
from tests.federation import TODAY
from tests.reported import a_reported_federation, evaluated

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")

READABLE = 11
"""Pixels: the least height of letters on a narrow screen."""
SMALLEST = """
Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))
"""
TINTED = "getComputedStyle(document.querySelector('[class^=tint-]')).backgroundColor"
PAPER = "getComputedStyle(document.body).backgroundColor"
LINE = "getComputedStyle(document.querySelector('svg [style*=\"--ink\"]')).stroke"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    small = a_reported_federation(tmp_path_factory.mktemp("reported"), 3)
    site = small.sites["hospital-a"]
    evaluated(site, 3, Subset.VALIDATION, pictures=True)
    lead = small.coordinator
    return {
        "site": report(site, today=TODAY).path,
        "coordinator": report(lead, today=TODAY).path,
        "public": report(lead, Reader.PUBLIC, today=TODAY).path,
        "card": report(lead, card=True, today=TODAY).path,
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with a_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


KINDS = ("site", "coordinator", "public", "card")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_and_no_rule_is_broken(
    pages: dict[str, Path], browser: Browser, kind: str
) -> None:
    browser.open(pages[kind], width=1400)
    asked = [url for url in browser.requests if not url.startswith("data:")]
    assert asked == [pages[kind].as_uri()]
    assert browser.complaints == []


@pytest.mark.parametrize("kind", KINDS)
def test_tables_charts_and_pictures_are_there(
    pages: dict[str, Path], browser: Browser, kind: str
) -> None:
    browser.open(pages[kind], width=1400)
    assert browser.value("document.body.innerText.trim()").startswith(FIRST_LINE)
    assert browser.value("document.querySelectorAll('table').length") >= 6
    charts = "[...document.querySelectorAll('svg.chart')]"
    assert browser.value(f"{charts}.length") >= 4 - 2 * (kind == "card")
    assert browser.value(f"{charts}.every(c => c.getBoundingClientRect().height > 60)")
    assert browser.value(f"{charts}.every(c => c.getAttribute('aria-label'))")
    images = "[...document.images]"
    assert browser.value(f"{images}.length") == (3 if kind == "site" else 0)
    assert browser.value(f"{images}.every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert browser.value("document.querySelectorAll('td, th').length") > 50
    heads = "[...document.querySelectorAll('table')].every(t => t.caption && t.tHead.rows.length)"
    assert browser.value(heads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [400, 1400])
def test_no_page_is_wider_than_its_window_and_letters_of_charts_can_be_read(
    pages: dict[str, Path], browser: Browser, kind: str, width: int
) -> None:
    browser.open(pages[kind], width=width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(SMALLEST) >= READABLE


def test_in_the_dark_paper_is_dark_and_lines_and_tints_follow(
    pages: dict[str, Path], browser: Browser
) -> None:
    seen = []
    for dark in (False, True):
        browser.open(pages["coordinator"], width=1000, dark=dark)
        seen.append([browser.value(what) for what in (PAPER, LINE, TINTED)])
    assert seen[0][0] == "rgb(255, 255, 255)"
    assert all(one != other for one, other in zip(*seen, strict=True))


def test_on_paper_what_is_folded_is_printed_and_it_is_light(
    pages: dict[str, Path], browser: Browser
) -> None:
    browser.open(pages["coordinator"], width=720, dark=True)
    folded = "document.querySelector('details').getBoundingClientRect().height"
    assert browser.value(folded) < 40
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.value(folded) > 60
    assert browser.value(PAPER) == "rgb(255, 255, 255)"
    assert browser.ask("Page.printToPDF")["data"]
    browser.ask("Emulation.setEmulatedMedia", media="")
