"""The checks of transparency are worth what they catch: each mutant must fail one of them."""

from __future__ import annotations

import pytest
from hypothesis import Phase, find, settings
from hypothesis.errors import NoSuchExample

from tests.middleware.mutants import MUTANTS, Mutant
from tests.middleware.scripts import NAMED, SCRIPTS
from tests.middleware.transparency import Script, differences

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_some_named_script_catches(mutant: type[Mutant]) -> None:
    assert any(differences(mutant, script) for script in NAMED.values())


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_random_scripts_catch(mutant: type[Mutant]) -> None:
    bounded = settings(
        max_examples=2_000, deadline=None, derandomize=True, database=None, phases=[Phase.generate]
    )
    try:
        find(SCRIPTS, lambda script: bool(differences(mutant, script)), settings=bounded)
    except NoSuchExample:
        pytest.fail("2,000 random scripts see no difference")


@pytest.mark.parametrize("script", NAMED.values(), ids=NAMED)
def test_no_script_blames_the_innocent(script: Script) -> None:
    assert differences(Mutant, script) == []
