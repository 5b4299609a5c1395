"""Every bound in the product, with its unit and its reason. No literal bound stands elsewhere."""

from typing import Final

# Names. Source: POLICY.md section 1, IDENTITY.md NA-5.
MAX_NAME_BYTES: Final = 512
"""Length of a resource name or pattern in UTF-8."""
MAX_SUBJECT_BYTES: Final = 255
"""Length of a principal's id."""
MAX_SPIFFE_BYTES: Final = 2048
"""Length of a SPIFFE ID (SPIFFE-ID section 2.3)."""
MAX_GROUPS: Final = 256
"""Groups, roles or scopes read from one token; more is refused, never cut."""

# Questions.
MAX_BATCH: Final = 1_000
"""Questions in one EvaluateBatch or one message of EvaluateStream."""
MAX_DIFF_CELLS: Final = 2_000_000
"""Cells that a comparison of two policies looks at; beyond it the comparison is refused, never cut."""
MAX_CLASS_STEPS: Final = 500_000
"""Steps that telling apart what the patterns of one field match may take, about two seconds; beyond it a list is refused."""
MAX_CLASS_WORDS: Final = 32
"""Names that a pattern may match for each to be told by itself; one that matches more is told as a class."""
MAX_CLASS_REPEATS: Final = 100
"""Times that a regular expression may ask for the same again and be looked into; a list over one with more is refused."""
MAX_VALUATIONS: Final = 500
"""Sets of attributes with which the conditions of one cell are tried."""
MAX_PAGE: Final = 1_000
"""Entries in one page of a list."""
LISTS_KEPT: Final = 8
"""Whole lists kept for the pages that follow; an older one is made again."""
MAX_ATTRIBUTES: Final = 64
"""Request attributes in one question."""
MAX_ATTRIBUTE_BYTES: Final = 4_096
"""Length of one attribute value in UTF-8."""
MAX_LIST_ITEMS: Final = 256
"""Items of a list-valued attribute."""
MAX_JSON_DEPTH: Final = 16
"""Nesting of any JSON we read; counted before parsing (FAILURE.md G5)."""
MAX_SAFE_INTEGER: Final = 2**53 - 1
"""Integers beyond this collide in readers that use doubles (FAILURE.md G7)."""

# Packs.
MAX_PACK_FILE_BYTES: Final = 64 * 1024 * 1024
"""One file of a policy pack."""
VOCABULARY_CACHE_ENTRIES: Final = 8
VOCABULARY_CACHE_CHARACTERS: Final = 256 * 1024
"""How many vocabularies are remembered by their text, and how long one may be: at most 2 MB of texts."""
MAX_LINE_BYTES: Final = 1024 * 1024
"""One line of a policy pack."""
MAX_CONDITION_BYTES: Final = 4_096
"""Text of one CEL condition."""
MAX_CONDITION_LOOPS: Final = 2
"""Comprehensions inside each other in one CEL condition: with 256 items a list, 65,536 steps."""
MAX_EXPRESSION_DEPTH: Final = 64
"""Nesting of a matcher."""
MAX_ROLE_DEPTH: Final = 64
"""Links from a subject to its farthest role (CASBIN.md D-39)."""
MAX_CLOSURE_STEPS: Final = 20_000_000
"""What closing one role section may take: links, and for each the names that it leads on to. Some two seconds. A hundred thousand
subjects with twenty roles of five others each take twelve million."""
TIMED_STEPS: Final = 16
"""Steps that a name with a start or an end counts for: a window is compared, where names are united in one go."""
WORDS_KEPT: Final = 1_024
"""Pairs of action and environment for which a policy remembers where their rules stand."""
ROLE_NODES_KEPT: Final = 4_096
"""Names for which a world remembers which patterns of a role section cover them, about 1 MB; others are looked up again."""
MAX_BRANCHES: Final = 16
"""Alternatives into which a matcher is split; each has an index of its own, and a `||` beyond it is a residual."""
MAX_DECISION_STEPS: Final = 200_000
"""Rows whose residual one decision may evaluate, about 0.2 s; beyond it deny `budget_exceeded` (CASBIN.md D-34)."""
MAX_DELTA_ROWS: Final = 1_000
"""Changed rows up to which a policy is folded; more are compiled whole."""
RECALL_ENTRIES: Final = 65_536
"""Outcomes that a policy remembers, about 0.5 KB each: 32 MB."""
RECALL_TEXT_CHARS: Final = 256
"""Text of attributes with which an outcome is remembered: callers choose it, and must not choose how much we hold."""
MAX_PRIORITY: Final = 2**31 - 1
"""The largest priority of a row, and its negative the smallest (CASBIN.md D-07)."""

# Tokens. Source: IDENTITY.md GA-2, JW-1, TC-4.
MAX_TOKEN_BYTES: Final = 8_192
MAX_JWKS_BYTES: Final = 64 * 1024
MAX_JWKS_KEYS: Final = 100
JWKS_TIMEOUT_S: Final = 5.0
MAX_LEEWAY_S: Final = 120
DEFAULT_LEEWAY_S: Final = 30
TOKEN_CACHE_ENTRIES: Final = 10_000
TOKEN_CACHE_LIFE_S: Final = 60
MAX_KID_BYTES: Final = 128
"""Length of a key id, `jti`, session id, role or scope (IDENTITY.md NA-5)."""
MAX_TIME_S: Final = 253_402_300_799
"""The last second of the year 9999: the largest time a token may name (IDENTITY.md GA-8)."""
MAX_ACT_DEPTH: Final = 4
"""The most actors in one delegation chain that an issuer's entry may admit (IDENTITY.md AC-3)."""
MAX_RSA_EXPONENT: Final = 2**31 - 1
"""Largest public exponent, as in Go: with one as long as its modulus a look at a signature takes 500 times as long."""
RSA_KEY_BITS: Final = (2_048, 8_192)
"""Smallest and largest RSA key: below it is forgeable, above it costs us too much per token (IDENTITY.md JW-4)."""
JWKS_REFRESH_S: Final = 300
"""Age at which a key set is fetched again: a removed key stops within this time (IDENTITY.md JW-6)."""
KEY_FILE_LOOK_S: Final = 0.05
"""How long a key file that was just looked at is not looked at again: a system call for each decision bought nothing by it."""
JWKS_COOLDOWN_S: Final = 30
"""Least time between two fetches of one issuer's keys, whatever tokens ask for."""
JWKS_STALE_MAX_S: Final = 3_600
"""How long the last good key set serves while fetching fails (IDENTITY.md JW-7)."""
UNKNOWN_KIDS: Final = 1_024
"""Key ids remembered as unknown, per issuer."""
DPOP_WINDOW_S: Final = 60
"""How far the `iat` of a DPoP proof may lie from our clock, either way (IDENTITY.md PR-3)."""
DPOP_REPLAY_ENTRIES: Final = 100_000
"""DPoP proofs remembered as used, about 10 MB; beyond it a new proof is refused rather than an old one forgotten."""
DPOP_REPLAY_PAGES: Final = 32_768
"""Pages of 4 KiB that a file of used proofs may have: 1.3 million, more than a host can verify while they are young."""
DPOP_REPLAY_SWEEP: Final = 64
"""Forgotten proofs that one use may clear away: more than one, so that the file shrinks, and few, so that nobody waits."""
DPOP_NONCE_LIFE_S: Final = 60
"""How long a DPoP nonce is given out; the one before it is still taken."""
HEADER_CACHE_ENTRIES: Final = 256
"""Token headers kept parsed, one for each key in use: at most 4 MiB, if all are as long as a token may be."""
PROOF_CACHE_ENTRIES: Final = 256
"""DPoP proofs whose signature check is remembered between the two looks of one request: at most 4 MiB."""
LIVE_CHECK_LIFE_S: Final = 30
"""How long the answer of a live check serves, and never past the token's end (IDENTITY.md IS-5)."""
LIVE_CHECK_NO_LIFE_S: Final = 5
"""How long a no serves: a token that ended stays ended, and one that is shown again and again asks once in that time."""
LIVE_CHECK_PAUSE_S: Final = 1
"""How long a token whose check found no answer is refused without another try."""
LIVE_CHECK_TIMEOUT_S: Final = 2.0
"""How long an issuer may take to say whether a token still counts, waiting for a free connection included."""
LIVE_CHECK_CONNECTIONS: Final = 16
"""Connections to one issuer at once: a crowd of tokens is asked about one after the other."""
MAX_LIVE_ANSWER_BYTES: Final = 64 * 1024
MAX_CHAIN_CERTIFICATES: Final = 4
"""Intermediate CAs between a workload's certificate and its trust domain's: more is an attack on the path search."""
MAX_TRUST_FILE_BYTES: Final = 1024 * 1024
"""Size of `trust.yaml`, and of each CA file it names."""

# The world log and its replicas. Source: ARCHITECTURE.md section 7.
HEARTBEAT_INTERVAL_S: Final = 2.0
MAX_STALENESS_S: Final[dict[str, float]] = {"high": 15.0, "normal": 60.0, "low": 300.0}
"""How old the signed head may be for an asset of each sensitivity."""
MAX_ENTRY_BYTES: Final = 16 * 1024 * 1024
MAX_SNAPSHOT_BYTES: Final = 512 * 1024 * 1024
MAX_CLOCK_SKEW_S: Final = 120.0
"""A local clock farther than this off signed time denies time-bounded roles."""
MAX_LOCKS: Final = 100_000
"""Locks in one world: they are never evicted, so they are bounded (IDENTITY.md RV-1)."""
SUBSCRIBER_QUEUE_ENTRIES: Final = 1_024
"""Entries waiting for a slow replica before it is told to start again from a snapshot."""
SUBSCRIBER_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Bytes waiting for one slow replica: four of the largest entries."""
RECONNECT_MIN_S: Final = 0.1
RECONNECT_MAX_S: Final = 5.0
WATCH_QUEUE: Final = 64
WATCH_CHANGED_ROWS: Final = 256
"""Rows of one change that are looked up in the index of watches; beyond it, waking every watch costs less."""

# Decisions and doors.
DEFAULT_DEADLINE_S: Final = 5.0
"""The SDK's deadline where the caller sets none."""
MAX_DEADLINE_S: Final = 30.0
"""The server's ceiling on a unary RPC (FAILURE.md G3)."""
MAX_PACK_DEADLINE_S: Final = 120.0
"""The ceiling on a call that brings or activates a whole policy: parsing, testing, comparing and compiling 100,000 rows takes
some ten seconds of a quiet processor."""
WATCH_RENEW_S: Final = MAX_STALENESS_S["high"] / 2
"""How long the SDK lets one Watch call run before it opens it anew: with the wait for the new one, a PDP that hangs is
noticed within the strictest staleness."""
WATCH_PAUSE_S: Final = 0.2
"""Rest before a Watch that the PDP ended is opened again, so that one it keeps ending is no busy loop."""
WATCH_FLOOR_S: Final = 0.05
"""Shortest time between two looks of a Watch that no new world asked for: a bound that has just passed is no busy loop."""
DECISION_CACHE_S: Final = HEARTBEAT_INTERVAL_S
"""How long an SDK client keeps an allow where nobody says otherwise: what a remote client adds to the reach of a lock."""
MAX_DECISION_CACHE_S: Final = MAX_STALENESS_S["high"]
"""The longest it may be told to: the age of a world that is too old for the most sensitive assets."""
DECISION_CACHE_ENTRIES: Final = 10_000
LOCAL_TOKEN_READ_S: Final = 1.0
"""How often the SDK's local mode reads its token file again; a rotated one overlaps its predecessor by far more."""
MAX_ASK_BYTES: Final = 256
"""Length of a purpose or ticket that the SDK's MLflow plug-in puts into a header."""
COALESCE_FLIGHTS: Final = 2
"""Calls with gathered checks that an async client has under way: one is decided while the next is read and written."""
COALESCE_BYTES: Final = 3 * 1024 * 1024
"""Questions in one gathered call; below `MAX_RPC_BYTES` by their framing and the call's own fields."""
MAX_RPC_BYTES: Final = 4 * 1024 * 1024
MAX_SMALL_RPC_BYTES: Final = 64 * 1024
"""A message that carries a few names."""
MAX_PACK_RPC_BYTES: Final = 32 * 1024 * 1024
"""A whole policy pack: some 200,000 rows."""
MAX_ERROR_DETAIL_BYTES: Final = 5_000
"""Findings in an error's metadata, which gRPC bounds to 8 KiB in all."""
MAX_OPEN_PROPOSALS: Final = 128
"""Changes that wait in one world, and as many requests for access. None is pushed out, so each author has a share of its own:"""
MAX_PROPOSALS_EACH: Final = 16
PROPOSAL_LIFE_S: Final = 7 * 86_400.0
"""How long a proposal, and every approval of it, may wait."""
MAX_ACCESS_S: Final = 7 * 86_400.0
"""Longest time for which access may be asked for; the policy allows less."""
MAX_BREAK_GLASS_S: Final = 3_600.0
"""How long a broken glass lets somebody in: long enough to mend a policy, short enough to be noticed."""
MAX_TRIAL_S: Final = PROPOSAL_LIFE_S
"""How long a proposal may be tried, in the shadow or as a canary: never longer than it may wait."""
MAX_SHADOWS: Final = 4
"""Proposals that decide in the shadow at once: each costs a compiled policy, and a part of a tenth of a processor."""
MAX_POINTS: Final = 64
MAX_POINT_CHARS: Final = 256
"""Enforcement points that a canary names, and their names."""
TRIAL_SHARE: Final = 0.1
"""The part of its time that one process gives to comparing: however slow a candidate is, it costs no more."""
TRIAL_SLICE_S: Final = 0.05
"""How long one piece of comparing runs at most, beside one decision that is under way: what a shutdown waits for."""
TRIAL_LOOK_S: Final = 0.5
"""How often the decision log is looked at for new decisions: what a rollback waits for, beside their way here."""
TRIAL_BEHIND_S: Final = 10.0
"""How far comparing may fall behind; then only a part of the decisions is compared, and how many were not is told."""
TRIAL_STRIDE: Final = 4_096
"""At the least one in so many is compared."""
TRIAL_SHOWN: Final = 200
"""Kinds of differences of each trial that one answer shows, the most frequent: all trials together fit `MAX_RPC_BYTES`."""
TRIAL_DIFFERENCES: Final = 1_000
"""Kinds of differences kept apart (subject, action, resource, both answers); the others are only counted."""
CANARY_SAMPLE: Final = 20
"""Decisions of a canary before a share of them says anything."""
MAX_EDIT_ROWS: Final = 256
"""Rows that one edit adds and removes; more is a pack."""
MAX_MESSAGE_BYTES: Final = 4 * 1024
"""Why a change is made, or refused, in somebody's words."""
MAX_REPORT_BYTES: Final = 256 << 20
"""A report of an access review that is signed off; it is read into memory to be hashed."""
MAX_PACK_FILES: Final = 1_000
EXPIRY_MARGIN_S: Final = 1.0
"""How long after its caller's expiry a stream may end itself before the guard does."""
PEER_CACHE_ENTRIES: Final = 1_024
"""Client certificates kept parsed."""
PARTY_CACHE_ENTRIES: Final = 8_192
"""Asserted parties kept parsed: at most about 50 MB, if all have the longest names and the most groups."""
QUESTION_CACHE_ENTRIES: Final = 32_768
"""Asserted questions kept read, by the bytes of their messages, with what was said to each: about 2 KB, 64 MB in all;
150 MB with the longest ones."""
QUESTION_CACHE_BYTES: Final = 512
"""Size of a message up to which its question is kept: callers choose it, and must not choose how much we hold."""
PARTY_CACHE_GROUPS: Final = 16
"""Groups of an asserted party up to which it is kept parsed."""
READY_POLL_S: Final = 0.05
PROBE_CONNECTIONS: Final = 512
PROBE_REQUEST_S: Final = 5.0
"""How long one request to a probe may take, from its connection or the answer before it to its own answer."""
MAX_CALLS_PENDING: Final = 16_384
"""Calls that wait to be looked at, each of some kilobytes; beyond, gRPC begins to turn calls away at random."""
HANDSHAKE_S: Final = 10.0
"""How long a gRPC connection may take to say that it is one; gRPC's own 120 s let anybody hold descriptors for nothing."""
MAX_METADATA_BYTES: Final = 32 * 1024
"""All metadata of one RPC: a token of 8 KiB, a trace, and room."""
HEALTH_INTERVAL_S: Final = 1.0
"""How often a health watch looks: staleness grows by itself and tells nobody."""
LOOP_BLOCKED_S: Final = 3.0
"""Silence of the event loop after which this PDP is not ready: no answer of ours may take so long (FAILURE.md F30)."""
LOOP_CALM_S: Final = 5.0
"""How long a loop that was blocked must have run before callers are sent to it again."""
READY_STALENESS_S: Final = 15.0
"""A PDP whose world is older sends its callers elsewhere; it still decides within each asset's own bound."""
MAX_RECHECK_S: Final = 30.0
"""Longest time between two looks at a running access whose conditions read `now`."""
EXT_AUTHZ_BUDGET_S: Final = 0.2
"""Our time for one ext_authz answer: below Envoy's filter timeout (ENFORCEMENT.md EX-17)."""
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
IDS_DRAWN: Final = 256
"""Ids for which random bytes are drawn at once."""
DRAIN_GRACE_S: Final = 10.0
"""How long calls in flight may take to end after SIGTERM, where the configuration does not say."""
MAX_GRACE_S: Final = 600.0
MAX_PORT: Final = 65_535

MAX_WORKERS: Final = 64
"""Processes of one PDP: each holds a whole world in memory."""
WORKER_REST_MIN_S: Final = 0.2
WORKER_REST_MAX_S: Final = 10.0
"""Rest before a worker that died is started again: doubled each time, so that one that cannot live costs little."""
WORKER_STABLE_S: Final = 30.0
"""A worker that has lived so long starts again after the shortest rest."""
WORKER_END_S: Final = 10.0
"""What a worker may take beyond the grace to flush and close, before it is killed."""
MAX_WORKER_LINE_BYTES: Final = 4 * 1024 * 1024
"""One message between a worker and its supervisor: at most a page of metrics from each worker."""
WORKER_REPORT_S: Final = 2.0
"""How often a worker reports its metrics to the one that shows them."""

GC_YOUNG_OBJECTS: Final = 50_000
"""Objects after which the collector of cycles looks at the young ones. Python's 700 made it run a dozen times in one batch, and
look at the whole world again and again: 4 of 16 us of a decision. What it frees are cycles of tasks, which can wait."""
TIMER_GRAIN_S: Final = 0.001
"""By how much a loop's timer may be early: uvloop counts whole milliseconds, and who waited for the rest asked 200 times."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How long one thread may keep the interpreter from another. Python's 5 ms would be added to every allow: the thread that has
just made its record durable waits for a busy loop. Measured with one connection: p50 of a gated request 2.1 -> 1.5 ms."""

# Audit.
MAX_AUDIT_RECORD_BYTES: Final = 256 * 1024
"""One record: the groups of a subject and four actors at their longest fit."""
MAX_AUDIT_FIELD_BYTES: Final = 16 * 1024
"""Attributes of a question that take more stand in its record by their digest."""
MAX_AUDIT_WAITING: Final = 10_000
"""Records in line for the disk, and of allows as many again that wait for room there; beyond it an allow is refused and a
refusal is only counted."""
AUDIT_PART_ENTRIES: Final = 1_024
"""Parts of records kept written, of each kind: groups, credentials, lists of rows. At their longest 70 MB of groups."""
AUDIT_SEGMENT_BYTES: Final = 64 * 1024 * 1024
AUDIT_RESERVE_BYTES: Final = 8 * 1024 * 1024
"""Laid up for a disk that is full: some 7,000 more allows, in which somebody can make room (FAILURE.md S2)."""
AUDIT_COMMIT_TIMEOUT_S: Final = 2.0
"""How long an allow waits for room in line, and then for its record, before it becomes deny `audit_unavailable`."""
AUDIT_GATHER_S: Final = 0.002
"""How long at most a sidecar's record waits for those of as many callers as shared the last flush; a lone caller's never does."""
AUDIT_GATHERED: Final = 16
"""So many callers are enough for a flush: the hand-over to the thread and back, 0.3 ms on two busy cores, is shared by then."""
AUDIT_CHECKPOINT_S: Final = 60.0
"""How long records stand in a chain before its writer signs them: what a thief of the file could take away unnoticed."""
AUDIT_CHECKPOINT_RECORDS: Final = 10_000
"""After so many records a checkpoint is due sooner; one costs a signature, 100 us, and a record of 500 bytes."""
MAX_NOTE_BYTES: Final = 8 * 1024
"""A signed checkpoint: three lines, a few more, and the signatures of its witnesses."""
MAX_KEY_FILE_BYTES: Final = 1024 * 1024
"""A file of verifier keys or checkpoints, as somebody keeps them elsewhere."""
MAX_PROOF_FILE_BYTES: Final = 2 * 1024 * 1024
"""A proof: a record, two checkpoints and two paths."""
AUDIT_SINK_IDLE_S: Final = 0.5
"""How often a sink that has everything is looked after again."""
AUDIT_SINK_BATCH_BYTES: Final = 1024 * 1024
"""What a sink is brought at once, with at most `AUDIT_SHIP_RECORDS` records; collectors take 4 MiB by default."""
AUDIT_SINK_TIMEOUT_S: Final = 10.0
MAX_SINK_ANSWER_BYTES: Final = 64 * 1024
MIN_MASK_KEY_BYTES: Final = 32
"""A key that makes pseudonyms: names are guessable, so it is all that hides them."""
MAX_AUDIT_SINKS: Final = 8
"""Each is a task, a file of cursors and a label on metrics."""
AUDIT_RETRY_S: Final = 1.0
"""How long refusals wait before they are tried again on a sink that failed; an allow tries at once."""
MAX_CHAINS: Final = 1_024
"""Chains of enforcement points that a PDP keeps open; more are opened again when they ship."""
AUDIT_FOLLOW_S: Final = 0.5
"""How often whoever follows the decision log looks at the chains of other workers."""
AUDIT_INDEX_NAMES: Final = 65_536
"""Names of which the index remembers the number while it reads; others it looks up."""
AUDIT_QUERY_LIMIT: Final = 100
"""Records that `pdp audit query` prints unless it is told otherwise."""
MAX_AUDIT_PAGE: Final = 1_000
"""Decisions in one answer of `AuditService.Query`."""
MAX_AUDIT_PAGE_BYTES: Final = 2 * 1024 * 1024
"""Half of what a message may have: records vary from 600 bytes to 256 KiB."""
MAX_PATTERN_WILDCARDS: Final = 8
"""Of a question that comes over the network: each wildcard multiplies what matching one name may cost."""
TRACE_RECORDS: Final = 500
"""Decisions in a trace unless it is told otherwise: what a person can read."""
TRACE_SUBJECTS: Final = 20
"""Principals of which a trace says what else was within reach: each is a list over the whole inventory."""
REVIEW_SELDOM: Final = 3
"""A standing right in prod that was used no more often in the window of a review could be asked for each time."""
AUDIT_SHIP_RECORDS: Final = 500
"""Records in one group that a sidecar ships to its PDP."""

AUDIT_SHIP_LINGER_S: Final = 0.1
"""How long records gather before they are shipped: one call for many, where each call costs both sides a record of its own."""

# Trust in the log. Source: FAILURE.md section 3, V1 and V4.
MAX_HEADER_BYTES: Final = 8 * 1024
"""Header of an entry or snapshot, or body of a heartbeat: what must be read before a signature is checked."""
MAX_SIGNATURES: Final = 16
"""Signatures on one entry; each costs a verification."""
MAX_ROOT_FILE_BYTES: Final = 256 * 1024
MAX_ROOT_KEYS: Final = 512
"""Keys in a root file: two per PDP and the offline roots."""
MAX_SEQ_JUMP: Final = 1_000_000_000
"""How far a snapshot may stand above what a replica holds; more is a stolen key trying to exhaust the numbers."""
MAX_SIGNED_AHEAD_S: Final = 86_400.0
"""How far a signed time may lie ahead of the local clock; more would push `now` away for ever (FAILURE.md F12)."""

# Stores of the log and of replicas.
STORE_BUSY_S: Final = 5.0
"""How long a SQLite store waits for another process's write before it counts as unavailable."""
STORE_RETRY_S: Final = 0.5
"""Rest before a store that failed, or an entry of it that was refused, is read again."""
LOG_POLL_S: Final = 0.02
"""How often a follower looks for commits of other processes; part of the 250 ms from a change to its enforcement."""
LOG_READ_ENTRIES: Final = 64
"""Entries read at once from the log, at most `MAX_ENTRY_BYTES` each."""
REPLAY_WORLDS: Final = 64
"""Worlds kept while logged decisions are decided again: workers and sidecars are seldom further apart; they share most."""
REDIS_TIMEOUT_S: Final = 5.0
"""How long a Redis command may take; failing over takes Sentinel longer, and the next attempt asks it anew."""
REDIS_BLOCK_S: Final = 1.0
"""How long one blocking read waits; a half-open connection is found out by the read after it."""
REDIS_WAIT_S: Final = 2.0
"""How long a write waits for its copies."""
MAX_STORE_COPIES: Final = 16
"""Most copies of the store that a write may be told to wait for."""
BOARD_PAUSE_S: Final = 0.05
"""Least time between two postings of a PDP's enforcement points; part of the 250 ms of a receipt across PDPs."""
MAX_BOARD_BYTES: Final = 4 * 1024 * 1024
"""One posting: the enforcement points of one PDP process."""
CONFLICT_ATTEMPTS: Final = 8
"""How often a lock, or a sign-off, is put behind changes of other writers before its author is told of the conflict."""
SNAPSHOT_EVERY_ENTRIES: Final = 256
"""A snapshot stands at every multiple: with a row folded in some 10 ms, what follows one is read within seconds at a start."""
PINNED_WORLDS: Final = 4
"""Snapshot points whose world a process holds until the seal has come: it may be some entries ahead by then."""
COMPACT_SPREAD_S: Final = 20.0
"""Within this time after a seal each follower compacts, at a moment of its own: a fleet of a hundred does not do it at once."""
SPELLED_ROWS: Final = 1_000
"""Rows of a snapshot spelled out at once: about a millisecond."""
PREPARE_ASIDE_BYTES: Final = 16 * 1024
"""An entry with more is verified and folded in a thread, so that decisions and running streams go on."""
SNAPSHOT_CHUNK_BYTES: Final = 1024 * 1024
"""One message of a snapshot on its way to a replica."""
SNAPSHOT_MIN_BYTES_S: Final = 64 * 1024
"""Rate below which a snapshot is given up (slow retrieval, V1)."""
FEED_IDLE_S: Final = 3 * HEARTBEAT_INTERVAL_S
"""Silence after which a replica takes its feed for dead: three heartbeats (a half-open connection has no other sign, F6)."""
GOODBYE_S: Final = 1.0
"""How long a replica that leaves waits for its PDP to see it go."""
RECEIPTS_KEPT: Final = 1_024
"""Newest changes for which the PDP remembers when they were accepted and acknowledged."""
