"""Label values are bounded and harmless, whatever a client sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_lifecycle_metrics.labels import MAX_LENGTH, OTHER, Cap, safe_end, safe_label

# Hypothesis' own text has no surrogates.
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)


@given(ANY_TEXT)
def test_a_safe_label_is_short_printable_and_stays_as_it_is(text):
    safe = safe_label(text)
    assert len(safe) <= MAX_LENGTH
    assert safe.encode().decode() == safe
    assert safe_label(safe) == safe
    assert not {c for c in safe if not c.isprintable() and not c.isspace()}
    assert not set("\n\r\t\v\f\x85\u2028\u2029") & set(safe)


@given(ANY_TEXT)
def test_a_safe_end_is_a_safe_label_that_marks_what_is_cut(text):
    safe = safe_end(text)
    assert safe_label(safe) == safe
    whole = "".join(safe_label(character) for character in text)
    kept = whole[1 - MAX_LENGTH :]
    assert safe == (whole if len(whole) <= MAX_LENGTH else f"…{kept}")


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=MAX_LENGTH))
def test_an_ordinary_label_is_its_own(text):
    assert safe_label(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("/chat/{room}", "/chat/{room}"),
        ("/größe/日本", "/größe/日本"),
        ('quo"te\\', 'quo"te\\'),
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\x00", "\\x00"),
        ("\u2028", "\\u2028"),
        ("x" * 200, "x" * 128),
        ("\n" * 200, "\\n" * 64),
    ],
)
def test_what_breaks_a_line_a_terminal_or_utf8_is_escaped(text, safe):
    assert safe_label(text) == safe


@pytest.mark.parametrize("value", [None, 7, b"bytes", ["list"], object()])
def test_what_is_no_text_is_other(value):
    assert safe_label(value) == OTHER


def test_a_cap_admits_the_first_and_counts_the_rest():
    folded: list[None] = []
    cap = Cap(2, on_overflow=lambda: folded.append(None))
    assert [cap.fold(name) for name in "abcacb"] == ["a", "b", OTHER, "a", OTHER, "b"]
    assert len(folded) == 2


def test_reserved_values_keep_their_place():
    cap = Cap(3, reserved=("kept", "too"))
    assert [cap.fold(name) for name in ("new", "newer", "kept", "too")] == [
        *("new", OTHER, "kept", "too"),
    ]


def test_more_reserved_values_than_the_limit_all_have_a_place():
    cap = Cap(1, reserved=("a", "b"))
    assert [cap.fold(name) for name in "abc"] == ["a", "b", OTHER]


def test_other_takes_no_place_and_is_no_overflow():
    cap = Cap(1, on_overflow=lambda: pytest.fail("counted"))
    assert [cap.fold(OTHER), cap.fold("a")] == [OTHER, "a"]


@given(st.integers(0, 5), st.lists(ANY_TEXT | st.none() | st.integers(), max_size=30))
def test_a_cap_gives_no_more_values_than_its_limit(limit, values):
    counted: list[None] = []
    cap = Cap(limit, on_overflow=lambda: counted.append(None))
    given_out = [cap.fold(value) for value in values]
    assert len(set(given_out) - {OTHER}) <= limit
    assert all(label in (OTHER, safe_label(v)) for label, v in zip(given_out, values, strict=True))
    assert len(counted) == sum(
        label == OTHER != safe_label(v) for label, v in zip(given_out, values, strict=True)
    )
