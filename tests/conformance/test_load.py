"""What is taken for an application, and what for something that makes one."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.conformance.load import load, unfit


def takes_none():
    """Make an application, as a factory does."""


def takes_all(*_arguments):
    """Be called with whatever there is."""


def may_take_three(scope=None, receive=None, send=None):
    """Be an application, or tried by hand without arguments."""


def takes_three(scope, receive, send):
    """Be an application."""


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (takes_none, "it takes no arguments, so it may make the application: add --factory"),
        (5, "it is not callable"),
        (takes_all, None),
        (may_take_three, None),
        (takes_three, None),
        (min, None),  # nobody can tell
    ],
    ids=["factory", "number", "any arguments", "defaults", "application", "built-in"],
)
def test_what_cannot_be_served_is_told(found, why):
    assert unfit(found) == why


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("examples.uvicorn.app", "serve"),
        ("examples.uvicorn.app:serve", "serve"),
        ("tests.conformance.apps:make_echo", "make_echo"),
        ("tests.conformance.apps:make_echo()", "echo"),
        ("tests.conformance.apps:make_echo.__class__", "function"),
    ],
    ids=["'app' by default", "attribute", "factory", "called", "dotted"],
)
def test_a_target_is_found(target, name):
    found = load(target)
    assert getattr(found, "app", found).__name__ == name
