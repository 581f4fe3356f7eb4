"""The layout of processes, the broker's users, and what the supervisor shares with what it does not import."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import msgspec
import pytest
from collegium_cli.up import supervisor
from collegium_cli.up.command import ready_line, with_ports
from collegium_cli.up.credentials import OPERATOR, broker_users, make_credentials
from collegium_cli.up.layout import free_port, groups, left_out
from collegium_cli.up.schema import all_migrations, pools
from collegium_contracts.journey import SERVICES
from collegium_contracts.permissions import permissions
from collegium_runtime import host
from collegium_runtime.runtime_file import Runtime
from collegium_settings import Settings, load
from collegium_settings.settings import GrpcSettings, HttpSettings


def test_every_service_runs_in_exactly_one_process_and_the_gateway_last() -> None:
    found = groups(None)
    assert sorted(service for group in found for service in group.services) == sorted(SERVICES)
    assert found[-1].services == ("gateway",)


def test_every_service_has_an_admin_port_of_its_own() -> None:
    ports = [port for group in groups(None) for port in group.admin_ports.values()]
    assert len(ports) == len(SERVICES)


def test_only_leaves_out_processes_without_a_wanted_service() -> None:
    assert [group.services for group in groups(["context", "billing"])] == [("billing", "context")]


def test_a_gateway_is_told_what_it_hears_from_and_others_nothing() -> None:
    assert left_out(groups(["gateway"])) == ["billing", "router"]
    assert left_out(groups(["gateway", "router"])) == ["billing"]
    assert left_out(groups(["router", "context"])) == []
    assert left_out(groups(None)) == []


def test_only_names_what_is_no_service() -> None:
    with pytest.raises(KeyError, match="routr"):
        groups(["billing", "routr"])


def test_seeds_are_readable_by_their_owner_alone_and_made_once(tmp_path: Path) -> None:
    files = make_credentials(tmp_path / "credentials")
    before = {user: path.read_bytes() for user, path in files.items()}
    assert set(before) == {*SERVICES, OPERATOR}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert len(set(before.values())) == len(before)
    make_credentials(tmp_path / "credentials")
    assert {user: path.read_bytes() for user, path in files.items()} == before


def test_the_broker_is_given_public_keys_with_the_journeys_rights(tmp_path: Path) -> None:
    files = make_credentials(tmp_path)
    operator, *services = broker_users(files)
    assert operator.publish == operator.subscribe == (">",)
    for service, user in zip(SERVICES, services, strict=True):
        assert user.publish == permissions(service).publish
        assert user.subscribe == permissions(service).subscribe
        assert user.deny_publish == permissions(service).deny_publish
        assert user.nkey.startswith("U")
        assert user.nkey != files[service].read_text()


def test_a_free_port_is_given_once_and_a_server_can_listen_on_it() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", ports[0]))
    with socket.create_server(("127.0.0.1", ports[0])) as server, socket.create_connection(server.getsockname()[:2]):
        pass


def test_port_zero_becomes_a_free_port_and_others_stay() -> None:
    settings = Settings(http=HttpSettings(port=0), grpc=GrpcSettings(port=8701))
    resolved = with_ports(settings)
    assert resolved.http.port > 0
    assert resolved.grpc.port == 8701


def test_pools_are_those_of_the_models_and_general(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("models: [{name: m, base_url: 'http://127.0.0.1:1/v1', rank: ta, pool: gpu, price: {}}]\n")
    assert pools(load(config, {})) == ["general", "gpu"]


def test_migrations_have_a_schema_each() -> None:
    schemas = [one.schema for one in all_migrations()]
    assert len(schemas) == len(set(schemas))
    assert {"archive", "billing", "context", "evolution", "gateway"} <= set(schemas)


def test_the_ready_line_is_one_line_of_the_contract() -> None:
    runtime = Runtime(
        http="http://127.0.0.1:1", grpc="127.0.0.1:2", nats="n", database="d", admin_key_file="k", pids={"nats": 5}
    )
    shown = msgspec.json.decode(ready_line(runtime, 1.234, as_json=True))
    del shown["seconds"]
    assert shown == {
        "ready": True,
        "http": "http://127.0.0.1:1",
        "grpc": "127.0.0.1:2",
        "nats": "n",
        "database": "d",
        "admin_key_file": "k",
        "pids": {"nats": 5},
    }
    assert "\n" not in ready_line(runtime, 1.234, as_json=False)


def test_the_supervisor_names_instances_as_the_host_reads_them() -> None:
    assert supervisor.INSTANCE_VARIABLE == host.INSTANCE_VARIABLE
