"""What is taken for an application, and what for something that makes one."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.conformance.load import unfit


def takes_none():
    """Make an application, as a factory does."""


def takes_all(*_arguments):
    """Be called with whatever there is."""


def takes_three(scope, receive, send):
    """Be an application."""


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (takes_none, "it takes no arguments, so it may make the application: add --factory"),
        (5, "it is not callable"),
        (takes_all, None),
        (takes_three, None),
        (min, None),  # nobody can tell
    ],
    ids=["factory", "number", "any arguments", "application", "built-in"],
)
def test_what_cannot_be_served_is_told(found, why):
    assert unfit(found) == why
