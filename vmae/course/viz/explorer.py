"""A figure with controls, redrawn whenever one of them changes."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from IPython.display import display
from IPython.utils.capture import RichOutput, capture_output


def explorer(draw: Callable[..., None], **controls: Any) -> None:
    """Show widgets in a row and, below them, the output of `draw` for their values.

    draw      called with the value of each control as a keyword argument; shows figures, tables, text
    controls  ipywidgets, by the name of the argument they set

    Without a running kernel (on GitHub, in an export), a sentence is shown instead.
    """
    box = controlled(draw, **controls)
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    text = f"Controls for {', '.join(controls)} appear here when the cell is run."
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": text}, raw=True)


def controlled(draw: Callable[..., None], **controls: Any) -> Any:
    """The widget that `explorer` displays: a row of controls above an HTML widget."""
    from ipywidgets import HTML, HBox, VBox  # optional dependency

    # Not ipywidgets' Output: nbclient may wait for one forever (jupyter/nbclient#312).
    shown = HTML()

    def redraw(_: Any = None) -> None:
        values = {name: control.value for name, control in controls.items()}
        with capture_output() as captured:
            try:
                draw(**values)
            except Exception as error:  # widgets swallow exceptions, so print them
                print(f"{type(error).__name__}: {error}")
        parts = [_html(output) for output in captured.outputs]
        text = captured.stdout.strip()
        shown.value = "".join([*parts, f"<pre>{escape(text)}</pre>" if text else ""])

    for name, control in controls.items():
        control.description = control.description or name
        control.style.description_width = "initial"  # otherwise long names are truncated
        control.observe(redraw, "value")
    redraw()
    # Without wrapping, sliders shrink to almost nothing.
    row = HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
    return VBox([row, shown])


def _html(output: RichOutput) -> str:
    """A figure, table or text as HTML."""
    if "image/png" in output.data:
        alt = escape(output.data.get("text/plain", ""))
        size = output.metadata.get("image/png", {})
        wide = f' width="{size["width"]}"' if "width" in size else ""
        return f'<img src="data:image/png;base64,{output.data["image/png"]}" alt="{alt}"{wide}>'
    plain = f"<pre>{escape(output.data.get('text/plain', ''))}</pre>"
    return output.data.get("text/html", plain)
