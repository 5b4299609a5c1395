import io
import json

import pytest
import structlog

from pdp.adapters.telemetry import OTHER, Metrics, setup_logging


@pytest.mark.holds("N8", "adv_log_injection")
def test_one_event_is_one_line_of_json() -> None:
    out = io.StringIO()
    try:
        setup_logging(level="info", form="auto", stream=out)
        structlog.get_logger("pdp").warning("line\nbreak", value="a\x1b[31m\n")
        structlog.get_logger("pdp").debug("not at this level")
    finally:
        structlog.reset_defaults()
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["event"] == "line\nbreak"
    assert line.isprintable()


def test_a_log_that_nobody_reads_any_more_stops_nothing() -> None:
    out = io.StringIO()
    try:
        setup_logging(level="info", form="json", stream=out)
        out.close()
        structlog.get_logger("pdp").error("unheard")
    finally:
        structlog.reset_defaults()


@pytest.mark.holds("L7", "adv_labels")
def test_labels_do_not_grow_with_input() -> None:
    metrics = Metrics(methods=["/a"], reasons=["granted"])
    for n in range(1_000):
        metrics.call(f"/unknown/{n}", "OK", 0.1)
        metrics.decided("deny", f"reason-{n}")
    metrics.call("/a", "OK", None)
    page = metrics.page().decode()
    assert "unknown/" not in page
    assert f'pdp_rpc_total{{method="{OTHER}",status="OK"}} 1000.0' in page
    assert f'pdp_decisions_total{{effect="deny",reason="{OTHER}"}} 1000.0' in page
    assert 'pdp_rpc_total{method="/a",status="OK"} 1.0' in page


def test_a_gauge_is_read_when_somebody_looks() -> None:
    metrics, values = Metrics(methods=[], reasons=[]), iter([1.0, 2.0])
    metrics.gauge("pdp_test", "A test", lambda: next(values))
    assert b"pdp_test 1.0" in metrics.page()
    assert b"pdp_test 2.0" in metrics.page()


@pytest.mark.holds("L7", "adv_labels")
def test_counts_by_reason_show_reasons_alone() -> None:
    metrics = Metrics(methods=[], reasons=["token_expired"])
    metrics.by_reason("pdp_test", "A test", lambda: {"token_expired": 2, 'x"} 1': 1})
    assert [line for line in metrics.page().decode().splitlines() if line.startswith("pdp_test")] == [
        'pdp_test_total{reason="token_expired"} 2.0'
    ]
