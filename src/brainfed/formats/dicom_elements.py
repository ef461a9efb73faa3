"""Elements of a DICOM dataset as plain values: text, numbers, dates, places of slices.

A dataset is pydicom's; a value that is missing or makes no sense is empty or None.
"""

import datetime as dates
from collections.abc import Iterator
from typing import Any, cast

from brainfed.core.slice_stack import Slice
from brainfed.formats.cells import MAX_AGE_YEARS

MAX_TEXT = 200


class Groups:
    """Reads elements of a classic file and, by the same names, of an enhanced one's groups."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), None)
        self._frames = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())

    def number(self, *keywords: str) -> float | None:
        """The first that is there, in the header or in a group that holds for all frames."""
        frame = self._frames[0] if self._frames else None
        for keyword in keywords:
            for element in self._elements(keyword, frame):
                value = _number(element)
                if value is not None:
                    return value
        return None

    def slices(self) -> Iterator[Slice]:
        """Where each slice lies; none where one of them doesn't say."""
        found = []
        for frame in self._frames or [None]:
            parts = [
                next(iter(self._elements(keyword, frame)), None)
                for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
            ]
            numbers = [_numbers(part) for part in parts]
            if [len(part) for part in numbers] != [3, 6, 2] or min(numbers[2]) <= 0:
                return
            found.append(Slice(*cast("tuple[Any, Any, Any]", tuple(numbers))))
        yield from found

    def _elements(self, keyword: str, frame: Any) -> Iterator[Any]:
        value = self._dataset.get(keyword)
        if value is not None:
            yield value
        for group in (frame, self._shared):
            for element in group or ():
                for item in element.value if element.VR == "SQ" else ():
                    if item.get(keyword) is not None:
                        yield item.get(keyword)


def text(dataset: Any, keyword: str) -> str:
    """One line that can be printed, at most 200 characters; backslashes part several values."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    raw = value if isinstance(value, str) else "\\".join(map(str, _listed(value)))
    if not raw.isprintable():
        raw = "".join(c if c.isprintable() else " " for c in raw)
    return " ".join(raw.split())[:MAX_TEXT]


def texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    """The values of an element with several."""
    return tuple(part.strip() for part in text(dataset, keyword).split("\\") if part.strip())


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | int | float) else list(value)


def _number(value: Any) -> float | None:
    numbers = _numbers(value)
    return numbers[0] if numbers else None


def _numbers(value: Any) -> tuple[float, ...]:
    """Numbers of an element; none where one of them is none, or not finite."""
    try:
        numbers = tuple(float(part) for part in _listed(value))
    except (TypeError, ValueError):
        return ()
    return numbers if all(abs(number) < 1e9 for number in numbers) else ()


def integer(dataset: Any, keyword: str) -> int | None:
    """A whole number."""
    number = _number(dataset.get(keyword))
    return None if number is None else int(number)


def agent(dataset: Any) -> str:
    """The agent of a classic file; of an enhanced one, of its sequence, by its code's meaning."""
    for item in dataset.get("ContrastBolusAgentSequence") or ():
        return text(item, "CodeMeaning") or text(item, "CodeValue") or "given"
    return text(dataset, "ContrastBolusAgent")


def started(dataset: Any) -> str:
    """Date and time of the acquisition, else of the series, as text that sorts."""
    both = text(dataset, "AcquisitionDateTime")
    moments = [(both[:8], both[8:].split("+")[0].split("-")[0])]
    days = [text(dataset, name) for name in ("AcquisitionDate", "SeriesDate", "StudyDate")]
    first = next((day for day in days if date(day)), "")
    moments += [(first, text(dataset, name)) for name in ("AcquisitionTime", "SeriesTime")]
    for day, time in moments:
        whole, _, fraction = time.replace(":", "").partition(".")
        if date(day) and len(whole) >= 4 and (whole + fraction).isdigit():
            return f"{day}{whole:0<6}.{fraction:0<6}"
    return ""


def date(words: str) -> dates.date | None:
    """The day of a text that begins with `YYYYMMDD`."""
    try:
        return dates.datetime.strptime(words[:8], "%Y%m%d").replace(tzinfo=dates.UTC).date()
    except ValueError:
        return None


def age_years(dataset: Any, day: str) -> int | None:
    """Whole years by PatientAge, else from birth to the study; none that nobody reaches.

    De-identification likes to leave a birth in 1900.
    """
    age = text(dataset, "PatientAge").upper()
    years = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}.get(age[-1:])
    born, then = date(text(dataset, "PatientBirthDate")), date(day)
    found = None
    if years is not None and age[:-1].isdigit() and int(age[:-1]) > 0:
        found = int(int(age[:-1]) * years)
    elif born is not None and then is not None and born <= then:
        found = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    return found if found is None or found <= MAX_AGE_YEARS else None
