"""Application mode: correct applications are clean, faulty ones are blamed, silence included."""

from __future__ import annotations

import pytest

from ws_lifecycle_metrics.conformance.application import Approach
from ws_lifecycle_metrics.conformance.result import Report
from ws_lifecycle_metrics.conformance.run import Chosen, run_application
from ws_lifecycle_metrics.conformance.servers import BY_NAME, KINDS
from ws_lifecycle_metrics.conformance.trials import trials_for

QUICK = "uvicorn-websockets-sansio"
CORRECT = {
    "echo": ("tests.conformance.apps:echo", Approach()),
    "channels": ("examples.channels.app:app", Approach(path="/echo")),
    "strawberry": (
        "tests.conformance.apps:graphql",
        Approach(subprotocol="graphql-transport-ws"),
    ),
    "strawberry-legacy": ("tests.conformance.apps:graphql", Approach(subprotocol="graphql-ws")),
}
TRUE_FAULTS = {
    # What these servers do wrong to any application; docs/conformance.md has the scenarios.
    "granian": {"server.disconnect-not-delivered"},  # at SIGTERM
    "hypercorn": {"server.send-never-returns"},  # after an RST
    # Daphne: an empty close has no code, SIGTERM ends the process untold, close(1002) raises.
    "daphne": {
        "server.disconnect-code-missing",
        "server.disconnect-not-delivered",
        "server.close-failed",
    },
}
TRUE_FAULTS["runserver"] = TRUE_FAULTS["daphne"]
TRUE_FAULTS_OF_APPLICATIONS = {
    # JSON null or a list, and on Hypercorn a binary message, leave Strawberry as a TypeError.
    "strawberry": {"app.exception"},
    # The legacy protocol's handler also sends its `complete` to a client that has left.
    "strawberry-legacy": {"app.exception", "app.send-after-disconnect"},
}


def tried(target: str, approach: Approach, *ids: str, server: str = QUICK, query: str = ""):
    trials = [t for t in trials_for(approach.subprotocol, query) if not ids or t.id in ids]
    return run_application(
        Chosen(kind=BY_NAME[server], version="installed"), target, trials, approach
    )


STRAWBERRY = ("strawberry", "strawberry-legacy")


def found(run) -> set[str]:
    assert not run.failed
    assert run.results
    return {id for result in run.results for id in result.findings}


@pytest.mark.parametrize(
    "name",
    ["echo", "channels", *(pytest.param(n, marks=pytest.mark.slow) for n in STRAWBERRY)],
)
def test_a_correct_application_is_clean(name):
    target, approach = CORRECT[name]
    ids = ("open-and-close", "text-and-reset", "gql-query", "gql-no-init", "gql-init-twice")
    assert found(tried(target, approach, *ids)) == set()


@pytest.mark.matrix
@pytest.mark.parametrize("name", CORRECT)
@pytest.mark.parametrize("server", [kind.name for kind in KINDS])
def test_no_false_finding_on_any_server(name, server):
    target, approach = CORRECT[name]
    known = TRUE_FAULTS.get(server, set()) | TRUE_FAULTS_OF_APPLICATIONS.get(name, set())
    assert found(tried(target, approach, server=server)) <= known


OPERATING = ("gql-query", "gql-complete", "gql-reset")


@pytest.mark.slow
@pytest.mark.parametrize("subprotocol", ["graphql-transport-ws", "graphql-ws"])
@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("subscription { nope }", "Cannot query field 'nope' on type 'Subscription'; --query"),
        ("subscription {", "Syntax Error: Expected Name, found <EOF>; --query takes another one"),
    ],
    ids=["unknown-field", "syntax"],
)
def test_trials_of_a_refused_operation_could_not_run(subprotocol, query, why):
    approach = Approach(subprotocol=subprotocol)
    run = tried("tests.conformance.apps:graphql", approach, "gql-init", *OPERATING, query=query)
    by_id = {result.scenario: result for result in run.results}
    assert by_id.pop("gql-init").verdict == "conforms"
    assert {result.verdict for result in by_id.values()} == {"unclear"}
    for id in OPERATING:
        assert by_id[id].unclear.startswith("the operation was refused: ")
        assert why in by_id[id].unclear
    assert Report(target="x", servers=(run,)).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("subprotocol", ["graphql-transport-ws", "graphql-ws"])
@pytest.mark.parametrize(
    ("operation", "refused"),
    [("forbidden", True), ("half { there failing }", False), ("count(to: 0)", False)],
)
def test_a_result_with_errors_alone_is_a_refusal(subprotocol, operation, refused):
    approach = Approach(subprotocol=subprotocol)
    query = f"subscription {{ {operation} }}"
    run = tried("tests.conformance.apps:graphql", approach, "gql-query", query=query)
    why = "the operation was refused: not for you; --query takes another one"
    assert run.results[0].unclear == (why if refused else "")


@pytest.mark.slow
def test_an_operation_that_is_taken_is_tried():
    approach = Approach(subprotocol="graphql-transport-ws")
    query = "subscription { count }"
    run = tried("tests.conformance.apps:graphql", approach, *OPERATING, query=query)
    assert [result.verdict for result in run.results] == ["conforms"] * 3
    assert all(result.timeline for result in run.results)


@pytest.mark.parametrize("subprotocol", ["graphql-transport-ws", "graphql-ws"])
def test_the_message_of_a_refusal_is_bounded_and_printable(subprotocol):
    approach = Approach(subprotocol=subprotocol)
    (result,) = tried("tests.conformance.apps:refusing", approach, "gql-reset").results
    assert result.unclear.isprintable()
    assert "refused: \\x1b[2J\\nnoxxx" in result.unclear
    assert len(result.unclear) < 200


def test_a_given_header_stands_in_place_of_the_clients_own():
    approach = Approach(headers=(("host", "shop.example"), ("X-Shop", "1")))
    assert found(tried("tests.conformance.apps:for_one_host", approach, "text")) == set()


def test_an_exception_is_the_applications():
    run = tried("tests.conformance.apps:raising", Approach(), "text", "open-and-close")
    by_id = {result.scenario: result for result in run.results}
    assert by_id["open-and-close"].findings == ()
    assert by_id["text"].findings == ("app.exception",)
    lines = [line.text for line in by_id["text"].timeline]
    assert "raised error=ValueError" in lines
    assert not any("secret" in line for line in lines)  # no contents


def test_a_framework_raises_before_a_send_after_its_close_breaks_the_rule():
    raw = tried("tests.conformance.apps:late", Approach(), "open-and-close")
    assert "app.send-after-close" in found(raw)
    framework = tried("tests.conformance.apps:late_framework", Approach(), "open-and-close")
    assert found(framework) == {"app.exception"}


@pytest.mark.parametrize("id", ["sigterm", "reset-in-handshake"])
def test_where_nobody_is_taken_no_trial_is_clean(id):
    run = tried("tests.conformance.apps:rejecting", Approach(), id)
    assert run.failed == "/ was refused (403); is --path right?"
    assert Report(target="x", servers=(run,)).exit_code == 2


def test_a_trial_whose_handshake_is_refused_could_not_run():
    run = tried("tests.conformance.apps:once", Approach(), "open-and-close", "text", "at-once")
    unclear = {result.scenario: result.unclear for result in run.results}
    why = "the handshake was refused (403)"
    assert unclear == {"open-and-close": "", "text": why, "at-once": why}
    texts = [line.text for line in run.results[1].timeline if line.side == "client"]
    assert texts == ["request sent", "answer 403"]


def test_an_operation_needs_a_connection_before_it_can_be_refused():
    approach = Approach(subprotocol="graphql-ws")
    run = tried("tests.conformance.apps:once", approach, "gql-init", "gql-query")
    assert run.results[1].unclear == "the handshake was refused (403)"


def test_an_application_may_refuse_some_of_many():
    run = tried("tests.conformance.apps:one_at_a_time", Approach(), "at-once")
    assert found(run) == set()
    (result,) = run.results
    answers = {line.text for line in result.timeline if line.text.startswith("answer")}
    assert answers == {"answer 101", "answer 403"}
    assert result.verdict == "conforms"


@pytest.mark.slow
def test_an_application_that_answers_after_the_client_has_left_is_blamed(monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.conformance.application.ANSWER_SECONDS", 0.5)
    ids = ("open-and-close", "text")
    # This server takes an accept that nobody waits for any more.
    server = "uvicorn-websockets"
    run = tried("tests.conformance.apps:slow_later", Approach(), *ids, server=server)
    by_id = {result.scenario: result.findings for result in run.results}
    assert by_id == {"open-and-close": (), "text": ("app.handshake-unanswered",)}


@pytest.mark.slow
def test_an_application_that_does_not_end_is_blamed(monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.conformance.application.SETTLE", 1.0)
    run = tried("tests.conformance.apps:never_ending", Approach(), "open-and-close", "reset")
    assert found(run) == {"app.never-ends"}


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("rejecting", "/ was refused (403); is --path right?"),
        ("returning", "/ was refused (500); app.return-before-handshake: the application returned"),
        ("raising_at_once", "/ was refused (500); app.exception: an exception left the app"),
        pytest.param(
            "silent",
            "the application did not answer the handshake on / in time",
            marks=pytest.mark.slow,
        ),
        ("flooding", "the application floods: more than 2,000 messages in 0.4 s"),
        ("dying", "the server's process ended during 'open-and-close'"),
        pytest.param(
            "blocking", "after 'open-and-close' the server answers nobody", marks=pytest.mark.slow
        ),
    ],
)
def test_what_cannot_be_tried_is_said_in_one_line(target, why, monkeypatch):
    monkeypatch.setattr("ws_lifecycle_metrics.conformance.application.SETTLE", 0.5)
    monkeypatch.setattr("ws_lifecycle_metrics.conformance.application.ANSWER_SECONDS", 1.5)
    monkeypatch.setattr("ws_lifecycle_metrics.conformance.client.STEP_SECONDS", 1.5)
    run = tried(f"tests.conformance.apps:{target}", Approach(), "open-and-close")
    assert run.failed.startswith(why)
    assert "\n" not in run.failed


@pytest.mark.slow  # Daphne waits for 5 seconds
def test_a_server_that_waits_less_than_the_client_is_not_taken_for_a_wrong_path():
    target = "tests.conformance.apps:never_accepting"
    run = tried(target, Approach(), "open-and-close", server="daphne")
    assert run.failed == "the application did not answer the handshake on / in time"
