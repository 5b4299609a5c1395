"""Every bound of the enforcement point, with its unit and the reason for its size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarLimits:
    """Bounds of the data plane and of the agent behind it.

    Attributes:
        target_bytes: Longest request target (path and query); beyond it nobody reads a path, they attack a parser.
        target_cache_bytes: Longest target whose canonical form is remembered.
        target_cache_entries: How many such targets are remembered: at most about 1 MiB.
        question_header_bytes: Longest header block of one ext_authz question: a token of 8 KiB, a proof, a certificate.
        body_bytes: Largest request body Envoy buffers, and the connection's buffer limit.
        grpc_message_bytes: Largest message the agent reads; above `body_bytes`, or a legal body would fail (EP-7).
        headers_count: Most header fields of one request.
        concurrent_streams: Most HTTP/2 streams of one client connection (rapid reset, CVE-2023-44487).
        downstream_connections: Most client connections of one Envoy.
        certificates: Client certificates whose reading is remembered.
        identities: Verified identities of which it is kept what the gate needs of them.
        questions: Questions that are kept for requests that are alike, some 2 KB each.
        duties: Sets of obligations whose reading is remembered; the policy writes them, nobody else.
        fresh_poll_s: How often a starting sidecar looks whether its world is fresh.
        patience_s: After this a sidecar that waits for its PDP says so.
        pending_sessions: Most running streams that are re-checked; one more is refused rather than forgotten.
        decide_s: Our own time for one answer; below `filter_timeout_s`, so that a slow answer is ours and counted (EX-17).
        filter_timeout_s: Envoy's patience for one answer.
        filter_timeout_max_s: The most that one extension may ask for (EP-4).
        refusals_per_s: Envoy's own refusals that are recorded one by one in a second; a flood of the rest is one number.
        results: Ids of stored answers whose owner is remembered; beyond it the oldest is nobody's.
        request_headers_s: A client's time to send its request headers (slowloris).
        request_body_s: A client's time to send a body that decides (slowloris); nothing else would end one that trickles.
        stream_idle_s: Silence after which Envoy ends a stream.
        unary_s: The longest unary upstream answer; ext_authz decides once, so this bounds a revoked answer.
        connect_s: Time to connect to the model server.
        traced_path_bytes: What a span shows of a request's target; a name may stand further on, a secret in a query may, too.
        access_log_s: How long Envoy gathers its own refusals before it tells them.
        delayed_close_s: How long Envoy lingers on a cut HTTP/1.1 connection; its default of 1 s shows the cut late.
        busy_gap_s: A stream whose last chunk is younger is flowing: its next chunk is worth waiting for.
        busy_wait_s: How long a cut waits for the chunk that carries the error event.
        recheck_floor_s: The shortest re-check interval; a policy of 0 s must not become a busy loop.
        recheck_jitter: Part of the interval by which re-checks are spread, so that sessions do not march in step.
        retry_s: Pause between tries while a decision is unavailable.
        rotation_s: How often the certificate files are looked at.
        restart_first_s: First pause before Envoy is started again.
        restart_cap_s: Longest such pause.
        steady_s: Envoy running this long resets the pause.
        hang_look_s: How often Envoy is asked whether it lives, and its time to answer.
        hang_misses: So many unanswered questions in a row are a hung Envoy, which is ended.
        start_s: Time for Envoy to become ready.
        stop_s: Time between SIGTERM and SIGKILL.
        drain_s: Time for running streams to end by themselves at shutdown.
        reply_bytes: Largest answer of a server that is read whole, to be filtered or learnt from.
        query_fields: Most fields of a query that decides.
        homes: Runs and logged models of which it is remembered where they belong: some 10 MiB.
        list_page: Most objects that are asked of an MLflow server at once, to fill one page of a list.
        list_rounds: Most such pages behind one page of a list, since each object on them is a decision on record; what was found
            until then goes out with a token for the rest.
        decide_at_once: Questions of one list that are decided together.
        facts_s: Time for the PDP to take in what was learnt of a version.
        workers: Most processes of one server that share a state directory's place.
        unix_path_bytes: Longest Unix socket path (sun_path, with its final zero).
    """

    target_bytes: int = 8_192
    target_cache_bytes: int = 256
    target_cache_entries: int = 2_048
    question_header_bytes: int = 65_536
    body_bytes: int = 4_194_304
    grpc_message_bytes: int = 4_194_304 + 262_144
    headers_count: int = 100
    concurrent_streams: int = 100
    downstream_connections: int = 10_000
    certificates: int = 1_024
    identities: int = 2_048
    questions: int = 2_048
    duties: int = 1_024
    fresh_poll_s: float = 0.02
    patience_s: float = 5.0
    pending_sessions: int = 10_000
    decide_s: float = 0.2
    filter_timeout_s: float = 0.5
    filter_timeout_max_s: float = 5.0
    refusals_per_s: int = 200
    results: int = 10_000
    request_headers_s: float = 10.0
    request_body_s: float = 30.0
    stream_idle_s: float = 300.0
    unary_s: float = 10.0
    connect_s: float = 2.0
    access_log_s: float = 0.2
    traced_path_bytes: int = 128
    delayed_close_s: float = 0.1
    busy_gap_s: float = 0.25
    busy_wait_s: float = 0.2
    recheck_floor_s: float = 0.5
    recheck_jitter: float = 0.1
    retry_s: float = 0.5
    rotation_s: float = 5.0
    restart_first_s: float = 0.1
    restart_cap_s: float = 10.0
    steady_s: float = 30.0
    hang_look_s: float = 2.0
    hang_misses: int = 5
    start_s: float = 15.0
    stop_s: float = 3.0
    drain_s: float = 5.0
    reply_bytes: int = 67_108_864
    query_fields: int = 1_000
    homes: int = 65_536
    list_page: int = 1_000
    list_rounds: int = 20
    decide_at_once: int = 64
    facts_s: float = 5.0
    workers: int = 64
    unix_path_bytes: int = 107


LIMITS = SidecarLimits()
