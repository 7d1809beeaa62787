//! The ABI shared by the eBPF programs and the enforcer: map keys, map values, events and the synthetic address plan.
//! Every type is `repr(C)`, without implicit padding, and its size is asserted here, so that both sides are compiled
//! against the same layout or not at all.
#![cfg_attr(not(feature = "user"), no_std)]

pub mod files;

/// First address of the synthetic range 198.18.0.0/15 (RFC 2544 benchmarking space), host byte order.
pub const POOL_BASE: u32 = 0xc612_0000;
/// Netmask of the synthetic range.
pub const POOL_MASK: u32 = 0xfffe_0000;
/// 198.18.0.1: the only address the gateway's TCP listener is bound to.
pub const GATEWAY_ADDR: u32 = POOL_BASE + 1;
/// 198.18.0.2: DNS.
pub const DNS_ADDR: u32 = POOL_BASE + 2;
/// 198.18.0.3: `agentcontainer.internal`.
pub const INTERNAL_ADDR: u32 = POOL_BASE + 3;
/// 198.18.1.0: the first address that is handed out to a name.
pub const POOL_FIRST: u32 = POOL_BASE + 0x100;
/// The DNS port.
pub const DNS_PORT: u16 = 53;

/// Entries of the gate: names times ports, in two generations while one replaces the other.
pub const GATE_ENTRIES: u32 = 131_072;
/// Literal networks times ports, in two generations.
pub const NETWORK_ENTRIES: u32 = 8_192;
/// Networks and addresses of the gateway's own gate.
pub const DIAL_ENTRIES: u32 = 4_096;
/// Size of the event ring buffer: a power of two of pages; 4,096 events of 88 bytes fit.
pub const EVENTS_BYTES: u32 = 512 * 1024;

/// IPPROTO_TCP.
pub const TCP: u8 = 6;
/// IPPROTO_UDP.
pub const UDP: u8 = 17;

/// What one session's programs work by; element 0 of the `SETTINGS` array. The generation is the one word that a
/// policy change flips.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Cookie of the wired network namespace; 0: none, everything is denied.
    pub netns_cookie: u64,
    /// Generation that `GATE` and `NETWORKS` keys must carry; 0: none, everything is denied.
    pub generation: u32,
    pub _pad: u32,
}
const _: () = assert!(size_of::<Settings>() == 16);

/// Key of `GATE`: one synthetic address, port and transport in one policy generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GateKey {
    pub generation: u32,
    /// Host byte order.
    pub addr: u32,
    /// Host byte order.
    pub port: u16,
    /// [`TCP`] or [`UDP`].
    pub proto: u8,
    pub _pad: u8,
}
const _: () = assert!(size_of::<GateKey>() == 12);

/// Key data of the `NETWORKS` LPM trie, most significant bit first: generation, port, proto, address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NetworkKey {
    /// Big-endian.
    pub generation: [u8; 4],
    /// Big-endian.
    pub port: [u8; 2],
    pub proto: u8,
    pub _pad: u8,
    /// Network byte order.
    pub addr: [u8; 4],
}
const _: () = assert!(size_of::<NetworkKey>() == 12);
/// Bits of a [`NetworkKey`] that are always compared, before the network's own prefix.
pub const NETWORK_KEY_FIXED_BITS: u32 = 64;

/// Who made a socket call, as the kernel knew it inside the hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    pub pid: u32,
    /// In the initial user namespace.
    pub uid: u32,
    pub _pad: u32,
    pub cgroup: u64,
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<Process>() == 40);

/// Key of `FLOWS`: a TCP connection as its client sees it. All host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub local_addr: u32,
    pub remote_addr: u32,
    pub local_port: u16,
    pub remote_port: u16,
}
const _: () = assert!(size_of::<FlowKey>() == 12);

/// Key of `DIAL_ADDRESSES`: one address the gateway may dial.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DialKey {
    /// Network byte order; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// Host byte order.
    pub port: u16,
    /// With [`DIAL_ANYWHERE`] and no address: any address that is not [`DIAL_NEVER`].
    pub proto: u8,
    /// AF_INET or AF_INET6.
    pub family: u8,
}
const _: () = assert!(size_of::<DialKey>() == 20);

/// Values of `DIAL_NETWORKS4`/`6`.
pub const DIAL_ALLOW: u32 = 1;
pub const DIAL_DENY: u32 = 2;
/// Denied whatever the port.
pub const DIAL_NEVER: u32 = 3;
/// Added to the transport of a [`DialKey`] that stands for a port at any address.
pub const DIAL_ANYWHERE: u8 = 0x80;

/// Which hook an event comes from.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Connect4 = 1,
    Connect6 = 2,
    Sendmsg4 = 3,
    Sendmsg6 = 4,
    Bind4 = 5,
    Bind6 = 6,
    SockCreate = 7,
    SkbEgress = 8,
    GatewayConnect4 = 9,
    GatewayConnect6 = 10,
    GatewaySendmsg4 = 11,
    GatewaySendmsg6 = 12,
}

/// Why a hook denied, or 0 for an event that is no denial. The one list of reasons: `Reason::code` is what people read.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No denial: a network namespace that is not wired made its first socket, and asks to be.
    WireRequest = 0,
    /// The socket lives in a network namespace that is not the wired one.
    ForeignNamespace = 1,
    /// Address, port and transport are not in the gate for this generation.
    NotAllowed = 2,
    PortZero = 3,
    /// IPv6 other than ::1, :: and v4-mapped.
    Ipv6 = 4,
    /// bind to an address that belongs to the gateway.
    BindReserved = 5,
    /// Socket family, type or protocol outside the closed list.
    SocketType = 6,
    /// A packet that was not for the loopback device.
    NotLoopback = 7,
    /// The programs have no settings, or a helper failed.
    Internal = 8,
    /// The gateway dialled a private, link-local or metadata address that policy does not name.
    GatewayRange = 9,
}

/// One record of the `EVENTS` ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub netns_cookie: u64,
    pub process: Process,
    /// Network byte order; IPv4 in the first four bytes with `family` AF_INET.
    pub addr: [u8; 16],
    /// Host byte order.
    pub port: u16,
    /// AF_INET or AF_INET6 (for SocketType: what was asked for).
    pub family: u16,
    /// A [`Hook`].
    pub hook: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// Transport, where known; for SocketType the socket's type.
    pub proto: u8,
    pub _pad: u8,
    pub generation: u32,
    pub _pad2: u32,
}
const _: () = assert!(size_of::<Event>() == 80);

/// Slots of the per-CPU `COUNTERS` array.
pub mod counter {
    /// Denials, whether or not their event found room.
    pub const DENIED: u32 = 0;
    /// Events that the ring buffer had no room for.
    pub const LOST: u32 = 1;
    /// Packets dropped on their way to another device than loopback.
    pub const PACKETS: u32 = 2;
    /// Opens that the rules about files were asked about.
    pub const OPENS: u32 = 3;
    /// Programs that were started where the list of what may be is held without LSM programs.
    pub const STARTS: u32 = 4;
    /// Of those, what was to be ended and could not be.
    pub const NOT_ENDED: u32 = 5;
    pub const COUNT: u32 = 6;
}

#[cfg(feature = "user")]
mod pod {
    use super::*;
    // SAFETY: repr(C), only integers and arrays of integers, no padding (sizes asserted above), any bit pattern valid.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for GateKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NetworkKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Process {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for DialKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Offsets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Name {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Opener {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Inode {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Glob {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Place {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Looked {}
    // SAFETY: as above.
    unsafe impl aya::Pod for files::Approved {}
}
