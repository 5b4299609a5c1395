"""The manifests are Kubernetes objects by its published schemas, hardened, and say only what our commands understand."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from pdp.config import check_doors, configure
from sidecar.config import parse_address
from tests.support.deploy import DEPLOY, accepted, containers, objects, pod

FILES = sorted(path.name for path in (DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS = [pytest.param(item, id=f"{name}-{item['kind']}") for name in FILES for item in objects(name)]
PODS = [case for case in OBJECTS if pod(case.values[0]) is not None]
OURS = "registry.example/portcullis:"


def of_kind(name: str, kind: str) -> dict[str, Any]:
    (found,) = [item for item in objects(name) if item["kind"] == kind]
    return found


@pytest.mark.parametrize("item", OBJECTS)
def test_every_object_follows_the_published_schema(item: dict[str, Any]) -> None:
    if item["apiVersion"].startswith("serving.kserve.io/"):
        item = {"apiVersion": "v1", "kind": "Pod", "metadata": item["metadata"], "spec": pod(item)}
    kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def test_a_misspelled_field_would_be_noticed() -> None:
    item = of_kind("pdp.yaml", "StatefulSet")
    item["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("item", PODS)
def test_no_container_is_root_or_may_become_it(item: dict[str, Any]) -> None:
    spec = pod(item)
    assert spec is not None
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in containers(item):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("item", PODS)
def test_every_command_line_of_ours_is_one_that_our_commands_read(item: dict[str, Any]) -> None:
    ours = [container for container in containers(item) if container["image"].startswith(OURS)]
    assert ours
    for container in ours:
        assert accepted([*container["command"], *container.get("args", ())])


@pytest.mark.parametrize("item", PODS)
def test_every_file_that_a_container_names_is_mounted(item: dict[str, Any]) -> None:
    spec = pod(item)
    assert spec is not None
    made = {volume["name"] for volume in spec["volumes"]}
    made |= {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", ())}
    for container in containers(item):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) <= made
        for word in [*container.get("command", ()), *container.get("args", ())]:
            path = word.partition("=")[2] if word.startswith("--") else word
            assert not path.startswith("/") or any(path.startswith(place) for place in mounts), word


def test_the_configuration_of_the_pdp_is_one_and_its_files_are_mounted() -> None:
    config = configure(yaml.safe_load(of_kind("pdp.yaml", "ConfigMap")["data"]["pdp.yaml"]))
    check_doors(config)
    assert config.mode == "production"
    assert config.grpc.tls is not None
    (served,) = of_kind("pdp.yaml", "StatefulSet")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in served["ports"]}
    assert ports == {"grpc": config.grpc.listen.port, "probes": config.probes.listen.port}
    places = [mount["mountPath"] for mount in served["volumeMounts"]]
    files = [config.trust, config.state_dir, config.grpc.tls.cert, config.grpc.tls.key]
    files += [file for file in (config.store.password_file, config.store.ca) if file is not None]
    assert len(files) == 6
    assert [file for file in files if not any(str(file).startswith(place) for place in places)] == []


def test_a_pdp_that_stops_has_longer_than_its_grace() -> None:
    config = configure(yaml.safe_load(of_kind("pdp.yaml", "ConfigMap")["data"]["pdp.yaml"]))
    spec = of_kind("pdp.yaml", "StatefulSet")["spec"]
    assert spec["replicas"] == 2
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > config.grace_s


def test_the_model_is_reached_through_the_gate_alone() -> None:
    gate = of_kind("gate.yaml", "InferenceService")
    line = next([*each["command"], *each["args"]] for each in containers(gate) if each["name"] == "gate")
    told = accepted(line)
    listens = parse_address(told["listen"], option="--listen").port
    probes = parse_address(told["probes"], option="--probes").port
    policy = of_kind("gate.yaml", "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"] == gate["spec"]["predictor"]["labels"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == {listens, probes}
    assert {port["targetPort"] for port in of_kind("gate.yaml", "Service")["spec"]["ports"]} == {listens}
    first = next(containers(gate))  # KServe points its own Service at the first port of this one
    assert first["name"] == "kserve-container"
    assert [port["containerPort"] for port in first["ports"]] == [listens]
    assert told["upstream"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("item", OBJECTS)
def test_no_manifest_carries_a_secret(item: dict[str, Any]) -> None:
    assert item["kind"] != "Secret"
    assert all("env" not in container for container in containers(item))
