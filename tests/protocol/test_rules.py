"""The rules are complete, well formed, and their ids are a promise."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.protocol import RULES, Party, Rule, Severity, rules

PROMISED = {
    Severity.ERROR: """
        app.send-before-accept app.accept-twice app.accept-after-close app.send-after-close
        app.unknown-event app.malformed-event
        app.send-no-payload app.send-both-payloads app.send-wrong-type
        app.close-code-invalid app.close-reason-invalid
        app.subprotocol-not-offered app.accept-headers-invalid
        app.denial-unsupported app.denial-out-of-order app.denial-invalid app.denial-incomplete
        app.return-before-handshake app.exception
        server.first-event-not-connect server.duplicate-connect server.receive-before-accept
        server.event-after-disconnect server.unknown-event server.malformed-event
        server.receive-no-payload server.receive-both-payloads server.receive-wrong-type
        server.accept-failed server.send-failed server.close-failed
    """,
    Severity.WARNING: """
        app.close-twice app.send-after-disconnect app.return-without-close
        app.receive-after-disconnect app.receive-concurrent app.receive-pending-at-return
        server.disconnect-code-missing server.disconnect-code-invalid server.scope-invalid
    """,
    Severity.INFO: """
        app.accept-before-connect app.close-after-disconnect app.close-with-receive-pending
        server.duplicate-disconnect server.send-raised-non-oserror
    """,
}


@pytest.mark.parametrize("severity", Severity)
def test_ids_and_severities_are_stable(severity: Severity) -> None:
    ids = {rule.id for rule in RULES.values() if rule.severity is severity}
    assert ids == set(PROMISED[severity].split())


def test_no_id_is_given_twice() -> None:
    assert len(RULES) == len(rules._APP_RULES) + len(rules._SERVER_RULES)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_a_rule_says_who_what_where_and_what_to_do(rule: Rule) -> None:
    assert RULES[rule.id] is rule
    assert rule.id.startswith(f"{rule.party}.")
    assert rule.party in set(Party)
    for text in (rule.meaning, rule.spec, rule.hint):
        assert text == " ".join(text.split()) != ""
        assert not text.endswith(".")
    assert rule.spec.startswith(("ASGI", "RFC 6455 "))
    assert ": " in rule.spec


def test_the_mapping_is_read_only() -> None:
    with pytest.raises(TypeError):
        RULES["app.new"] = RULES["app.exception"]  # type: ignore[index]  # that is the test
