import copy
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.envoy import EnvoySettings, ListenerTls, Sockets, Upstream, bootstrap, rendered
from sidecar.envoy_names import EXT_AUTHZ, EXT_PROC, Address, EnvoyConfigError
from sidecar.envoy_routes import assert_decided
from sidecar.routes import Placement, oip


def settings(**changes: Any) -> EnvoySettings:
    values: dict[str, Any] = {
        "listen": Address(host="127.0.0.1", port=0),
        "upstream": Upstream(address=Address(host="127.0.0.1", port=8080)),
        "sockets": Sockets(directory=Path("/run/pdp/envoy")),
        "rows": oip.ROWS,
    }
    return EnvoySettings(**(values | changes))


def manager(config: dict[str, Any]) -> dict[str, Any]:
    listener = config["static_resources"]["listeners"][0]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def routes(config: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manager(config)["route_config"]["virtual_hosts"][0]["routes"]
    return found


@pytest.mark.holds("N2", "N5", "N6", "N9")
def test_every_hardening_of_the_connection_manager_is_written() -> None:
    hcm = manager(bootstrap(settings()))
    assert hcm["normalize_path"] is True
    assert hcm["merge_slashes"] is True
    assert hcm["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
    assert hcm["use_remote_address"] is True
    assert hcm["forward_client_cert_details"] == "SANITIZE_SET"
    assert hcm["preserve_external_request_id"] is False
    assert hcm["common_http_protocol_options"]["headers_with_underscores_action"] == "REJECT_REQUEST"
    assert hcm["delayed_close_timeout"] == "0.1s"


@pytest.mark.holds("N2", "N11", "adv_fail_open")
def test_both_filters_fail_closed() -> None:
    filters = {one["name"]: one["typed_config"] for one in manager(bootstrap(settings()))["http_filters"]}
    for name in (EXT_AUTHZ, EXT_PROC):
        assert filters[name]["failure_mode_allow"] is False
        assert filters[name]["status_on_error"] == {"code": "ServiceUnavailable"}


def test_ext_authz_stands_first_and_the_router_last() -> None:
    names = [one["name"] for one in manager(bootstrap(settings()))["http_filters"]]
    assert names == [EXT_AUTHZ, EXT_PROC, "envoy.filters.http.router"]


def test_each_row_is_decided_by_its_own_filter_and_named_there() -> None:
    for row, route in zip(oip.ROWS, routes(bootstrap(settings())), strict=False):
        per_filter = route["typed_per_filter_config"]
        if row.placement is Placement.EXT_PROC:
            assert per_filter[EXT_AUTHZ]["disabled"] is True
            assert per_filter[EXT_PROC]["overrides"]["grpc_initial_metadata"] == [
                {"key": "x-pdp-route", "value": row.name}
            ]
            assert route["route"]["timeout"] == "0s"
        else:
            assert route["name"] == row.name
            assert per_filter == {EXT_PROC: {"@type": per_filter[EXT_PROC]["@type"], "disabled": True}}
            bound = "10s"  # of the whole exchange, since `timeout` alone waits for the end of the request
            assert route["route"] == {
                "cluster": "upstream",
                "timeout": bound,
                "max_stream_duration": {"max_stream_duration": bound},
            }


def test_the_agent_learns_the_route_from_envoy_alone() -> None:
    ext_authz = manager(bootstrap(settings()))["http_filters"][0]["typed_config"]
    facts = ext_authz["http_service"]["authorization_request"]["headers_to_add"]
    assert {"key": "x-pdp-route", "value": "%ROUTE_NAME%"} in facts


def test_the_last_route_has_no_model_behind_it() -> None:
    last = routes(bootstrap(settings()))[-1]
    assert last["match"] == {"prefix": "/"}
    assert last["direct_response"] == {"status": 403}
    assert "route" not in last


@pytest.mark.holds("N5", "adv_header_spelling")
def test_no_own_header_of_ours_is_taken_from_the_client() -> None:
    hcm = manager(bootstrap(settings()))
    mutations = hcm["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    prefixes = {one["remove_on_match"]["key_matcher"]["prefix"] for one in mutations if "remove_on_match" in one}
    assert {"x-pdp-", "x-envoy-", "x-forwarded-", "x-amzn-sagemaker-"} == prefixes
    allowed = hcm["http_filters"][0]["typed_config"]["allowed_headers"]["patterns"]
    assert not [one for one in allowed if one["exact"].startswith("x-pdp-")]


def test_a_route_without_a_deciding_filter_is_a_generator_error() -> None:
    good = routes(bootstrap(settings()))
    assert_decided(good)
    for open_door in (EXT_AUTHZ, EXT_PROC):
        bad = copy.deepcopy(good)
        for name in (EXT_AUTHZ, EXT_PROC):
            bad[0]["typed_per_filter_config"][name] = {"disabled": True}
        with pytest.raises(EnvoyConfigError, match=r"oip\.server_stats"):
            assert_decided(bad)
        bad[0]["typed_per_filter_config"] = {open_door: {}}
        with pytest.raises(EnvoyConfigError):
            assert_decided(bad)


def test_routes_that_do_not_catch_everything_are_a_generator_error() -> None:
    good = routes(bootstrap(settings()))
    for bad in ([], good[:-1]):
        with pytest.raises(EnvoyConfigError, match="catch"):
            assert_decided(bad)


def test_tls_asks_for_client_certificates_of_the_named_ca() -> None:
    tls = ListenerTls(certificate=Path("c"), key=Path("k"), client_ca=Path("ca"), client_certificate_required=True)
    chain = bootstrap(settings(tls=tls))["static_resources"]["listeners"][0]["filter_chains"][0]
    context = chain["transport_socket"]["typed_config"]
    assert context["require_client_certificate"] is True
    secret = context["common_tls_context"]["validation_context_sds_secret_config"]
    assert secret["name"] == "callers"
    assert secret["sds_config"]["path_config_source"]["path"].endswith("callers.secret.json")


def test_a_required_certificate_without_a_ca_is_refused() -> None:
    tls = ListenerTls(certificate=Path("c"), key=Path("k"), client_certificate_required=True)
    with pytest.raises(EnvoyConfigError):
        bootstrap(settings(tls=tls))


def test_an_https_upstream_is_verified_by_name() -> None:
    upstream = Upstream(address=Address(host="model.example", port=443), tls=True, ca=Path("ca"))
    cluster = bootstrap(settings(upstream=upstream))["static_resources"]["clusters"][2]
    validation = cluster["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    assert validation["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": "model.example"}}]
    with pytest.raises(EnvoyConfigError):
        bootstrap(settings(upstream=Upstream(address=Address(host="model.example", port=443), tls=True)))


def test_a_state_directory_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(EnvoyConfigError, match="shorter"):
        Sockets(directory=Path("/" + "d" * 100))


def test_the_text_is_the_configuration() -> None:
    assert json.loads(rendered(settings())) == bootstrap(settings())
