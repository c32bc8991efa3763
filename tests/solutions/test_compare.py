"""What counts as the same output, and as the same code but for its names."""

from __future__ import annotations

import base64
import io

import av
import numpy as np
import pytest
from compare import NOISE, TOLERANCE, compare
from nbformat.v4 import new_code_cell, new_output
from PIL import Image, ImageDraw
from renaming import changed_code


def printing(*pieces: str, stream: str = "stdout", tags: tuple = ()):
    outputs = [new_output("stream", name=stream, text=piece) for piece in pieces]
    return new_code_cell(
        "1", outputs=outputs, execution_count=7, metadata={"tags": list(tags)} if tags else {}
    )


def showing(**data):
    return new_code_cell("1", outputs=[new_output("display_data", data=data)], execution_count=7)


def differences(old, new) -> list[str]:
    return compare([old], [new]).differences


@pytest.mark.parametrize(
    "text",
    ["6.8 s a run", "in 138 ms", "0.6 minutes", "1 hour", "this run: 5 seconds", "44 clips/s from files", "208 GFLOP/s",
     "{'store': '8,827 clips per second'}", "25.0 per second", "1,466 clips per second", "at most 0.5 GB of memory",
     "71 GB free", "· 59 s gone"],
)  # fmt: skip
def test_what_the_clock_or_the_computer_decides_is_left_out(text):
    other = "".join("7" if letter.isdigit() else letter for letter in text)
    assert other != text
    assert differences(printing(f"loss 0.25, {text}\n"), printing(f"loss 0.25, {other}\n")) == []
    assert differences(printing(f"loss 0.25, {text}\n"), printing(f"loss 0.35, {other}\n")) != []


@pytest.mark.parametrize(
    "text",
    ["160 steps", "1.0 times the cost", "33.8 G", "0.05 GB", "831 kB", "97.6 %", "5.8 FLOPs a byte", "10 labels per class",
     "64 samples", "4 x 4", "2 sizes", "12 minutely"],
)  # fmt: skip
def test_other_numbers_are_compared(text):
    other = "".join("7" if letter.isdigit() else letter for letter in text)
    assert len(differences(printing(text), printing(other))) == 1


def test_numbers_agree_within_a_tolerance_and_whole_ones_exactly():
    def same(a, b):
        return differences(printing(f"is {a}, so"), printing(f"is {b}, so")) == []

    assert same(100.0, 100.0 * (1 + 0.9 * TOLERANCE))
    assert not same(100.0, 100.0 * (1 + 1.1 * TOLERANCE))
    assert same("1e-07", f"{0.9 * NOISE:.1e}")
    assert not same("3.0e-06", "4.5e-06")
    assert same("+0.0", "-0.0")
    assert not same("0.3", "-0.3")
    assert not same("86,567,656", "86,567,657")
    assert same("86,567,656.0", "86,567,657.0")
    assert not same("0.5", "nan")
    found = compare([printing("loss 0.5")], [printing("loss 0.5001")])
    assert found.number == pytest.approx(2e-4, rel=1e-2)


def test_the_first_line_that_differs_is_shown_with_both_versions():
    old = printing("a  b\nloss   0.5\nloss 0.6")
    assert differences(old, printing("a b\nloss 0.50\nloss 0.6")) == []
    assert differences(old, printing("a b\nlosses 0.5\nloss 0.7")) == [
        "cell [7], stdout: the first line that differs\n    - loss 0.5\n    + losses 0.5"
    ]
    assert differences(old, printing("a b\nloss 0.5"))[0].endswith("    - loss 0.6\n    + ")


def test_streams_are_joined_and_progress_is_left_out():
    assert differences(printing("the same:", " True\n"), printing("the same: True\n")) == []
    bar = printing(
        "\r render:  50%|###  | 40/80 [00:01<00:01]", "\r 100%|#| 80/80 \n", stream="stderr"
    )
    assert differences(printing(), bar) == []
    done = showing(**{"text/html": "<progress value='2' max='2'></progress> 2 of 2, 3 s"})
    assert differences(printing(), done) == []
    warned = printing("Warning: no\n", stream="stderr")
    assert differences(printing(), warned) == [
        "cell [7], shows other kinds of output\n    - nothing\n    + stderr"
    ]


def test_a_cell_tagged_timing_must_only_show_the_same_kinds():
    tagged = printing("plain 2.47 slower\n", tags=("timing",))
    assert differences(printing("plain 3.91 faster\n"), tagged) == []
    assert len(differences(printing(), tagged)) == 1


def test_a_table_is_compared_by_its_words_row_by_row():
    def table(value):
        page = f"<table><caption>Errors</caption><tr><th>film&#x27;s</th></tr><tr><td>{value}</td></tr></table>"
        return showing(**{"text/html": page, "text/plain": f"film's\n{value}"})

    assert differences(table(0.25), table(0.2500001)) == []
    assert differences(table(0.25), table(0.26)) == [
        "cell [7], text: the first line that differs by 3.8e-02\n    - 0.25\n    + 0.26"
    ]


def dot(x: float, size: int = 400) -> Image.Image:
    """A figure of two hundred thousand pixels, of which a dot is forty."""
    image = Image.new("RGBA", (size, 500), (255, 255, 255, 0))
    ImageDraw.Draw(image).ellipse((x, 100, x + 7, 107), fill=(20, 60, 200, 255))
    return image


def figure(image: Image.Image):
    file = io.BytesIO()
    image.save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    return showing(**{"image/png": png, "text/plain": "A dot."})


def test_pictures_are_compared_by_blocks():
    assert differences(figure(dot(100)), figure(dot(100))) == []
    moved = compare([figure(dot(100))], [figure(dot(110))])
    assert moved.shade > 50
    assert np.abs(np.asarray(dot(100)).astype(int) - np.asarray(dot(110))).mean() < 0.1, (
        "a mean hides it"
    )
    assert "picture: a block of 8x8 pixels differs by" in moved.differences[0]
    noise = np.random.default_rng(0).integers(-1, 2, (500, 400, 4))
    noisy = np.clip(np.asarray(dot(100)).astype(int) + noise, 0, 255).astype(np.uint8)
    found = compare([figure(dot(100))], [figure(Image.fromarray(noisy))])
    assert found.differences == []
    assert differences(figure(dot(100)), figure(dot(100, size=410))) == [
        "cell [7], picture: other sizes\n    - 400x500\n    + 410x500"
    ]


def player(shade: int, frames: int = 3, quality: str = "20"):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": quality})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for step in range(frames):
            image = Image.new("RGB", (32, 32), (shade + 20 * step,) * 3)
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    video = base64.b64encode(file.getvalue()).decode()
    return showing(
        **{"text/html": f'<video aria-label="Grey." src="data:video/mp4;base64,{video}"></video>'}
    )


def test_videos_are_compared_by_their_frames():
    assert player(50) != player(50, quality="1")
    assert differences(player(50), player(50, quality="1")) == []
    assert "video: a block" in differences(player(50), player(90))[0]
    assert "video: other sizes" in differences(player(50), player(50, frames=4))[0]


def code(*sources: str):
    return [new_code_cell(source, execution_count=n) for n, source in enumerate(sources, 2)]


@pytest.mark.parametrize(
    "old, new",
    [
        ("import a\nx = a.f(1)", "from a.b import g\n\ny = g(1)"),
        ("import a.b\na.b.f(1)(2).c", "from a import b as d\nd.f(1)(2).e"),
        ("f(width=3)[0].shape", "g(embed_dim=3)[0].size"),
        (
            "def f(x, *, y=1):\n    'Twice.'\n    return x",
            "def g(z, *, w=1):\n    return z  # once",
        ),
        ("for i in x: del i", "for j in y: del j"),
        ("class A(B):\n    c: int = 3", "class D(E):\n    'F.'\n    g: float = 3"),
        ("def f():\n    global a, b\n    import c", "def f():\n    global d, e"),
        ("match x:\n    case A(b=1): pass", "match y:\n    case C(d=1): pass"),
        ("%time f()", "%time f()"),
    ],
)
def test_other_names_are_the_same_code(old, new):
    assert changed_code(code(old), code(new)) == []


@pytest.mark.parametrize(
    "old, new",
    [
        ("x = 1", "x = 2"),
        ("print('a')", "print('b')"),
        ("print(f'{x} a')", "print(f'{x} b')"),
        ("f(x, y)", "f(x)"),
        ("f(width=3)", "f(3)"),
        ("f(width=3)", "f(**width)"),
        ("x + y", "x - y"),
        ("x.y", "x['y']"),
        ("x.y.z", "x.y"),
        ("x; y", "x"),
        ("if x: y()", "while x: y()"),
        ("'x'\nf()", "f()"),
        ("%time f()", "%time g()"),
    ],
)
def test_anything_else_is_other_code(old, new):
    assert changed_code(code("same", old), code("same", new)) == [
        "more than names changed in the code of [3]"
    ]


def test_an_import_may_move_to_another_cell():
    assert (
        changed_code(code("import a\nx = 1", "a.f()"), code("y = 1", "from a import f\nf()")) == []
    )
