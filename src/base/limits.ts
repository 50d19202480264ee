/** Every bound that is not configuration, in one place, each with its reason. Tested at limit and limit + 1. */

/** gRPC's default receive limit on both sides (api.md §2): larger lists are paged. */
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024
/** CSRs in one BatchNewX509SVID: SPIRE's burst size (api.md §4). */
export const CSR_BATCH_SIZE_MAX = 500
/** From here on a batch of CSRs waits for its turn; what is smaller somebody waits for. */
export const LARGE_BATCH_ITEMS = 16
/**
 * One is signed while the rows of the other are committed. A batch that waits is the message it
 * came in; one on its way is 3 KB of objects an item, and those of eight batches of 500 outlive
 * the young generation.
 */
export const LARGE_BATCHES_AT_ONCE = 2
/** Batches that waited share a turn up to here, and so a commit of the ledger. */
export const LARGE_TURN_ITEMS = 128
/** One CSR: an RSA-4096 request with a few extensions is under 2 KiB. */
export const CSR_BYTES_MAX = 16 * 1024
/** SyncAuthorizedEntries page (api.md §7.3). */
export const SYNC_PAGE_SIZE = 500
/** Rows of one List page: SPIRE 1.9.3 preallocated what was asked (reliability.md T-S6). */
export const PAGE_SIZE_MAX = 10_000
/** Concurrent streams of one HTTP/2 connection at the server's door (T-S8). */
export const STREAMS_PER_CONNECTION_MAX = 250
/** HTTP/2 header list of one request. */
export const HEADER_LIST_BYTES_MAX = 16 * 1024
/** A TLS handshake that takes longer is cut (slow loris). */
export const HANDSHAKE_MS_MAX = 10_000
/** MaxConnectionAge of SPIRE's server: agents re-balance (api.md §2). */
export const CONNECTION_AGE_MS_MAX = 3 * 60_000
/** Graceful stop, then hard stop (api.md §2). */
export const GRACEFUL_STOP_MS = 10_000
/** Certificates in a presented or x509pop chain. */
export const CHAIN_LENGTH_MAX = 8
/** SPIFFE IDs are at most 2048 bytes, trust domain names 255 (SPIFFE-ID §2.3). */
export const SPIFFE_ID_BYTES_MAX = 2048
export const TRUST_DOMAIN_BYTES_MAX = 255
export const HINT_BYTES_MAX = 1024
export const ENTRY_ID_BYTES_MAX = 255
/** Selectors, DNS names and federated trust domains of one entry. */
export const SELECTORS_PER_ENTRY_MAX = 1_000
export const DNS_NAMES_PER_ENTRY_MAX = 1_000
export const FEDERATES_WITH_MAX = 1_000
/**
 * One selector, `type:value`: an element of PostgreSQL's GIN index is at most 2,704 bytes, and a
 * `spiffe_id` selector with the longest ID must fit.
 */
export const SELECTOR_BYTES_MAX = 2_304
/** Node selectors that one attestation may bring. */
export const NODE_SELECTORS_MAX = 10_000
/** Attestation payloads and challenge responses. */
export const ATTESTATION_BYTES_MAX = 256 * 1024
/** Audiences of one JWT-SVID, and bytes of each. */
export const AUDIENCES_MAX = 64
export const AUDIENCE_BYTES_MAX = 2048
/** Backdate of every certificate (api.md §8.1): tolerates clocks that lag a little. */
export const NOT_BEFORE_BACKDATE_SECONDS = 10
/**
 * Group commit of the ledger: a turn of the event loop with so many rows, or milliseconds
 * (signing.md §3.3).
 */
export const LEDGER_GROUP_ROWS = 8
export const LEDGER_GROUP_MS = 1
/** Rows waiting for the ledger before issuance is refused with unavailable. */
export const LEDGER_QUEUE_ROWS_MAX = 20_000
/** Entries in remembered answers for all agents together: 8 bytes each (entry cache). */
export const AUTHORIZED_ENTRIES_CACHED_MAX = 1_000_000
/** Push stream: heartbeat, and entries per message so that one stays far under MESSAGE_BYTES_MAX. */
export const SYNC_HEARTBEAT_MS = 10_000
export const SYNC_ENTRIES_PER_MESSAGE = 500
export const SYNC_MESSAGE_BYTES = 1024 * 1024
/** How often streams are checked for expiry and heartbeats: an end must come within a second. */
export const SYNC_CHECK_MS = 500
/** Streams written to before other work has its turn: about 3 ms. */
export const SYNC_WAKES_PER_TURN = 200
/** A database that does not say by then whether an agent is banned ends its stream. */
export const SYNC_CONFIRM_MS_MAX = 700
/** From a denial to the end of its connection, for a client that does not read. */
export const SYNC_CLOSE_AFTER_MS = 1_000
/** A client that opens a stream says at once where it stands. */
export const SYNC_HELLO_MS_MAX = 10_000
/** Changed entries remembered for one slow reader; above that it gets a snapshot. */
export const SYNC_DIRTY_ENTRIES_MAX = 10_000
/** Agent and entry IDs remembered for agents that come back with a cursor; 8 bytes each. */
export const SYNC_HISTORY_WEIGHT_MAX = 500_000
/** Agents of whom it is remembered that something was forgotten. */
export const SYNC_HISTORY_AGENTS_MAX = 100_000
/** Workload API connections and streams that one uid may hold open on an agent. */
export const WORKLOAD_CONNECTIONS_PER_UID_MAX = 2_000
export const WORKLOAD_STREAMS_PER_CONNECTION_MAX = 1_000
/**
 * Text of a status: it travels in a trailer, percent-encoded and once more in the details, and
 * clients take 16 KiB of trailers (grpc-js) or end the stream.
 */
export const STATUS_TEXT_BYTES_MAX = 2_048
/** One field or message of a log line: a CSR in an audit record fits, a flood does not. */
export const LOG_FIELD_CHARS_MAX = 8 * 1024
/** Fields of one line, and elements of a list in it. */
export const LOG_FIELDS_MAX = 100
/** The owner writes, its group reads: log lines name identities and peers. */
export const LOG_FILE_MODE = 0o640
/** Label sets of one metric; what comes later counts under `overflow` (a peer must not grow memory). */
export const METRIC_SERIES_MAX = 1_000
/** Metric names: keys are our constants, so reaching this is a bug of ours. */
export const METRIC_NAMES_MAX = 2_000
/** Recent samples kept per series for the quantiles. */
export const METRIC_WINDOW_SAMPLES = 512
/** Connections of the metrics and of the health listener, and time for a request's headers. */
export const HTTP_CONNECTIONS_MAX = 100
export const HTTP_HEADERS_MS_MAX = 10_000
/** TLS connections of the server's door: an agent needs one or two. */
export const TCP_CONNECTIONS_MAX = 50_000
/** Handshakes in progress: each costs a signature, so a flood of them is shed, not queued. */
export const HANDSHAKES_MAX = 2_000
/** Connections of the admin socket. */
export const UDS_CONNECTIONS_MAX = 1_000
/** Of those, from one address: a fleet behind one NAT that reconnects at once still gets through. */
export const HANDSHAKES_PER_ADDRESS_MAX = 1_000
/** Refused client certificates that are logged; the rest is counted only. */
export const REFUSALS_LOGGED_PER_SECOND = 20
/** What one HTTP/2 session may hold in memory, queued output included. */
export const HTTP2_SESSION_MEGABYTES_MAX = 64
/** Configuration text and nesting: SPIRE's largest sample is 12 KiB and five deep. */
export const CONFIG_BYTES_MAX = 1024 * 1024
export const CONFIG_DEPTH_MAX = 64
/** The embedded PostgreSQL's log; one predecessor is kept. */
export const EMBEDDED_LOG_BYTES_MAX = 10 * 1024 * 1024
/** One certificate: the largest seen in public PKIs is under 32 KiB. */
export const CERTIFICATE_BYTES_MAX = 64 * 1024
/** Signature checks of one path search: Go's bound, so a maze of intermediates costs milliseconds. */
export const CHAIN_SIGNATURE_CHECKS_MAX = 100
/** Entries one agent takes from a server: SPIRE deployments reach 100,000 (design.md §9). */
export const ENTRIES_PER_AGENT_MAX = 1_000_000
/** One DNS name (RFC 1035 §2.3.4). */
export const DNS_NAME_BYTES_MAX = 253
/** Pooled database connections of one server, besides one for the ledger and one that listens. */
export const DATABASE_CONNECTIONS_DEFAULT = 10
/** The ledger: groups on their way to PostgreSQL at once, and rows of one COPY. */
export const LEDGER_GROUPS_IN_FLIGHT_MAX = 4
export const LEDGER_COPY_ROWS_MAX = 5_000
/** A key ID is an index entry of the bundle; SPIRE's and ours have 32 bytes. */
export const KEY_ID_BYTES_MAX = 1024
/** Weekly ledger partitions made ahead: SVIDs that live longer lie in the default one. */
export const LEDGER_PARTITION_WEEKS = 6
/** Entries or agents read per statement when all are loaded. */
export const LOAD_PAGE_ROWS = 5_000
/** Challenges of one node attestation: TPM attestors need two. */
export const ATTESTATION_CHALLENGES_MAX = 16
/** What an attesting agent may take for one message: a TPM answers within seconds. */
export const ATTESTATION_WAIT_MS_MAX = 30_000
/** Attestations under way, each with up to ATTESTATION_BYTES_MAX in memory; and from one address. */
export const ATTESTATIONS_MAX = 1_000
export const ATTESTATIONS_PER_ADDRESS_MAX = 200
/** A trust bundle fetched for bootstrap. */
export const BOOTSTRAP_BUNDLE_BYTES_MAX = 1024 * 1024
/** GetFederatedBundle calls under way at once (api.md §11.3). */
export const FEDERATED_BUNDLES_PARALLEL = 10
/** Token buckets of the server's doors: one per caller and limit that is not full. */
export const RATE_BUCKETS_MAX = 100_000
/** A call waits at most this long for its turn: agents give up after 30 s (api.md §11.1). */
export const RATE_WAIT_MS_MAX = 60_000
/** Items of one Batch* call; SPIRE's CLI sends a whole file at once, a message holds about 40,000. */
export const BATCH_ITEMS_MAX = 50_000
/** What an agent says its version is (api.md §7.1). */
export const AGENT_VERSION_LENGTH_MAX = 255
/** One join token: its value is a path segment of a SPIFFE ID. */
export const JOIN_TOKEN_BYTES_MAX = 255
/** JSON documents from outside: JWKs and claims are three deep, operators' claims a little more. */
export const JSON_DEPTH_MAX = 32
/** A JWT-SVID: the largest one issued here (AUDIENCES_MAX × AUDIENCE_BYTES_MAX, in base64) fits. */
export const JWT_SVID_BYTES_MAX = 256 * 1024
/** Keys of one bundle document (reliability.md T-F5: 100,000 keys are an attack). */
export const BUNDLE_KEYS_MAX = 1_000
/** Workload API connections of all users together: each holds two file descriptors and a socket. */
export const WORKLOAD_CONNECTIONS_MAX = 10_000
/** Token buckets kept per agent; one per method and set of selectors. */
export const RATE_LIMIT_BUCKETS_MAX = 10_000
/** Change-log rows of one read: a reader further behind loads everything anew. */
export const CHANGES_PER_READ_MAX = 10_000
/** Entries of one SyncAuthorizedEntries message, in bytes: under MESSAGE_BYTES_MAX with one whole entry to spare. */
export const SYNC_PAGE_BYTES = 3 * 1024 * 1024
/** The agent's sealed cache: 100,000 entries with 1,000 SVIDs stay under 60 MB. */
export const SEALED_CACHE_BYTES_MAX = 256 * 1024 * 1024
/** Seal keys looked at when an agent starts; hosts have a few, a test machine hundreds. */
export const SEAL_KEY_FILES_MAX = 1_000
/** A request of the Workload API: a JWT-SVID to validate and an audience, or a list of audiences. */
export const WORKLOAD_REQUEST_BYTES_MAX = 256 * 1024
/** The change log is read at each notification and this often besides. */
export const CHANGE_READ_MS = 1_000
/** Longest pause between two attempts while the database is away. */
export const CHANGE_RETRY_MS_MAX = 5_000
/** How old a cached agent row may be to authorize a call: a ban bites within it (T-S1). */
export const AGENT_ROW_AGE_MS_MAX = 1_500
/** DNS names of one SVID together: what is issued must stay far under CERTIFICATE_BYTES_MAX. */
export const SVID_DNS_NAMES_BYTES_MAX = 32 * 1024
