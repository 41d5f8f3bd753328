"""Options that take several names."""

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
