"""A picture with controls: it is drawn again whenever one of them moves."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from IPython.display import display
from IPython.utils.capture import RichOutput, capture_output


def explorer(draw: Callable[..., None], **controls: Any) -> None:
    """Show widgets in a row, and under them what `draw` shows for their values.

    draw      called with the value of every control, by name; shows figures, tables or text
    controls  ipywidgets, by the name of the argument that they set

    Without a running kernel (on GitHub, in an export) a sentence stands in its place.
    """
    box = controlled(draw, **controls)
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    text = f"Controls for {', '.join(controls)} appear here when the cell is run."
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": text}, raw=True)


def controlled(draw: Callable[..., None], **controls: Any) -> Any:
    """The widget that `explorer` displays: a row of controls, and an HTML widget under it."""
    from ipywidgets import HTML, HBox, VBox  # the package works without it

    # Not ipywidgets' Output: nbclient may wait for ever where one is filled (jupyter/nbclient#312).
    shown = HTML()

    def redraw(_: Any = None) -> None:
        values = {name: control.value for name, control in controls.items()}
        with capture_output() as captured:
            try:
                draw(**values)
            except Exception as error:  # a learner's function may raise anything; a widget hides it
                print(f"{type(error).__name__}: {error}")
        parts = [_html(output) for output in captured.outputs]
        text = captured.stdout.strip()
        shown.value = "".join([*parts, f"<pre>{escape(text)}</pre>" if text else ""])

    for name, control in controls.items():
        control.description = control.description or name
        control.style.description_width = "initial"  # or long names end in dots
        control.observe(redraw, "value")
    redraw()
    # Without wrapping, sliders shrink to dots.
    row = HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
    return VBox([row, shown])


def _html(output: RichOutput) -> str:
    """A figure, table or text as HTML."""
    if "image/png" in output.data:
        alt = output.data.get("text/plain", "")
        return f'<img src="data:image/png;base64,{output.data["image/png"]}" alt="{escape(alt)}">'
    plain = f"<pre>{escape(output.data.get('text/plain', ''))}</pre>"
    return output.data.get("text/html", plain)
