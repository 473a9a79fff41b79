"""Examples of deployments: valid, and agreed with each other and with the sidecar's options."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml

from tests.rules.mixin import ROOT, run
from ws_lifecycle_metrics import Config
from ws_lifecycle_metrics.cli import cli
from ws_lifecycle_metrics.conformance import doctor

EXAMPLES = ROOT / "examples"
KUBERNETES = EXAMPLES / "kubernetes"
PROMETHEUS = sorted(EXAMPLES.glob("*/prometheus.yml"))
UNITS = sorted((EXAMPLES / "systemd").glob("*.service"))
PORT = 10464


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def containers() -> dict[str, dict]:
    spec = load(KUBERNETES / "deployment.yml")["spec"]["template"]["spec"]
    return {container["name"]: container for container in spec["containers"]}


def options_of(command: list[str]) -> set[str]:
    return {word for word in command if word.startswith("--")}


SERVE = {name for option in cli.commands["serve"].params for name in option.opts}


@pytest.mark.parametrize("path", PROMETHEUS, ids=lambda path: path.parent.name)
def test_promtool_accepts_the_configuration(path):
    checked = run("promtool", "check", "config", "--syntax-only", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def kubernetes_accepts(manifest: dict) -> None:
    """Raise ValueError unless the newest schema takes it, and knows each of its keys."""
    with warnings.catch_warnings():  # it imports a module that the next Python lacks
        warnings.simplefilter("ignore")
        import kubernetes_validate

    try:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        raise ValueError(str(error)) from error


def test_kubernetes_accepts_the_deployment():
    deployment = load(KUBERNETES / "deployment.yml")
    kubernetes_accepts(deployment)
    deployment["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(ValueError, match="volumeMount"):
        kubernetes_accepts(deployment)


def test_the_probe_to_uncomment_asks_the_sidecar_of_the_same_pod():
    text = (KUBERNETES / "deployment.yml").read_text()
    chosen = yaml.safe_load(re.sub(r"^( +)#(?=livenessProbe:|  )", r"\1", text, flags=re.MULTILINE))
    app = chosen["spec"]["template"]["spec"]["containers"][0]
    probe = app.pop("livenessProbe")
    assert probe["httpGet"] == {"path": "/healthz", "port": PORT}
    assert chosen == load(KUBERNETES / "deployment.yml")
    app["livenessProbe"] = probe
    kubernetes_accepts(chosen)


def test_the_pod_shares_what_the_sidecar_reads():
    spec = load(KUBERNETES / "deployment.yml")["spec"]["template"]["spec"]
    (volume,) = spec["volumes"]
    assert volume["emptyDir"]["medium"] == "Memory"
    assert spec["shareProcessNamespace"]
    assert spec["securityContext"]["runAsUser"]
    both = containers().values()
    assert all("runAsUser" not in container["securityContext"] for container in both)
    for name in ("WS_LIFECYCLE_SERVICE", "WS_LIFECYCLE_DIRECTORY"):
        values = {e["value"] for c in both for e in c["env"] if e["name"] == name}
        assert len(values) == 1
    (mount,) = {c["volumeMounts"][0]["mountPath"] for c in both}
    directory = next(e["value"] for c in both for e in c["env"] if e["name"].endswith("DIRECTORY"))
    assert directory.startswith(mount + "/")


def test_the_pod_monitor_finds_the_sidecar():
    monitor = load(KUBERNETES / "podmonitor.yml")
    deployment = load(KUBERNETES / "deployment.yml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert set(monitor["spec"]) == {"selector", "sampleLimit", "podMetricsEndpoints"}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (port,) = containers()["ws-lifecycle-metrics"]["ports"]
    assert (endpoint["port"], port["containerPort"]) == (port["name"], PORT)
    assert len(port["name"]) <= 15


def test_the_operator_gets_all_rules(tmp_path):
    rule = load(KUBERNETES / "prometheusrule.yml")
    assert rule["kind"] == "PrometheusRule"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    checked = run("promtool", "check", "rules", "--lint-fatal", str(tmp_path / "rules.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    files = sorted((ROOT / "grafana/alerts").glob("*.yml"), reverse=True)
    groups = [group for path in files for group in load(path)["groups"]]
    assert rule["spec"]["groups"] == groups


def test_commands_of_the_sidecar_have_options_that_exist():
    compose = load(EXAMPLES / "compose/compose.yml")["services"]["ws-lifecycle-metrics"]["command"]
    commands = [containers()["ws-lifecycle-metrics"]["command"], compose.split()]
    for command in commands:
        assert command[:2] == ["ws-lifecycle-metrics", "serve"]
        assert options_of(command) <= SERVE


def test_the_doctor_has_nothing_against_the_servers(monkeypatch):
    compose = load(EXAMPLES / "compose/compose.yml")["services"]["app"]["command"]
    found = [
        containers()["app"]["command"],
        compose.split(),
        unit(UNITS[0])["ExecStart"].rpartition("/")[2].split(),
    ]
    assert [command[0] for command in found] == ["granian"] * 3
    monkeypatch.setattr(doctor, "serving_processes", lambda: (("app", one) for one in found))
    assert not list(doctor._settings())


def test_compose_shares_what_the_sidecar_reads():
    compose = load(EXAMPLES / "compose/compose.yml")
    app, sidecar = (compose["services"][name] for name in ("app", "ws-lifecycle-metrics"))
    for key in ("user", "environment", "volumes"):
        assert app[key] == sidecar[key], key
    assert sidecar["pid"] == "service:app"
    assert set(compose["volumes"]) == {app["volumes"][0].partition(":")[0]}
    (scrape,) = load(EXAMPLES / "compose/prometheus.yml")["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == [f"ws-lifecycle-metrics:{PORT}"]
    assert scrape["sample_limit"]


def test_the_image_of_the_composition_has_all_that_its_commands_need(tmp_path):
    compose = load(EXAMPLES / "compose/compose.yml")
    app, sidecar = (compose["services"][name] for name in ("app", "ws-lifecycle-metrics"))
    assert (app["image"], app["build"]) == (sidecar["image"], sidecar["build"])
    context = (EXAMPLES / "compose" / app["build"]["context"]).resolve()
    lines = (context / app["build"]["dockerfile"]).read_text().splitlines()
    steps: dict[str, list[list[str]]] = {}
    for name, *words in (shlex.split(line, comments=True) for line in lines if line[:1] != "#"):
        steps.setdefault(name, []).append(words)
    for *sources, target in steps["COPY"]:
        for source in sources:
            inside = tmp_path / target.lstrip("/")
            copy = shutil.copytree if (context / source).is_dir() else shutil.copy
            inside.parent.mkdir(parents=True, exist_ok=True)
            if target.endswith("/"):
                inside.mkdir(exist_ok=True)
            copy(context / source, inside)
    project = tomllib.loads((tmp_path / "src/pyproject.toml").read_text())
    needed = [project["project"]["readme"], *project["project"]["license-files"]]
    needed += project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert all((tmp_path / "src" / name).exists() for name in needed)
    ((*_, installed),) = steps["RUN"]
    assert (
        installed.removeprefix("/src[").removesuffix("]")
        in project["project"]["optional-dependencies"]
    )
    assert steps["USER"] == [[app["user"]]]
    (workdir,) = steps["WORKDIR"][0]
    module, _, name = app["command"].split()[-1].partition(":")
    found = subprocess.run(
        [sys.executable, "-P", "-c", f"from {module} import {name}"],
        env={"PYTHONPATH": f"{tmp_path}{workdir}:{tmp_path}/src"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr


def unit(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {key: value for key, _, value in pairs if not key.startswith("#")}


def test_units_share_what_the_sidecar_reads():
    app, sidecar = map(unit, UNITS)
    for key in ("User", "Environment"):
        assert app[key] == sidecar[key], key
    assert f"/run/{app['RuntimeDirectory']}/" in app["Environment"]
    assert sidecar["Restart"] == "always"
    assert "PrivateIPC" not in sidecar


def uncommented(text: str) -> str:
    return re.sub(r"^#(?=[A-Z]\w+=)", "", text, flags=re.MULTILINE)


def test_the_watchdogs_part_restarts_the_application(tmp_path):
    path = tmp_path / UNITS[1].name
    path.write_text(uncommented(UNITS[1].read_text()))
    options = unit(path)
    assert options["Type"] == "notify"
    shell = shlex.split(options["ExecStopPost"].removeprefix("+"))
    (tmp_path / "systemctl").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "systemctl").chmod(0o755)
    said = {
        result: subprocess.run(
            shell,
            env={"PATH": str(tmp_path), "SERVICE_RESULT": result},
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
        for result in ("success", "watchdog")
    }
    assert said == {"success": "", "watchdog": f"--no-block try-restart {UNITS[0].name}\n"}


@pytest.mark.parametrize("choose", [str, uncommented], ids=["as they are", "with all options"])
def test_systemd_accepts_the_units(tmp_path, choose):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for path in UNITS:  # the programs are the user's: those of this machine stand in for them
        text = choose(path.read_text()).replace("/srv/chat/.venv/bin/", "/usr/bin/env ")
        (tmp_path / path.name).write_text(text)
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / p.name) for p in UNITS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in found.stderr.splitlines() if str(tmp_path) in line]
    assert not ours, found.stderr


def test_options_in_the_environment_exist():
    names = {f"WS_LIFECYCLE_{name.upper()}" for name in ("service", "directory")}
    assert names == {
        f"WS_LIFECYCLE_{n.upper()}" for n in ("service", "directory") if hasattr(Config, n)
    }
    for path in EXAMPLES.rglob("*.yml"):
        if path.parent.name in ("kubernetes", "compose"):
            used = {
                word
                for word in path.read_text().replace(",", " ").replace(":", " ").split()
                if word.startswith("WS_")
            }
            assert used <= names, path


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*/*.yml")), ids=lambda p: f"{p.parent.name}-{p.name}"
)
def test_windows_line_ends_do_no_harm(path):
    unix = path.read_bytes()
    assert yaml.safe_load(unix.replace(b"\n", b"\r\n")) == yaml.safe_load(unix)
