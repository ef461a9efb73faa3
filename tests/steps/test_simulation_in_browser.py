"""The page of a simulation in a browser: nothing is fetched, and it can be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from brainfed.formats.report_page import FIRST_LINE
from brainfed.steps.simulation_report import write_report
from tests.browser import PROGRAM, Browser, a_browser
from tests.simulated import a_simulation
from tests.steps.test_report_in_browser import PAPER, READABLE, SMALLEST, TINTED

INK = """document.querySelector('svg path[style*="stroke: var(--ink)"]')"""
LINE = f"getComputedStyle({INK}).stroke"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    a_simulation(folder, epochs=(1, 2, 4), is_folded=True)
    return write_report(folder).page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with a_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_nothing_is_fetched_and_no_rule_is_broken(page: Path, browser: Browser) -> None:
    browser.open(page, width=1400)
    assert browser.requests == [page.as_uri()]
    assert browser.complaints == []
    assert browser.value("document.body.innerText.trim()").startswith(FIRST_LINE)


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_its_window_and_its_charts_can_be_read(
    page: Path, browser: Browser, width: int
) -> None:
    browser.open(page, width=width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(SMALLEST) >= READABLE
    charts = "[...document.querySelectorAll('svg.chart')]"
    assert browser.value(f"{charts}.length") == 5
    assert browser.value(f"{charts}.every(c => c.getBoundingClientRect().height > 60)")


def test_at_a_desk_no_table_is_cut_off(page: Path, browser: Browser) -> None:
    browser.open(page, width=1400)
    cut = "[...document.querySelectorAll('.wide')].filter(w => w.scrollWidth > w.clientWidth)"
    assert browser.value(f"{cut}.map(w => w.getAttribute('aria-label'))") == []


def test_in_the_dark_paper_is_dark_and_lines_and_tints_follow(page: Path, browser: Browser) -> None:
    seen = []
    for dark in (False, True):
        browser.open(page, width=1000, dark=dark)
        seen.append([browser.value(what) for what in (PAPER, LINE, TINTED)])
    assert seen[0][0] == "rgb(255, 255, 255)"
    assert all(one != other for one, other in zip(*seen, strict=True))
