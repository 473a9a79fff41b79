"""The table is total, and its states are what other processes may rely on."""

from __future__ import annotations

import copy
import pickle
from collections import defaultdict

import pytest

from ws_lifecycle_metrics.protocol import (
    INITIAL,
    LEGAL,
    OPEN,
    RULES,
    STATES,
    AppState,
    Event,
    ServerState,
    State,
)


def test_every_cell_is_claimed_once_by_a_move_or_by_a_rule() -> None:
    claimants = defaultdict(list)
    for name, claims in [("legal", LEGAL), *((rule.id, rule.claims) for rule in RULES.values())]:
        for claim in claims:
            for state, _ in claim.cells():
                claimants[state.app, state.server, claim.event].append(name)
    cells = [(state.app, state.server, event) for state in STATES for event in Event]
    assert {cell: claimants[cell] for cell in cells if len(claimants[cell]) != 1} == {}
    assert len(claimants) == len(cells) == 20 * 14


def test_every_claim_claims_something() -> None:
    claims = [*LEGAL, *(claim for rule in RULES.values() for claim in rule.claims)]
    assert [claim for claim in claims if not list(claim.cells())] == []


def test_no_move_leaves_an_end() -> None:
    claims = [*LEGAL, *(claim for rule in RULES.values() for claim in rule.claims)]
    moves = [move for claim in claims for move in claim.cells()]
    finished = {AppState.REJECTED, AppState.CLOSED}
    assert [m for m in moves if m[0].app in finished and m[1].app is not m[0].app] == []
    disconnected = ServerState.DISCONNECTED
    assert [m for m in moves if disconnected is m[0].server is not m[1].server] == []


def test_codes_are_stable() -> None:
    assert [(s.code, f"{s.app} {s.server}") for s in STATES] == [
        (0, "unanswered new"),
        (1, "unanswered connected"),
        (2, "unanswered lost"),
        (3, "unanswered disconnected"),
        (4, "accepted new"),
        (5, "accepted connected"),
        (6, "accepted lost"),
        (7, "accepted disconnected"),
        (8, "denying new"),
        (9, "denying connected"),
        (10, "denying lost"),
        (11, "denying disconnected"),
        (12, "rejected new"),
        (13, "rejected connected"),
        (14, "rejected lost"),
        (15, "rejected disconnected"),
        (16, "closed new"),
        (17, "closed connected"),
        (18, "closed lost"),
        (19, "closed disconnected"),
    ]


def test_labels() -> None:
    labels = {
        label: {s.code for s in STATES if s.label == label} for label in ("connecting", "open")
    }
    assert labels == {"connecting": {0, 1, 8, 9}, "open": {4, 5}}
    assert {s.label for s in STATES if s.code not in {0, 1, 8, 9, 4, 5}} == {"closing"}


def test_named_states() -> None:
    assert State.at(AppState.UNANSWERED, ServerState.NEW) is INITIAL
    assert State.at(AppState.ACCEPTED, ServerState.CONNECTED) is OPEN


@pytest.mark.parametrize("state", STATES, ids=lambda state: f"{state.app} {state.server}")
def test_a_copy_is_the_same_state(state: State) -> None:
    assert State.from_code(state.code) is state
    assert pickle.loads(pickle.dumps(state)) is copy.deepcopy(state) is state


@pytest.mark.parametrize("code", [-1, 20])
def test_a_code_never_given_out_is_refused(code: int) -> None:
    with pytest.raises(IndexError):
        State.from_code(code)
