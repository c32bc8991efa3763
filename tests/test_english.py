"""The text of the whole repository keeps clear of phrases that no native speaker would write.

Only unmistakable ones are listed: those that are wrong in any context.
"""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

from vmae import ROOT

#: By pattern: what to write instead.
PHRASES = {
    r"\bis no number\b": "is NaN (or infinite)",
    r"\b(labels?|rows?|dots?|seeds?|clips?|videos?|views?|frames?|sub-folders?|shards?|lines?|dim)"
    r" a (class|clip|second|video|seed|step|batch|field|lesson|GPU|token)\b": "per",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bby heart\b": "overfitting, memorising",
    r"\bin silence\b": "silently",
    r"\bwithout a word\b": "silently",
    r"\bcannot be told\b": "inconclusive",
    r"\bthe way back\b": "the backward pass",
    r"\b(run|training) goes on\b": "resumes, continues",
    r"\bgo(es)? on with\b": "resume, continue",
    r"\bcarr(y|ies) news\b": "exchange information",
    r"\bwith the sign turned\b": "negated",
    r"\bthe same to the letter\b": "identical",
    r"\bis asked for\b": "is queried, is requested",
    r"\btuned otherwise\b": "trained with other settings",
}


def texts(path: Path) -> list[tuple[int, str]]:
    """Comments and strings of a module, or the lines of a document, with their line numbers."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return list(enumerate(source.splitlines(), 1))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    kinds = (tokenize.COMMENT, tokenize.STRING)
    return [(token.start[0], token.string) for token in tokens if token.type in kinds]


FILES = [
    *(ROOT / "vmae").rglob("*.py"),
    *(ROOT / "vmae").rglob("*.md"),
    *(ROOT / "vmae").rglob("*.yaml"),
    ROOT / "CONTRIBUTING.md",
    ROOT / "README.md",
    ROOT / "data" / "README.md",
    ROOT / "TEACHING.md",
    *(ROOT / "solutions").glob("*.py"),
    *(path for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name),
    *(ROOT / "tests").rglob("*.md"),
]


def oddities(path: Path) -> list[str]:
    """What to rewrite, with line numbers; a sentence may run over several lines of a string."""
    return [
        f"line {line}: {match[0]!r}; write {better!r}"
        for line, text in texts(path)
        for phrase, better in PHRASES.items()
        for match in re.finditer(phrase, " ".join(text.split()), re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_phrase_that_no_native_speaker_would_write(path):
    assert not oddities(path), "\n".join(oddities(path))


def test_an_odd_phrase_would_be_found(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text('#: ten clips a second\nx = """The loss is\n    no number."""\n')
    assert [line.split(";")[0] for line in oddities(path)] == [
        "line 1: 'clips a second'",
        "line 2: 'is no number'",
    ]
