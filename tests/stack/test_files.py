"""Schemas and checkers of the tools accept the files, and the files fit together."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import shutil
import sys
import typing as t
import urllib.parse

import pytest
import yaml

from flask_qconsume.settings import TABLE

from ..pages import PAGES
from ..pages import commands_in
from ..servers.fixtures import refuse
from .files import COLLECTOR
from .files import COMPOSE
from .files import DASHBOARDS
from .files import DEPLOY
from .files import MANIFESTS
from .files import ROOT
from .files import RULES
from .files import list_alerts
from .files import list_dashboard_queries
from .files import list_panels
from .files import load
from .files import load_all
from .files import run

# All of them start a program, or need a package that only the environment "stack" has.
pytestmark = [pytest.mark.broker, pytest.mark.process]

#: Kinds of Kubernetes that others define, and the operator that does.
FROM_OPERATORS = {"PodMonitor", "ScaledObject", "Kustomization"}


@pytest.fixture
def promtool() -> str:
    return shutil.which("promtool") or refuse("promtool is not installed")


def need(module: str) -> t.Any:
    """Import a module that only the environment ``stack`` has."""
    try:
        return importlib.import_module(module)
    except ImportError:
        refuse(f"{module} is not installed")


@pytest.mark.parametrize(
    "path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda p: str(p.relative_to(DEPLOY))
)
def test_a_file_is_yaml_without_a_key_that_is_there_twice(path: pathlib.Path) -> None:
    for document in yaml.compose_all(path.read_text("utf-8"), yaml.SafeLoader):
        assert list_repeated_keys(document) == []


def list_repeated_keys(node: yaml.Node) -> list[str]:
    found = []
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        found = [name for name in names if names.count(name) > 1]
        for _, value in node.value:
            found += list_repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            found += list_repeated_keys(value)
    return found


# -- compose and image -----------------------------------------------------------------


def test_the_compose_file_fits_its_schema() -> None:
    need("check_jsonschema")
    name = "vendor.compose-spec"
    options = ("--builtin-schema", name, str(COMPOSE))
    run(sys.executable, "-m", "check_jsonschema", *options)


def test_the_schema_refuses_a_wrong_compose_file(tmp_path: pathlib.Path) -> None:
    need("check_jsonschema")
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text("utf-8").replace("volumes:", "volume:", 1))
    command = (sys.executable, "-m", "check_jsonschema", "--builtin-schema")
    with pytest.raises(AssertionError, match="volume"):
        run(*command, "vendor.compose-spec", str(wrong))


def test_every_image_has_a_version() -> None:
    images = [each["image"] for each in services().values() if "build" not in each]
    assert len(images) >= 8
    for image in images:
        assert re.search(r":v?\d+\.\d+", image), image


def test_what_a_service_mounts_or_waits_for_exists() -> None:
    compose = load(COMPOSE)
    for name, service in services().items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            known = source in compose["volumes"]
            assert known or (DEPLOY / source).exists(), f"{name}: {volume}"
        for other in service.get("depends_on", ()):
            assert other in services()


def test_only_this_machine_reaches_the_ports() -> None:
    ports = [port for each in services().values() for port in each.get("ports", ())]
    assert len(ports) >= 4
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_services_speak_to_services_that_exist() -> None:
    texts = [path.read_text("utf-8") for path in sorted(DEPLOY.rglob("*.yaml"))]
    in_compose = [text for text in texts if "kind:" not in text]
    hosts = set(re.findall(r"http://([a-z]+)[:/]", "\n".join(in_compose)))
    assert {"jaeger", "loki", "prometheus"} <= hosts
    assert hosts <= {*services()}


def test_the_settings_of_the_containers_exist() -> None:
    known = {f"FLASK_{setting.key}" for setting in TABLE}
    text = "\n".join(path.read_text("utf-8") for path in DEPLOY.rglob("*.yaml"))
    named = set(re.findall(r"FLASK_QCONSUME_\w+", text))
    assert "FLASK_QCONSUME_BROKER_URL" in named
    assert named - known == set()


def test_the_image_copies_files_that_exist_and_are_not_ignored() -> None:
    kept = re.findall(
        r"^!(\w[\w.]*)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.M
    )
    copied = re.findall(r"^COPY (?!--from)(\S+)", dockerfile(), re.M)
    assert len(copied) >= 3
    for path in {*copied, *kept} - {"."}:
        assert (ROOT / path).exists(), path
        assert path in kept or pathlib.PurePath(path).parts[0] in kept, path


def test_the_image_runs_as_another_user_than_root_below_an_init() -> None:
    final = dockerfile().rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d+$", final, re.M)
    assert re.search(r'^ENTRYPOINT \["tini", "--"\]$', final, re.M)
    assert "\n    && useradd" in final
    # "command" of Kubernetes would replace the entry point.
    for manifest in MANIFESTS:
        assert not re.search(r"^ +command: \[", manifest.read_text("utf-8"), re.M)


def test_the_image_installs_extras_that_exist() -> None:
    (extras,) = re.findall(r'pip install "\$\{PACKAGE\}\[([\w,]+)\]"', dockerfile())
    known = re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text("utf-8"), re.M)
    assert set(extras.split(",")) <= set(known)


def test_the_image_has_the_programs_that_are_run_in_it() -> None:
    """Flask comes with the package, gunicorn by its extra."""
    run = [each["command"][0] for each in services().values() if "build" in each]
    for path in MANIFESTS:
        for document in load_all(path):
            if document["kind"] == "Deployment":
                pod = document["spec"]["template"]["spec"]
                run += [container["args"][0] for container in pod["containers"]]
    assert len(run) == 4
    assert set(run) == {"flask", "gunicorn"}
    assert "[gunicorn," in dockerfile()


def test_the_shop_and_its_broker_agree_on_the_user() -> None:
    for name in ("web", "consumers"):
        found = services()[name]["environment"]["FLASK_QCONSUME_BROKER_URL"]
        url = urllib.parse.urlsplit(found.removeprefix("${BROKER_URL:-").rstrip("}"))
        assert url.hostname is not None
        broker = services()[url.hostname]
        assert broker["image"].startswith({"amqp": "rabbitmq:"}[url.scheme])
        assert broker["environment"]["RABBITMQ_DEFAULT_USER"] == url.username
        assert broker["environment"]["RABBITMQ_DEFAULT_PASS"] == url.password
        # Without this name RabbitMQ does not find its data again.
        assert broker["hostname"] == url.hostname


def services() -> dict[str, t.Any]:
    services: dict[str, t.Any] = load(COMPOSE)["services"]
    return services


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text("utf-8")


#: Keys of a configuration of Loki 3 that this test knows; there is no schema of it.
LOKI_KEYS = {
    "analytics": {"reporting_enabled"},
    "auth_enabled": set(),
    "common": {
        *("instance_addr", "path_prefix", "replication_factor", "ring", "storage"),
    },
    "compactor": {"delete_request_store", "retention_enabled", "working_directory"},
    "limits_config": {"retention_period"},
    "schema_config": {"configs"},
    "server": {"http_listen_port"},
}


def test_loki_has_keys_that_it_knows_and_the_port_that_is_asked() -> None:
    loki = load(DEPLOY / "loki.yaml")
    assert loki.keys() == LOKI_KEYS.keys()
    for key, found in loki.items():
        if isinstance(found, dict):
            assert found.keys() <= LOKI_KEYS[key]
    port = loki["server"]["http_listen_port"]
    assert f"http://loki:{port}" in COLLECTOR.read_text("utf-8")
    # Without one of these, Loki refuses to delete what is older than the retention.
    assert loki["compactor"]["delete_request_store"] == "filesystem"


# -- Kubernetes ------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_a_manifest_fits_its_schema(path: pathlib.Path) -> None:
    kubernetes_validate = need("kubernetes_validate")
    for document in load_all(path):
        if document["kind"] in FROM_OPERATORS:
            assert {"apiVersion", "kind"} <= document.keys()
        else:
            version = kubernetes_validate.latest_version()
            kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_refuses_a_wrong_manifest() -> None:
    kubernetes_validate = need("kubernetes_validate")
    (deployment, _) = load_all(DEPLOY / "kubernetes" / "consumers.yaml")
    deployment["spec"]["template"]["spec"]["graceSeconds"] = 45
    with pytest.raises(kubernetes_validate.ValidationError):
        version = kubernetes_validate.latest_version()
        kubernetes_validate.validate(deployment, version, strict=True)


def test_kubernetes_asks_at_the_port_that_is_open() -> None:
    consumers, _ = load_all(DEPLOY / "kubernetes" / "consumers.yaml")
    (container,) = consumers["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert container["args"][-1].endswith(f":{port['containerPort']}")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
    # An outage of the broker must not restart workers.
    assert container["livenessProbe"]["httpGet"]["path"] == "/live"


def test_the_kustomization_has_every_manifest() -> None:
    listed = load(DEPLOY / "kubernetes" / "kustomization.yaml")["resources"]
    assert {*listed, "kustomization.yaml"} == {path.name for path in MANIFESTS}


def test_every_deployment_waits_longer_than_a_worker_for_its_stop() -> None:
    (timeout,) = [s.default for s in TABLE if s.key == "QCONSUME_SHUTDOWN_TIMEOUT"]
    for path in MANIFESTS:
        for document in load_all(path):
            if document["kind"] == "Deployment":
                pod = document["spec"]["template"]["spec"]
                assert pod["terminationGracePeriodSeconds"] >= timeout + 20
    for name in ("web", "consumers"):
        assert services()[name]["stop_grace_period"] == f"{timeout + 20:.0f}s"


def test_what_selects_pods_finds_some() -> None:
    documents = [each for path in MANIFESTS for each in load_all(path)]
    pods = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in documents
        if each["kind"] == "Deployment"
    ]
    selectors = 0
    for each in documents:
        spec = each.get("spec", {})
        found = spec.get("selector") or spec.get("podSelector") or {}
        labels = found.get("matchLabels", found)
        if labels:
            selectors += 1
            assert any(labels.items() <= pod.items() for pod in pods), each
    assert selectors >= 6


def test_scaling_is_of_a_deployment_by_a_metric_of_ours() -> None:
    scaled = load(DEPLOY / "kubernetes" / "scaling.yaml")["spec"]
    consumers, _ = load_all(DEPLOY / "kubernetes" / "consumers.yaml")
    assert scaled["scaleTargetRef"]["name"] == consumers["metadata"]["name"]
    # KEDA sets the number, which an apply would set back.
    assert "replicas" not in consumers["spec"]
    assert scaled["minReplicaCount"] >= 1
    (trigger,) = scaled["triggers"]
    assert "qconsume_queue_ready" in trigger["metadata"]["query"]


# -- Prometheus ------------------------------------------------------------------------


def test_prometheus_accepts_its_configuration_and_rules(promtool: str) -> None:
    said = run(promtool, "check", "config", str(DEPLOY / "prometheus/prometheus.yaml"))
    assert "SUCCESS: 1 rule files found" in said


def test_every_alert_fires_and_only_when_it_should(promtool: str) -> None:
    folder = DEPLOY / "prometheus"
    run(promtool, "test", "rules", "rules_test.yaml", folder=folder)
    cases = (folder / "rules_test.yaml").read_text("utf-8")
    for alert in list_alerts():
        assert f'alertname="{alert["alert"]}"' in cases


def test_every_alert_says_what_to_do_and_where_to_read() -> None:
    page = PAGES["how-to/production"].read_text("utf-8")
    labels = set(re.findall(r"^\.\. _(alert-[a-z-]+):$", page, re.M))
    assert len(list_alerts()) > 10
    for alert in list_alerts():
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "action"} < alert["annotations"].keys()
        link, _, label = alert["annotations"]["docs"].partition("#")
        assert link == "how-to/production.html"
        assert label in labels
        assert f"``{alert['alert']}``" in page


def test_the_operator_gets_the_same_rules_by_the_command_of_the_page() -> None:
    (command,) = [c for c in commands_in("how-to/production") if "printf" in c]
    made, _, kubectl = command.rpartition(" | ")
    assert kubectl.startswith("kubectl apply ")
    rule = yaml.safe_load(run("bash", "-ec", made, folder=ROOT))
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == load(RULES)


# -- Grafana ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
def test_a_dashboard_is_whole(path: pathlib.Path) -> None:
    dashboard = json.loads(path.read_text("utf-8"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert sorted(ids) == sorted(set(ids))
    source = {"type": "prometheus", "uid": "${datasource}"}
    names = [each["name"] for each in dashboard["templating"]["list"]]
    assert names == ["datasource", "consumer"]
    for panel in list_panels(path):
        title = panel["title"]
        assert panel["datasource"] == source, title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["targets"], title
        for target in panel["targets"]:
            assert target["datasource"] == source, title


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
def test_no_two_panels_cover_each_other(path: pathlib.Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text("utf-8"))["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_dashboards_link_to_each_other() -> None:
    found = [json.loads(path.read_text("utf-8")) for path in DASHBOARDS]
    uids = {each["uid"] for each in found}
    assert len(uids) == len(found) == 2
    linked = {link["url"] for each in found for link in each["links"]}
    assert linked == {f"/d/{uid}" for uid in uids}


def test_prometheus_parses_every_query(promtool: str, tmp_path: pathlib.Path) -> None:
    queries = list_dashboard_queries()
    assert len(queries) > 40
    rules = [{"record": f"a:{n}", "expr": q.text} for n, q in enumerate(queries)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    run(promtool, "check", "rules", "--lint=none", str(file))


def test_data_sources_have_the_ids_that_point_to_them() -> None:
    file = DEPLOY / "grafana/provisioning/datasources/stack.yaml"
    known = {each["uid"] for each in load(file)["datasources"]}
    used = re.findall(r"datasourceUid: (\w+)", file.read_text("utf-8"))
    assert set(used) == {"jaeger", "loki"} <= known


def test_the_collector_defines_the_parts_of_its_pipelines() -> None:
    collector = load(COLLECTOR)
    for pipeline in collector["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= collector[kind].keys()


def test_the_recorded_rules_are_in_their_file_only() -> None:
    others = [path for path in DEPLOY.rglob("*.yaml") if path != RULES]
    assert [p for p in others if "  - alert:" in p.read_text("utf-8")] == []
