"""The quality page as a browser shows it: made by `preprocess` and `check`, opened in Chromium."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from brainfed.core.labels import LabelProtocol
from brainfed.formats import dataset, identities, quality_page, review
from brainfed.formats.quality_page import BANNER
from brainfed.plan import Plan
from brainfed.steps.case_rows import RefusedCasesError
from brainfed.steps.check import check
from brainfed.steps.check_rows import BadCasesError
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests.browser import PROGRAM, Browser, a_browser
from tests.builders import a_geometry, a_plan, write_case_folder, write_nifti

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
HOSTILE = "<img src=http:evil.test><b>x"
NAMES = ("good", HOSTILE, "held", "refused")
DRAWN = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of cases of every verdict, with both pages."""
    folder = tmp_path_factory.mktemp("pages")
    plan = a_plan(scans={"required": ("flair",), "optional": ("t1ce",), "regions": ("WT", "ET")})
    for number, name in enumerate(NAMES):
        made = write_case_folder(
            folder / "scans", f"case{number}", seed=number, modalities=("flair", "t1ce")
        )
        if name == "held":
            few = np.random.default_rng(1).integers(0, 4, (6, 40, 40)).astype(np.int16)
            write_nifti(made / f"case{number}_t1ce.nii.gz", few, a_geometry(few.shape))
        if name == "refused":
            (made / f"case{number}_flair.nii.gz").write_bytes(b"no scan")
        for path in list(made.iterdir()):
            path.rename(path.with_name(path.name.replace(f"case{number}", name)))
        made.rename(made.with_name(name))
    look(folder, plan)
    return folder / "data"


def look(folder: Path, plan: Plan) -> None:
    wish = Wish(protocol=LabelProtocol.BRATS2017)
    with pytest.raises(BadCasesError):
        check(folder / "data", folder / "scans", plan, wish)
    with pytest.raises(RefusedCasesError):
        preprocess_folder(folder / "data", folder / "scans", plan, wish)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with a_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(params=["quality.html", "check.html"])
def page(request: pytest.FixtureRequest, site: Path) -> Path:
    return site / str(request.param)


def test_nothing_is_fetched_and_the_browser_has_nothing_to_complain_of(
    browser: Browser, page: Path
) -> None:
    browser.open(page, width=1200)
    browser.value(DRAWN)
    assert browser.requests[0] == page.as_uri()
    assert all(url.startswith("data:image/png;base64,") for url in browser.requests[1:])
    assert browser.complaints == []


def test_a_page_that_fetches_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><title>x</title><p>{HOSTILE}</p>")
    browser.open(page, width=1200)
    assert "http://evil.test/" in browser.requests


def test_every_case_has_its_row_and_the_worst_come_first(browser: Browser, site: Path) -> None:
    browser.open(quality_page.page_path(site), width=1200)
    rows = browser.value("[...document.querySelectorAll('tbody tr')].map(r => r.innerText)")
    words = [row.split()[0] for row in rows]
    assert sorted(words[1:], key=["held", "warnings", "ok"].index) == words[1:]
    assert words[:2] == ["refused", "held"]
    assert ["refused" in rows[0], "held" in rows[1]] == [True, True]
    assert any(HOSTILE in row for row in rows)
    known = identities.read(site)
    for name in NAMES:
        section = browser.value(
            f"document.getElementById('c{known.case_id(name)}').querySelector('h2').textContent"
        )
        assert name in section
        assert str(review.read(site)[known.case_id(name)].verdict) in section or "warn" in section


def test_every_picture_is_there_and_can_be_decoded(browser: Browser, site: Path) -> None:
    browser.open(quality_page.page_path(site), width=1200)
    widths = browser.value(DRAWN)
    n_made = len(dataset.read_index(site))
    assert n_made == 3
    assert len(widths) == 5 * n_made
    assert min(widths) >= 200
    words = browser.value("[...document.querySelectorAll('figcaption b')].map(b => b.textContent)")
    assert words == ["Slices.", "Label.", "Checkerboards.", "Brain mask.", "Histograms."] * n_made


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [480, 1200])
def test_it_fits_the_window_and_can_be_read(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark)
    browser.value(DRAWN)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("Math.max(...[...document.images].map(i => i.clientWidth))") <= width
    style = "getComputedStyle(document.querySelector('{}')).{}"
    assert browser.value(style.format("body", "backgroundColor")) == "rgb(255, 255, 255)"
    assert browser.value(style.format("body", "color")) == "rgb(26, 26, 26)"
    assert browser.value(style.format(".banner", "backgroundColor")) == "rgb(138, 16, 20)"


def test_the_banner_stays_in_sight(browser: Browser, page: Path) -> None:
    browser.open(page, width=1200)
    browser.value("window.scrollTo(0, document.body.scrollHeight)")
    place = browser.value("document.querySelector('.banner').getBoundingClientRect().top")
    assert browser.value("window.scrollY") > 0
    assert place == 0
    assert browser.value("document.querySelector('.banner').innerText") == BANNER
