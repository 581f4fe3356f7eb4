"""docker-compose.yml as Docker Compose itself understands it; no engine is needed for that."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "router", "worker-pool", "context", "consensus", "evolution", "billing")
DEPENDENCIES = ("nats", "postgres", "qdrant", "jaeger")


def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    spec = importlib.util.find_spec("compose")
    program = Path(spec.origin).parent / "docker-compose"
    # An environment of its own: the developer's .env and variables must not decide.
    environment = {"PATH": "/nowhere", "HOME": "/nowhere"}
    command = [
        program,
        "--env-file",
        "/dev/null",
        "--project-directory",
        ROOT,
        "-f",
        ROOT / "docker-compose.yml",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.fixture(scope="module")
def project() -> dict:
    return json.loads(compose("config", "--format", "json").stdout)


def test_it_is_valid_without_any_setting_and_without_a_warning() -> None:
    done = compose("config", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_part_is_there(project: dict) -> None:
    assert set(project["services"]) == {*SERVICES, *DEPENDENCIES, "migrate"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_after_the_migrations_and_tells_when_it_is_ready(project: dict, name: str) -> None:
    service = project["services"][name]
    assert service["command"][:2] == ["serve", name]
    assert service["command"][-2:] == ["--admin-port", "9100"]
    assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert "127.0.0.1:9100/health/ready" in service["healthcheck"]["test"][-1]
    assert service["environment"]["COLLEGIUM_NATS__URL"].endswith("@nats:4222")
    assert service["environment"]["COLLEGIUM_DATABASE__URL"].endswith("@postgres:5432/collegium")


def test_migrations_wait_for_broker_and_database(project: dict) -> None:
    waits = project["services"]["migrate"]["depends_on"]
    assert {name: wait["condition"] for name, wait in waits.items()} == {
        "nats": "service_healthy",
        "postgres": "service_healthy",
    }


def test_nothing_is_published_beyond_this_machine(project: dict) -> None:
    published = [port for service in project["services"].values() for port in service.get("ports", [])]
    assert published
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_every_mounted_file_exists(project: dict) -> None:
    mounts = [mount for service in project["services"].values() for mount in service.get("volumes", [])]
    files = {Path(mount["source"]) for mount in mounts if mount["type"] == "bind"}
    assert files
    assert [file for file in files if not file.is_file()] == []


def test_the_configuration_names_only_variables_that_services_are_given(project: dict) -> None:
    text = (ROOT / "deploy/compose/collegium.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) <= set(project["services"]["gateway"]["environment"])
    assert yaml.safe_load(text)["tenants"][0]["id"] == "dev"


def test_the_broker_understands_its_configuration() -> None:
    from collegium_servers.nats import binary_path

    environment = {"COLLEGIUM_NATS_PASSWORD": "secret"}
    command = [binary_path(), "-t", "-c", ROOT / "deploy/compose/nats.conf"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_image_does_not_run_as_root_and_installs_by_hash() -> None:
    text = (ROOT / "deploy/docker/Dockerfile").read_text()
    installs = re.findall(r"pip install ([^&\n]*)", text)
    assert installs
    assert all("--require-hashes" in line for line in installs)
    last_stage = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last_stage, re.MULTILINE)
    copied = {path for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for path in line.split()[:-1]}
    assert [path for path in copied if not (ROOT / path).exists()] == []
