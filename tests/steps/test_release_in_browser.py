"""The release page in a browser: nothing is fetched, and it can be read on a narrow screen."""

from pathlib import Path

import pytest

from brainfed.formats.report_page import FIRST_LINE
from brainfed.steps.release import release
from tests.approving import DAY, an_approving_federation
from tests.browser import PROGRAM, a_browser
from tests.federation import train

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


def test_the_page_begins_with_its_sentence_fetches_nothing_and_fits(tmp_path: Path) -> None:
    site = an_approving_federation(tmp_path / "small").sites["hospital-a"]
    train(site, n_patients=14)
    page = release(site, today=DAY).page
    with a_browser(tmp_path / "profile") as browser:
        for width in (1400, 400):
            browser.open(page, width=width)
            assert browser.requests == [page.as_uri()]
            assert browser.complaints == []
            assert browser.value("document.documentElement.scrollWidth") <= width
        said = browser.value("document.body.innerText")
        assert said.startswith(FIRST_LINE)
        assert browser.value("document.querySelector('.lead').innerText").startswith(
            "These weights, trained only on your 14 patients, will be readable by: uni-lead"
        )
        assert browser.value("document.querySelectorAll('table').length") >= 5
        heads = (
            "[...document.querySelectorAll('table')].every(t => t.caption && t.tHead.rows.length)"
        )
        assert browser.value(heads)
