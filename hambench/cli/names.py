"""Options that take several names or numbers."""

from __future__ import annotations

import click


class Names(click.ParamType):
    """Names separated by commas: ``h_mae,psi`` -> ``["h_mae", "psi"]``."""

    name = "text"

    def convert(
        self, value: str | list[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        """The names; a usage error where one is empty."""
        if isinstance(value, list):
            return value
        names = [name.strip() for name in value.split(",")]
        if "" in names:
            self.fail(f"'{value}' has an empty name; separate names by one comma each.", param, ctx)
        return names


class Counts(click.ParamType):
    """Positive whole numbers separated by commas: ``360,1560`` -> ``[360, 1560]``."""

    name = "integers"

    def convert(
        self, value: str | list[int], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """The numbers; a usage error where one is none, or zero."""
        if isinstance(value, list):
            return value
        words = [word.strip() for word in value.split(",")]
        if not all(word.isdecimal() and int(word) for word in words):
            self.fail(f"'{value}' is no list of positive numbers, such as 10,20.", param, ctx)
        return [int(word) for word in words]
