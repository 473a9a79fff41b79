"""The scenarios as data: complete, playable, and each with what the specification says."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.conformance.application import ListeningClient
from ws_lifecycle_metrics.conformance.client import Client
from ws_lifecycle_metrics.conformance.reference import Actor
from ws_lifecycle_metrics.conformance.rules import HANGS, WIRE_RULES
from ws_lifecycle_metrics.conformance.scenarios import SCENARIOS
from ws_lifecycle_metrics.conformance.trials import TRIALS, trials_for
from ws_lifecycle_metrics.protocol import RULES


def test_there_are_at_least_sixty():
    assert len(SCENARIOS) >= 60


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_scenario_is_complete(scenario):
    assert scenario.title
    assert "ASGI" in scenario.spec or "RFC" in scenario.spec
    assert 0 < scenario.settle < scenario.timeout <= 60
    assert all(hasattr(Actor, f"do_{step.verb}") for step in scenario.app)
    assert all(hasattr(Client, f"do_{step.verb}") for step in scenario.client)


@pytest.mark.parametrize("subprotocol", ["", "graphql-transport-ws", "graphql-ws"])
def test_trials_can_be_played(subprotocol):
    trials = trials_for(subprotocol)
    assert len(trials) == len({trial.id for trial in trials})
    assert (len(trials) > len(TRIALS)) == bool(subprotocol)
    for trial in trials:
        assert all(hasattr(ListeningClient, f"do_{step.verb}") for step in trial.client)
        assert "the client the" not in trial.sentence


def test_rules_of_the_wire_are_told_apart_from_the_protocols():
    assert not set(WIRE_RULES) & set(RULES)
    assert set(WIRE_RULES) >= HANGS
    for id, rule in WIRE_RULES.items():
        assert id == rule.id
        assert id.startswith(f"{rule.party}.")
        assert rule.meaning
        assert rule.hint
