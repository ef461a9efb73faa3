import re

from brainfed.core.checklists import checklists


def numbers(index: int) -> list[str]:
    return [item.number for item in checklists()[index].items]


def test_claim_has_its_44_items_in_order() -> None:
    assert "CLAIM" in checklists()[0].title
    assert numbers(0) == [str(number) for number in range(1, 45)]


def test_tripod_ai_has_its_27_items_and_52_parts_in_order() -> None:
    assert "TRIPOD+AI" in checklists()[1].title
    found = numbers(1)
    assert len(found) == len(set(found)) == 52
    heads = [int(re.match(r"\d+", number)[0]) for number in found]
    assert heads == sorted(heads)
    assert set(heads) == set(range(1, 28))


def test_every_item_asks_for_something_in_few_words() -> None:
    for checklist in checklists():
        assert checklist.source
        for item in checklist.items:
            assert 0 < len(item.text) <= 60, item
