"""The web configuration file: what is accepted, and what is said of the rest."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.exporter.certificates import Site
from ws_lifecycle_metrics.config import ConfigError, ExporterConfig
from ws_lifecycle_metrics.exporter.server import Exporter
from ws_lifecycle_metrics.exporter.web_config import CLIENTS, MOST_BYTES, load

if TYPE_CHECKING:
    from collections.abc import Callable

HASH = "$2y$10$" + "a" * 53


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    for text in ("", "# nothing\n", "{}", "tls_server_config:\nbasic_auth_users:\n"):
        path.write_text(text)
        web = load(path)
        assert web.tls is None
        assert not web.users
        assert not web.headers
        assert web.files == (path,)


def test_everything_at_once(site: Site) -> None:
    path = site.write(
        {
            "client_auth_type": "RequireAndVerifyClientCert",
            "client_ca_file": str(site.folder / "ca.pem"),
            "client_allowed_sans": ["prometheus.test", "10.0.0.1"],
            "min_version": "TLS13",
            "max_version": "TLS13",
        },
        http_server_config={"http2": False, "headers": {"X-Frame-Options": "deny"}},
        basic_auth_users={"alice": HASH, "a b é": HASH.replace("2y", "2x")},
    )
    web = load(Path(path))
    assert web.tls is not None
    assert web.tls.verify_mode is ssl.CERT_REQUIRED
    assert web.tls.minimum_version is ssl.TLSVersion.TLSv1_3
    assert web.client_allowed_sans == {"prometheus.test", "10.0.0.1"}
    assert set(web.users) == {"alice", "a b é"}
    assert web.headers == {"X-Frame-Options": "deny"}
    names = ("web.yml", "cert.pem", "key.pem", "ca.pem")
    assert web.files == tuple(site.folder / name for name in names)


def test_defaults_of_tls(site: Site) -> None:
    web = load(Path(site.write()))
    assert web.tls is not None
    assert web.tls.verify_mode is ssl.CERT_NONE
    assert web.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    assert web.tls.maximum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[", "it is no YAML"),
        ("a: b: c", "it is no YAML: .* in line 1"),
        ("a\n\0", "it is no YAML"),
        ("a: !!python/object:os.system {}", "it is no YAML: ConstructorError in line 1"),
        ("a: 1\nb: 2\na: 3", "it is no YAML: a key stands twice in line 3"),
        ("basic_auth_users: {a: x, a: y}", "it is no YAML: a key stands twice in line 1"),
        ("basic_auth_users: !!bool foo", "it is no YAML: KeyError"),
        ("x: !!timestamp foo", "it is no YAML: AttributeError"),
        ("x: !!int ''", "it is no YAML: IndexError"),
        ("? [a, b]\n: c", "it is no YAML: ConstructorError in line 1"),
        ("basic_auth_users: {alice: !hunter2 x}", "it is no YAML: ConstructorError in line 1"),
        ("basic_auth_users: {alice: *hunter2}", "it is no YAML: ComposerError in line 1"),
        ("basic_auth_users: {alice: !!bool hunter2}", "it is no YAML: KeyError"),
        ("a: 2001-99-99", "it is no YAML: ValueError"),
        ("[" * 5000, "it is no YAML: RecursionError"),
        ("7", "the file: accepted are the keys tls_server_config, http_server_config"),
        ("- a", "the file: accepted are the keys"),
        ("tls_config: {}", "'tls_config' is not known; accepted are tls_server_config"),
        ('"a\\eb": 1', r"'a\\x1bb' is not known"),
        ("rate_limit: {burst: 3}", "'rate_limit' is not known"),
        ("tls_server_config: [cert]", "tls_server_config: accepted are the keys cert_file"),
        ("tls_server_config: {}", "both cert_file and key_file are needed"),
        ("tls_server_config: {cert: inline}", "'cert' is not known; accepted are cert_file"),
        ("basic_auth_users: [alice]", "basic_auth_users: accepted are names"),
        ("basic_auth_users: {7: x}", "'7' is no name"),
        ('basic_auth_users: {"": x}', "'' is no name"),
        ('basic_auth_users: {"a:b": x}', "'a:b' is no name"),
        ('basic_auth_users: {"a\\eb": x}', r"basic_auth_users.a\\x1bb: accepted is a bcrypt hash"),
        ("basic_auth_users: {alice: hunter2}", "basic_auth_users.alice: accepted is a bcrypt hash"),
        ("basic_auth_users: {alice: 7}", "basic_auth_users.alice: accepted is a bcrypt hash"),
        (f"basic_auth_users: {{a: {HASH[:-1]}}}", "basic_auth_users.a: accepted is a bcrypt"),
        (f"basic_auth_users: {{a: {HASH.replace('$10', '$99')}}}", "basic_auth_users.a: accepted"),
        (f"basic_auth_users: {{a: {HASH.replace('2y', '2')}}}", "basic_auth_users.a: accepted"),
        ("http_server_config: {http2: maybe}", "http_server_config.http2: accepted are true"),
        ("http_server_config: {headers: {X-Frame-Options: foo}}", "accepted are deny, sameorigin"),
        ("http_server_config: {headers: {X-Content-Type-Options: a}}", "accepted are nosniff"),
        ("http_server_config: {headers: {X-XSS-Protection: é}}", "accepted is printable ASCII"),
        ("http_server_config: {http3: true}", "'http3' is not known; accepted are http2, headers"),
        ("http_server_config: {headers: {Server: x}}", "'Server' is not known; accepted are Con"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nb"}}', "accepted is printable"),
        ("http_server_config: {headers: {X-Frame-Options: 7}}", "accepted is printable ASCII"),
    ],
)
def test_what_is_not_accepted_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "web.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named) as caught:
        load(path)
    assert str(caught.value).startswith(f"web_config_file={str(path)!r}: ")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("tls", "named"),
    [
        ({"cert_file": None}, "both cert_file and key_file"),
        ({"key_file": None}, "both cert_file and key_file"),
        ({"cert_file": 7}, "cert_file: accepted is the name of a file"),
        ({"cert_file": ""}, "accepted is a regular file"),
        ({"cert_file": "a\0b"}, "cert_file: accepted is the name of a file"),
        ({"key_file": "missing.pem"}, "missing.pem: No such file or directory"),
        ({"key_file": "."}, "accepted is a regular file"),
        ({"key_file": "pipe"}, "pipe: accepted is a regular file"),
        ({"key_file": "a\ud800"}, "key_file: accepted is the name of a file"),
        ({"cert_file": "web.yml"}, "key_file: (it is not in PEM format|NO_START_LINE)"),
        ({"key_file": "other.pem"}, "cert_file and key_file: KEY_VALUES_MISMATCH"),
        ({"key_file": "locked.pem"}, "cert_file and key_file: .*encrypted"),
        ({"min_version": "TLS10"}, "min_version: accepted are TLS12, TLS13"),
        ({"min_version": ["TLS12"]}, "min_version: accepted are TLS12, TLS13"),
        ({"max_version": 1.3}, "max_version: accepted are TLS12, TLS13"),
        ({"min_version": "TLS13", "max_version": "TLS12"}, "min_version: it is above max_version"),
        ({"client_auth_type": "RequestClientCert"}, f"accepted are {', '.join(CLIENTS)}"),
        ({"client_auth_type": "RequireAndVerifyClientCert"}, "client_ca_file is needed where"),
        ({"client_ca_file": "ca.pem"}, "client_ca_file is needed where"),
        (
            {"client_auth_type": "VerifyClientCertIfGiven", "client_ca_file": "web.yml"},
            "client_ca_file: ",
        ),
        ({"client_allowed_sans": ["a"]}, "client_allowed_sans: accepted with client_auth_type"),
        (
            {
                "client_allowed_sans": ["a"],
                "client_auth_type": "VerifyClientCertIfGiven",
                "client_ca_file": "ca.pem",
            },
            "client_allowed_sans: accepted with client_auth_type",
        ),
        ({"client_allowed_sans": "a"}, "client_allowed_sans: accepted is a list of names"),
        ({"client_allowed_sans": [7]}, "client_allowed_sans: accepted is a list of names"),
        ({"cipher_suites": []}, "'cipher_suites' is not known"),
    ],
)
def test_tls_that_is_not_accepted_is_named(site: Site, tls: dict[str, Any], named: str) -> None:
    other = site.authority.issue_cert("localhost").private_key_pem.bytes()
    (site.folder / "other.pem").write_bytes(other)
    os.mkfifo(site.folder / "pipe")
    locked = serialization.load_pem_private_key(other, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (site.folder / "locked.pem").write_bytes(locked)
    with pytest.raises(ConfigError, match=named):
        load(Path(site.write(tls)))


def too_large(path: Path) -> None:
    path.write_text("#" * (MOST_BYTES + 1))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _path: None, "No such file or directory"),
        (Path.mkdir, "accepted is a regular file"),
        (os.mkfifo, "accepted is a regular file"),
        (too_large, f"accepted are {MOST_BYTES} bytes"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    path = tmp_path / "web.yml"
    make(path)
    with pytest.raises(ConfigError, match=why):
        Exporter(ExporterConfig(directory=str(tmp_path), web_config_file=str(path)))


@pytest.mark.parametrize(
    ("missing", "said"),
    [("yaml", "web_config_file needs PyYAML"), ("bcrypt", "basic_auth_users need bcrypt")],
)
def test_without_the_extra_it_says_what_to_install(site: Site, missing: str, said: str) -> None:
    path = site.write({}, basic_auth_users={"alice": HASH})
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['serve', '--port', '0', "
        f"'--web-config-file', {path!r}]; from ws_lifecycle_metrics.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"Error: {said}: pip install 'ws-lifecycle-metrics[web]'\n"
