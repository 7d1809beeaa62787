//! Every bound of the gateway in one place: SPEC's bounds table is written from here. Sizes and counts have a test at n
//! and n+1 unless their comment says why not; of deadlines those of a ClientHello, of a handshake with a client, of a dial, of a
//! request's head, of DNS over TCP and of connections at rest, by a clock that the test moves (`deadlines`).
//! A bound that is reached means refusal, never a fall-back to carrying bytes unread.

use std::time::Duration;

// === connections ===

/// Agent connections served at once; the next ones wait in the listener's backlog.
pub const CONNECTIONS: usize = 4096;
/// Private memory of the gateway's process (RLIMIT_DATA), which the bounds of single connections multiplied could pass: beyond
/// it the process ends, its connections reset, and the enforcer starts another.
pub const MEMORY: u64 = 1024 * 1024 * 1024;
/// File descriptors kept back from connections: channel, listeners, resolver sockets, DNS connections, pipes.
pub const RESERVED_FDS: u64 = 256 + 2 * PIPES as u64 + EXTRA_UPSTREAMS as u64;
/// Descriptors of one connection: the agent's and the upstream's. Pipes come out of what is kept back.
pub const FDS_PER_CONNECTION: u64 = 2;
/// No refusal: bytes moved through the copying path before a direction is given a pipe and spliced.
pub const SPLICE_AFTER: u64 = 256 * 1024;
/// No refusal: directions that may hold a splice pipe at once; the next ones are copied (each pins up to [`PIPE_BYTES`] of kernel memory).
pub const PIPES: usize = 256;
/// Capacity asked for a splice pipe.
pub const PIPE_BYTES: usize = 256 * 1024;
/// The scratch buffer of the copying path, one a worker thread; what the peer does not take is kept, at most this much
/// for each direction.
pub const RELAY_BUFFER: usize = 64 * 1024;

/// No refusal: one direction of a WebSocket over TLS.
pub const EXCHANGE_BUFFER: usize = 16 * 1024;

// === deadlines ===

/// Resolving and connecting, all addresses together.
pub const DIAL: Duration = Duration::from_secs(15);
/// One TCP connect.
pub const CONNECT: Duration = Duration::from_secs(10);
/// After this long without an answer the next vetted address is tried beside the first (RFC 8305).
pub const CONNECT_STAGGER: Duration = Duration::from_millis(250);
/// Vetted addresses that are tried for one connection; the rest of an answer is left aside. Not tested by itself.
pub const ADDRESSES: usize = 8;
/// A relayed connection on which nothing moves in either direction.
pub const IDLE: Duration = Duration::from_secs(2 * 60 * 60);
/// The same once one side has finished sending.
pub const IDLE_HALF_CLOSED: Duration = Duration::from_secs(5 * 60);
/// TCP keepalive on both sides: first probe after this long.
pub const KEEPALIVE: Duration = Duration::from_secs(60);
/// After a refusal was written, how long the client may take to close.
pub const LINGER: Duration = Duration::from_secs(2);
/// Not tested by itself. Bytes of a refused client that are read and thrown away, so that the refusal is not lost to a reset.
pub const LINGER_BYTES: usize = 256 * 1024;

// === TLS ===

/// A ClientHello, all handshake fragments together, handshake header included.
pub const CLIENT_HELLO: usize = 64 * 1024;
/// Payload of one TLS plaintext record (RFC 8446, 5.1).
pub const TLS_RECORD: usize = 1 << 14;
/// Raw bytes read before the ClientHello is whole: every record carries at least one byte of it behind a header of five.
pub const CLIENT_HELLO_RAW: usize = CLIENT_HELLO * 6;
/// From accept to a whole ClientHello.
pub const CLIENT_HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// From the checked ClientHello to the end of the handshake, on either side.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// Leaves of the session's authority that are remembered; the oldest makes room.
pub const LEAVES: usize = 1024;
/// How long the session's authority is good for: a session that outlives it is refused by its clients.
pub const CA_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The same for a leaf; another one is minted when half of it has passed.
pub const LEAF_LIFE: Duration = Duration::from_secs(48 * 60 * 60);
/// How far a client's clock may be behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);
/// Extensions in one ClientHello.
pub const TLS_EXTENSIONS: usize = 128;

// === HTTP ===

/// A request head: request line and headers, with the empty line.
pub const HTTP_HEAD: usize = 64 * 1024;
/// Header lines in a request.
pub const HTTP_HEADERS: usize = 100;
/// A request target.
pub const HTTP_TARGET: usize = 16 * 1024;
/// Bytes that a client may send behind its request for WebSocket before it has the answer.
pub const HTTP_EARLY: usize = 16 * 1024;
/// A chunk-size line with its extensions.
pub const HTTP_CHUNK_LINE: usize = 256;
/// A trailer section.
pub const HTTP_TRAILERS: usize = 8 * 1024;
/// Header lines in an upstream's response.
pub const HTTP_RESPONSE_HEADERS: usize = 200;
/// An upstream's response head: status line and headers, with the empty line.
pub const HTTP_RESPONSE_HEAD: usize = 64 * 1024;
/// No refusal of its own: buffer of one hyper connection.
pub const HTTP_BUFFER: usize = HTTP_HEAD;
/// From the first wait for a request to its whole head; also how long a kept-alive connection may rest.
pub const HTTP_HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 connection at once.
pub const H2_STREAMS: u32 = 100;
/// What one HTTP/2 stream may send ahead before the other side has taken it.
pub const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a connection together.
pub const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// No refusal: bytes of one stream that wait to be written.
pub const H2_SEND_BUFFER: usize = 64 * 1024;
/// Upstream connections of HTTP/1 that one client connection of HTTP/2 may have; its next requests wait.
pub const HTTP1_UPSTREAMS: usize = 8;
/// Those beyond the first one, in the whole session.
pub const EXTRA_UPSTREAMS: usize = 512;
/// No refusal: upstream connections of HTTP/1 that rest between two client connections, an equal part on each thread; the oldest of
/// the thread's makes room.
pub const RESTING_UPSTREAMS: usize = 256;
/// No refusal: how long one rests, shorter than servers keep theirs (Node's: 5 s).
pub const RESTING_UPSTREAM: Duration = Duration::from_secs(4);
/// No refusal: rules whose rates are kept; beyond it they are counted anew.
pub const RATES: usize = 10_000;
/// No refusal: compressed bytes that are taken at once, so that what comes of them (DEFLATE: at most 1,032 times as much) stays small.
pub const INFLATE: usize = 1024;
/// No refusal: bytes that inspectors look at again with what follows them; what they find is shorter.
pub const INSPECTED_OVERLAP: usize = 1024;
/// No refusal: compressed bytes at a body's end that wait while what they stand for is open: more than [`INSPECTED_OVERLAP`] of text takes.
pub const INSPECTED_HELD: usize = 4 * 1024;
/// Bytes of a WebSocket that wait while its message is open.
pub const INSPECTED_FRAMES: usize = 4 * EXCHANGE_BUFFER;
/// No refusal: bytes that inspectors look at at once.
pub const INSPECTED_AT_ONCE: usize = 16 * 1024;
/// What one compressed body may stand for and be looked through; beyond it, it counts as one that cannot be read.
pub const INSPECTED_INFLATED: u64 = 256 * 1024 * 1024;
/// Bytes of a URL that an event keeps.
pub const RECORDED_URL: usize = 2 * 1024;

// === DNS ===

/// A query, over UDP or TCP: a question of the longest name and an OPT record with options fit four times over.
pub const DNS_MESSAGE: usize = 1232;
/// DNS connections over TCP at once.
pub const DNS_TCP_CONNECTIONS: usize = 64;
/// Idle time of a DNS connection over TCP.
pub const DNS_TCP_IDLE: Duration = Duration::from_secs(10);
/// Queries on one DNS connection over TCP.
pub const DNS_TCP_QUERIES: usize = 1024;
/// Queries that wait for the enforcer at once; the next ones are answered SERVFAIL.
pub const PENDING_ALLOCATES: usize = 2048;
/// Time to live of an answer, seconds. The address is the name's for the life of the session.
pub const DNS_TTL: u32 = 60;

// === names under a wildcard (the residual channel of D02) ===

/// Bytes of a name that an agent may choose under an allowed wildcard, dots included.
pub const WILDCARD_CHOSEN_BYTES: usize = 128;
/// Different names under wildcards that a session may have resolved.
pub const WILDCARD_NAMES: usize = 2048;
/// Different new names under wildcards in a burst…
pub const WILDCARD_BURST: u32 = 128;
/// …and for each second after it.
pub const WILDCARD_PER_SECOND: u32 = 2;

// === approvals ===

/// How many may wait is the enforcer's to say. How often a client that waits is looked at, so that one that has gone is noticed.
pub const HELD_LOOK: Duration = Duration::from_millis(250);

// === control channel ===

/// One message of the control channel.
pub const CHANNEL_MESSAGE: usize = 64 * 1024;
/// Descriptors beside one message.
pub const CHANNEL_FDS: usize = 3;
/// A snapshot document. Not tested: policy has tighter bounds of its own, and the enforcer is trusted.
pub const SNAPSHOT: usize = 64 * 1024 * 1024;
/// How long the enforcer may take to answer Allocate: resolvers ask again after this long.
pub const CHANNEL_ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to record: a connection waits for this as long as for its upstream, so that a busy machine does
/// not refuse what policy allows.
pub const RECORD_ANSWER: Duration = DIAL;
/// Not tested at its edge. Events that wait on one thread to be sent; one without an answer that does not fit is counted and reported
/// as lost.
pub const QUEUED_EVENTS: usize = 1024;
/// Denials recorded in a burst…
pub const DENIAL_BURST: u32 = 1000;
/// …and for each second after it; the rest is counted and reported as lost.
pub const DENIALS_PER_SECOND: u32 = 200;
/// Denials that `http://agentcontainer.internal/` shows.
pub const SHOWN_DENIALS: usize = 50;
/// Bytes of any text an agent or upstream chose, in an event's detail.
pub const DETAIL: usize = 512;
/// Bytes of a name in a form, or in JSON, that are kept. A longer one is none that is looked for, where it does not begin as one.
pub const FORM_NAME: usize = 256;
/// Bytes of the head of a form's part.
pub const FORM_HEAD: usize = 4 * 1024;
/// Lines in the head of a form's part that some take for empty ones.
pub const FORM_ENDS: usize = 16;
