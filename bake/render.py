"""Text files of our own from ``templates/``. jinja2's only door."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

# Beside this package both in a checkout and when installed.
_TEMPLATES = Path(__file__).parent.parent / "templates"

# No escaping: what is rendered are units and configuration, and a value in a report goes through ``|e``.
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_TEMPLATES),
    undefined=StrictUndefined,
    autoescape=False,  # noqa: S701
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: object) -> bytes:
    """A file of ``templates/`` filled in. A value that is missing raises: never an empty gap in a unit."""
    return _ENVIRONMENT.get_template(template).render(**values).encode()
