"""The scenarios as data: complete, playable, and each with what the specification says."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.conformance.application import TRIALS, ListeningClient, trials_for
from ws_lifecycle_metrics.conformance.client import Client
from ws_lifecycle_metrics.conformance.reference import Actor
from ws_lifecycle_metrics.conformance.rules import HANGS, WIRE_RULES
from ws_lifecycle_metrics.conformance.scenarios import SCENARIOS
from ws_lifecycle_metrics.protocol import RULES

SILENT_PEERS = {
    # What a known protocol checker for ASGI says nothing about, and who is to blame here.
    "double close": "app.close-twice",
    "second disconnect": "server.duplicate-disconnect",
    "message before accept": "server.receive-before-accept",
    "disconnect without connect": "server.first-event-not-connect",
    "close code": "app.close-code-invalid",
    "long reason": "app.close-reason-invalid",
    "unoffered subprotocol": "app.subprotocol-not-offered",
    "denial without the extension": "app.denial-unsupported",
    "denial without a body": "app.denial-incomplete",
    "unknown event": "app.unknown-event",
    "return without accept": "app.return-before-handshake",
    "return without close": "app.return-without-close",
    "exception": "app.exception",
    "concurrent receive": "app.receive-concurrent",
    "receive after disconnect": "app.receive-after-disconnect",
    "stuck in send": "server.send-never-returns",
    "stuck in receive": "server.disconnect-not-delivered",
    "stuck in the application": "app.never-ends",
}


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


def test_rules_of_the_wire_are_told_apart_from_the_protocols():
    assert not set(WIRE_RULES) & set(RULES)
    assert set(WIRE_RULES) >= HANGS
    for id, rule in WIRE_RULES.items():
        assert id == rule.id
        assert id.startswith(f"{rule.party}.")
        assert rule.meaning
        assert rule.hint


@pytest.mark.parametrize("id", SILENT_PEERS.values(), ids=SILENT_PEERS)
def test_what_others_are_silent_on_has_a_rule_and_a_party(id):
    assert id in RULES or id in WIRE_RULES
