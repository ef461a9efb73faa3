import base64
import hashlib
import json
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.errors import ScanError, UsageError
from brainfed.formats import quality_page
from brainfed.formats.quality_page import Picture, QualityEntry
from brainfed.formats.review import Verdict

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = "\"'><script>alert(1)</script>&amp;<img src=http://x.test/y>\udcff\u202e"


def an_entry(number: int = 1, **changes: object) -> QualityEntry:
    entry = QualityEntry(
        case_id=f"{number:016x}",
        name=f"case {number}",
        patient="somebody",
        verdict=Verdict.OK,
        findings=("T2 was cut off below",),
        facts=(("Whole tumour", "43 ml"),),
        pictures=(Picture("Slices", PNG, "axial 3 of 9"), Picture("Label", bytes(range(256)))),
    )
    return replace(entry, **changes)


class Page(HTMLParser):
    """What a browser makes of a page: tags with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(tmp_path: Path, *entries: QualityEntry) -> Page:
    path = tmp_path / "quality.html"
    quality_page.write_page(path, entries)
    return Page(path)


def test_an_entry_comes_back_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    quality_page.write_entry(tmp_path, an_entry())
    assert quality_page.read_entry(tmp_path, an_entry().case_id) == an_entry()
    path = quality_page.entry_path(tmp_path, an_entry().case_id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_entries_are_read_by_case_id_and_replaced_one_by_one(tmp_path: Path) -> None:
    assert quality_page.read_entries(tmp_path) == ()
    for number in (3, 1, 2):
        quality_page.write_entry(tmp_path, an_entry(number))
    newer = an_entry(2, verdict=Verdict.HELD)
    quality_page.write_entry(tmp_path, newer)
    (tmp_path / "quality" / ".tmp-1-x.json").write_text("left over by a kill")
    assert quality_page.read_entries(tmp_path) == (an_entry(1), newer, an_entry(3))
    assert quality_page.read_entry(tmp_path, "f" * 16) is None


@given(st.text(st.characters(), max_size=20))
def test_any_name_can_be_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("data")
    quality_page.write_entry(folder, an_entry(name=name, findings=(name,), facts=((name, name),)))
    (entry,) = quality_page.read_entries(folder)
    assert entry.name == name.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content | {"name": 3},
        lambda content: content | {"verdict": "fine"},
        lambda content: content | {"case_id": "../../x"},
        lambda content: content | {"extra": 1},
        lambda content: content | {"pictures": [{"title": "x", "png": "%%%"}]},
        lambda content: {key: value for key, value in content.items() if key != "name"},
        lambda content: [],
    ],
)
def test_a_damaged_entry_is_refused_without_its_content(tmp_path: Path, change: object) -> None:
    quality_page.write_entry(tmp_path, an_entry())
    path = quality_page.entry_path(tmp_path, an_entry().case_id)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(ScanError, match="damaged") as caught:
        quality_page.read_entries(tmp_path)
    assert "somebody" not in str(caught.value)


def test_the_page_is_for_its_owner_alone_and_says_that_it_must_not_leave(tmp_path: Path) -> None:
    page = written(tmp_path, an_entry())
    assert "Contains patient images: must not leave the site" in page.text
    assert stat.S_IMODE((tmp_path / "quality.html").stat().st_mode) == 0o600
    style = (Path(quality_page.__file__).parent / "quality_page.css").read_text("utf-8")
    assert f'content: "{quality_page.BANNER}"' in style  # on every sheet of paper


def test_the_page_is_never_written_to_an_outbox(tmp_path: Path) -> None:
    for folder in (tmp_path / "outbox", tmp_path / "outbox" / "below"):
        folder.mkdir()
        with pytest.raises(UsageError, match="outbox"):
            quality_page.write_page(folder / "quality.html", [an_entry()])
        assert not list(folder.glob("*.html"))
    (tmp_path / "data").symlink_to(tmp_path / "outbox")
    with pytest.raises(UsageError, match="outbox"):
        quality_page.write_page(tmp_path / "data" / "quality.html", [an_entry()])


def test_nothing_is_taken_from_elsewhere_and_nothing_can_run(tmp_path: Path) -> None:
    page = written(tmp_path, an_entry())
    (policy,) = [m for m in page.all("meta") if "http-equiv" in m]
    assert policy["http-equiv"] == "Content-Security-Policy"
    rules = dict(rule.strip().split(" ", 1) for rule in (policy["content"] or "").split(";"))
    text = (tmp_path / "quality.html").read_text("utf-8")
    style = re.findall(r"<style>(.*?)</style>", text, re.S)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "url(" not in style
    assert "@import" not in style
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert not [a for _, attributes in page.tags for a in attributes if a == "style"]
    links = [attributes["href"] or "" for attributes in page.all("a")]
    assert all(link.startswith("#") for link in links)
    assert all(
        (image["src"] or "").startswith("data:image/png;base64,") for image in page.all("img")
    )
    assert page.open == []


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile = an_entry(
        name=HOSTILE,
        patient=HOSTILE,
        findings=(HOSTILE,),
        facts=((HOSTILE, HOSTILE),),
        pictures=(Picture(HOSTILE, PNG, HOSTILE),),
    )
    page = written(tmp_path, hostile)
    quality_page.write_page(tmp_path / "other.html", [an_entry()], heading=HOSTILE)
    assert [tag for tag, _ in page.tags].count("script") == 0
    assert "script" not in [tag for tag, _ in Page(tmp_path / "other.html").tags]
    assert page.text.count("<script>alert(1)</script>") >= 7
    (image,) = page.all("img")
    assert set(image) == {"alt", "src"}


def test_the_worst_cases_come_first(tmp_path: Path) -> None:
    entries = [
        an_entry(1, verdict=Verdict.OK, findings=()),
        an_entry(2, verdict=Verdict.OK, findings=("odd",)),
        an_entry(3, verdict=Verdict.REFUSED),
        an_entry(4, verdict=Verdict.HELD, findings=("odd",)),
        an_entry(5, verdict=Verdict.HELD, findings=("odd", "very odd")),
    ]
    page = written(tmp_path, *entries)
    sections = [(section["id"] or "")[-1] for section in page.all("section")]
    assert sections == ["3", "5", "4", "2", "1"]
    links = [(a["href"] or "")[-1] for a in page.all("a") if a["href"] != "#top"]
    assert links == sections
    badges = [span["class"] for span in page.all("span")]
    words = ["badge refused", "badge held", "badge held", "badge warnings", "badge ok"]
    assert badges == [*words, *words]
    assert "5 cases: 1 refused, 2 held, 2 ok" in page.text


def test_every_anchor_has_its_target_and_every_picture_its_words(tmp_path: Path) -> None:
    page = written(tmp_path, an_entry(1), an_entry(2))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(a["href"] or "")[1:] for a in page.all("a")} <= set(ids)
    assert {s["aria-labelledby"] for s in page.all("section")} <= set(ids)
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("html") == [{"lang": "en"}]
    levels = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels == ["h1", "h2", "h2", "h2"]


def test_the_page_holds_everything_of_a_case_and_says_how_to_decide(tmp_path: Path) -> None:
    page = written(tmp_path, an_entry())
    for words in ("T2 was cut off below", "Whole tumour", "43 ml", "Slices", "axial 3 of 9"):
        assert words in page.text
    for words in ("data/review.csv", "accept", "reject", "brainfed split"):
        assert words in page.text
    pictures = [base64.b64decode((image["src"] or "").split(",")[1]) for image in page.all("img")]
    assert pictures == [PNG, bytes(range(256))]


def test_a_page_of_scans_without_cases_asks_for_no_decision(tmp_path: Path) -> None:
    path = tmp_path / "check.html"
    quality_page.write_page(path, [an_entry(verdict=Verdict.HELD)], is_made=False)
    page = Page(path)
    assert "No case has been made yet" in page.text
    assert "as their headers place them" in " ".join(page.text.split())
    for words in ("review.csv", "brainfed review", "brainfed split"):
        assert words not in page.text


def test_no_distance_and_no_volume_is_the_pages_own(tmp_path: Path) -> None:
    page = written(tmp_path, an_entry(findings=(), facts=()))
    assert not re.search(r"\d *(mm|ml|cm)\b", page.text.split("All cases")[1])


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    assert "0 cases" in written(tmp_path).text


def test_an_erased_case_is_on_no_page(tmp_path: Path) -> None:
    for number in (1, 2):
        quality_page.write_entry(tmp_path, an_entry(number))
    path = quality_page.page_path(tmp_path)
    quality_page.write_page(path, quality_page.read_entries(tmp_path))
    assert quality_page.erase(tmp_path, an_entry(1).case_id)
    assert quality_page.read_entries(tmp_path) == (an_entry(2),)
    assert "case 1" not in path.read_text("utf-8")
    assert "case 2" in path.read_text("utf-8")
    assert not quality_page.erase(tmp_path, an_entry(1).case_id)


def test_erasing_leaves_no_page_that_shows_the_case_when_another_entry_is_damaged(
    tmp_path: Path,
) -> None:
    for number in (1, 2):
        quality_page.write_entry(tmp_path, an_entry(number))
    quality_page.write_page(quality_page.page_path(tmp_path), quality_page.read_entries(tmp_path))
    quality_page.entry_path(tmp_path, an_entry(2).case_id).write_text("{")
    with pytest.raises(ScanError):
        quality_page.erase(tmp_path, an_entry(1).case_id)
    assert not quality_page.page_path(tmp_path).exists()
    assert not quality_page.entry_path(tmp_path, an_entry(1).case_id).exists()
