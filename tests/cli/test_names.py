"""Options of several values."""

from __future__ import annotations

import pytest
from click import BadParameter

from hambench.cli.names import Names, Numbers


def test_each_is_taken_once_in_the_order_of_the_first() -> None:
    assert Names().convert("b, a,b", None, None) == ["b", "a"]
    assert Numbers().convert("9,3, 9,03", None, None) == [9, 3]


@pytest.mark.parametrize("word", ["a,,b", "", ","])
def test_empty_names(word: str) -> None:
    with pytest.raises(BadParameter, match="has an empty name"):
        Names().convert(word, None, None)
