"""The HTML templates of this package."""

from collections.abc import Callable
from importlib import resources
from typing import Any

import jinja2


def template(name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """Loads a template, which escapes values and fails on unknown names.

    Args:
        name: name of its file.
        filters: its filters, by name.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(filters)
    return environment.from_string(source(name))


def source(name: str) -> str:
    """Reads a template or script as text."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")
