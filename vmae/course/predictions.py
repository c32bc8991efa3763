"""Predict, then run: a learner's guess, set beside the measurement. Nothing is judged wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """A guess, or None where the learner made none.

    options  the answers to choose from; None: a number
    """

    question: str
    guess: float | str | None
    options: tuple[str, ...] | None = None

    def compare(self, measured: float | str, close: float = 0.1, unit: str = "") -> None:
        """Print the guess beside what was measured.

        close  relative error up to which a number counts as close
        unit   printed behind both numbers; between percentages, an error is stated in points
        """
        print(f"{self.question}: measured {_text(measured, unit)}", end="")
        if self.guess is None:
            print("; you made no prediction")
        elif isinstance(measured, str) or isinstance(self.guess, str):
            right = "as you predicted" if self.guess == measured else f"you said {self.guess}"
            print(f"; {right}")
        else:
            error = abs(self.guess - measured)
            share = error / max(abs(measured), 1e-12)
            if share <= close:
                verdict = "close"
            elif unit in ("%", "points"):  # a percentage of a percentage would be misread
                verdict = f"off by {error:.3g} points"
            else:
                verdict = f"off by {100 * share:.0f} %"
            print(f"; you predicted {_text(self.guess, unit)}: {verdict}")


def predict(
    question: str, guess: float | str | None, options: tuple[str, ...] | None = None
) -> Prediction:
    """Note a guess before the cell that measures it.

    guess    a number, one of `options`, or None for no guess
    options  the answers to choose from

    A guess that is neither is named, and counts as none: a prediction never blocks.
    """
    if guess is None:
        print("No prediction yet: write it in place of None, then run the next cell.")
    elif options is not None and guess not in options:
        print(f"{guess!r} is not an option: choose one of {', '.join(map(repr, options))}.")
        guess = None
    elif options is None and (isinstance(guess, bool) or not isinstance(guess, int | float)):
        print(f"{guess!r} is not a number: write one, such as 1.5.")
        guess = None
    else:
        print("Noted. Run the next cell.")
    return Prediction(question, guess, options)


def _text(value: float | str, unit: str) -> str:
    number = value if isinstance(value, str) else f"{value:.4g}"
    return f"{number} {unit}".rstrip()
