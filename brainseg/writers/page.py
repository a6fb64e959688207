"""One self-contained HTML page: template, style and script in, text out, under the report's security policy."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg.writers.overlay import NOTICE, figure_png
from brainseg.writers.report import content_policy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rendered(template: str, **values: Any) -> str:
    """The page of a `template` beside this file; what it is given is escaped."""
    import jinja2

    folder = Path(__file__).parent
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined
    )
    policy = content_policy(style, script)
    return environment.get_template(template).render(policy=policy, style=style, script=script, notice=NOTICE, **values)


def embedded(figure: Figure, dpi: float) -> str:
    """A figure as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(figure_png(figure, dpi)).decode('ascii')}"
