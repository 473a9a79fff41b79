"""Rules and alerts: valid, tested on both sides, explained, and routed."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from grafana.mixin.alerts import ALERTS
from grafana.mixin.config import CONFIG
from tests.rules.mixin import GRAFANA, ROOT, RULE_TESTS, alerts, recorded, run

TESTS = sorted(RULE_TESTS.glob("*.yml"))
LONG_TESTS = sorted((RULE_TESTS.parent / "long").glob("*.yml"))
NAMES = sorted({rule["alert"] for rule in alerts()})


def test_promtool_finds_nothing():
    files = sorted(str(path) for path in (GRAFANA / "alerts").glob("*.yml"))
    checked = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *files)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "files", [TESTS, pytest.param(LONG_TESTS, marks=pytest.mark.slow)], ids=["all", "for hours"]
)
def test_each_alert_fires_and_is_silent_where_it_should(files):
    with ThreadPoolExecutor(2) as threads:  # promtool works on one file after the other
        done = list(threads.map(lambda path: run("promtool", "test", "rules", str(path)), files))
    assert [one.stdout + one.stderr for one in done if one.returncode] == []
    assert sum(one.stdout.count("SUCCESS") for one in done) == len(files)


def test_alerts_and_their_tests_are_pairs():
    assert [path.stem for path in TESTS] == NAMES
    assert len(NAMES) == len(ALERTS) == 15


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_both_sides_of_the_threshold_are_tested(path):
    checks = [
        check
        for test in yaml.safe_load(path.read_text())["tests"]
        for check in test["alert_rule_test"]
    ]
    assert {check["alertname"] for check in checks} == {path.stem}
    assert any(not check["exp_alerts"] for check in checks), "no test says that it is silent"
    fired = [alert for check in checks for alert in check["exp_alerts"]]
    shipped = {r["labels"]["severity"] for r in alerts() if r["alert"] == path.stem}
    assert {alert["exp_labels"]["severity"] for alert in fired} == shipped


@pytest.mark.parametrize("rule", alerts(), ids=lambda r: f"{r['alert']}-{r['labels']['severity']}")
def test_an_alert_has_all_that_people_need(rule):
    assert re.fullmatch(r"WebSocket([A-Z][a-z]+)+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert "{{" not in notes["summary"]
    assert "{{" in notes["description"]
    assert notes["runbook_url"] == CONFIG.runbook(rule["alert"])


def test_descriptions_name_labels_that_the_expression_keeps():
    for rule in alerts():
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
        kept |= set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", _inlined(rule)))))
        kept |= {"job", "instance"} if "by (" not in _inlined(rule) else set()
        kept |= {"instance"} if "asgi_workers_reporting" in rule["expr"] else set()
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"]))
        assert named <= kept | {"job"}, rule["alert"]


def _inlined(rule) -> str:
    return " ".join(expr for name, expr in recorded().items() if name in rule["expr"])


def test_every_alert_has_its_entry_in_the_runbook_and_the_reverse():
    text = (GRAFANA / "runbook.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.M)[1:]
    assert sorted(section.split("\n", 1)[0] for section in sections) == NAMES
    for section in sections:
        for part in ("**Meaning.**", "**Impact.**", "**Type first**", "**Causes**", "**Fix**"):
            assert part in section, section[:40]
        commands = section.split("```sh\n")[1].split("\n```")[0].splitlines()
        assert len(commands) == 3, section[:40]


def test_commands_of_the_runbook_exist():
    from ws_lifecycle_metrics.cli import cli

    for alert in ALERTS:
        for command in alert.runbook.commands:
            if command.startswith("ws-lifecycle-metrics "):
                assert command.split()[1] in cli.commands, command
            if "10464/" in command:
                page = re.search(r"10464/(\w+)", command).group(1)
                assert page in ("metrics", "healthz", "readyz", "connections")


def test_amtool_finds_nothing():
    checked = run("amtool", "check-config", str(GRAFANA / "alertmanager.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "pager"), ("warning", "chat"), ("info", "log")]
)
def test_alerts_reach_who_should_get_them(severity, receiver):
    name = next(r["alert"] for r in alerts() if r["labels"]["severity"] == severity)
    labels = (f"alertname={name}", f"severity={severity}")
    config = f"--config.file={GRAFANA / 'alertmanager.yml'}"
    checked = run("amtool", "config", "routes", "test", config, *labels)
    assert checked.stdout.strip() == receiver, checked.stderr


def test_windows_line_ends_do_no_harm(tmp_path):
    some = (RULE_TESTS / "WebSocketWorkerStuck.yml", RULE_TESTS / "WebSocketWorkerDied.yml")
    for path in (*(GRAFANA / "alerts").glob("*.yml"), *some):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    tests = sorted(str(path) for path in (tmp_path / RULE_TESTS.relative_to(ROOT)).iterdir())
    checked = run("promtool", "test", "rules", *tests)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_broken_threshold_is_noticed(tmp_path):
    shutil.copytree(GRAFANA / "alerts", tmp_path / "grafana/alerts")
    folder = tmp_path / RULE_TESTS.relative_to(ROOT)
    shutil.copytree(RULE_TESTS, folder)
    rules = tmp_path / "grafana/alerts/alerts.yml"
    rules.write_text(rules.read_text().replace("for: 30s", "for: 15s"))
    checked = run("promtool", "test", "rules", str(folder / "WebSocketWorkerStuck.yml"))
    assert checked.returncode != 0
