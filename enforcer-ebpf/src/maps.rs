//! The maps of a session. Names are the ABI with the enforcer's loader.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SockMap, lpm_trie::Key},
};
use enforcer_common::{DialKey, FlowKey, GateKey, NetworkKey, Process, Settings, counter};

/// Element 0: what the programs work by.
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Synthetic addresses and ports that may be dialled. Its value is not read: presence is the permission.
#[map]
pub static GATE: HashMap<GateKey, u32> =
    HashMap::with_max_entries(enforcer_common::GATE_ENTRIES, BPF_F_NO_PREALLOC);

/// Literal networks and ports that may be dialled.
#[map]
pub static NETWORKS: LpmTrie<NetworkKey, u32> =
    LpmTrie::with_max_entries(enforcer_common::NETWORK_ENTRIES, BPF_F_NO_PREALLOC);

/// Who called connect, by socket cookie, for the connection's first packet.
#[map]
pub static CONNECTS: LruHashMap<u64, Process> = LruHashMap::with_max_entries(4096, 0);

/// Who opened a TCP connection, by its addresses and ports: what the enforcer looks up for the gateway's records.
#[map]
pub static FLOWS: LruHashMap<FlowKey, Process> = LruHashMap::with_max_entries(8192, 0);

/// Slot 0: the gateway's listening socket.
#[map]
pub static LISTENER: SockMap = SockMap::with_max_entries(1, 0);

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(enforcer_common::EVENTS_BYTES, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Networks the gateway's process may (1) or may not (2) dial; most specific wins, no match denies.
#[map]
pub static DIAL_NETWORKS4: LpmTrie<[u8; 4], u32> =
    LpmTrie::with_max_entries(enforcer_common::DIAL_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub static DIAL_NETWORKS6: LpmTrie<[u8; 16], u32> =
    LpmTrie::with_max_entries(enforcer_common::DIAL_ENTRIES, BPF_F_NO_PREALLOC);

/// Single addresses and ports the gateway's process may dial whatever their network: its resolver, its proxy.
#[map]
pub static DIAL_ADDRESSES: HashMap<DialKey, u32> =
    HashMap::with_max_entries(enforcer_common::DIAL_ENTRIES, BPF_F_NO_PREALLOC);

/// The settings, or all zero, by which everything is denied.
#[inline(always)]
pub fn settings() -> Settings {
    match SETTINGS.get(0) {
        Some(settings) => *settings,
        None => Settings { netns_cookie: 0, generation: 0, _pad: 0 },
    }
}

#[inline(always)]
pub fn count(slot: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is this CPU's own slot, valid for the program's run.
        unsafe { *counter += 1 };
    }
}

/// A key of `DIAL_NETWORKS4`/`6` for a single address.
#[inline(always)]
pub fn single<const N: usize>(addr: [u8; N]) -> Key<[u8; N]> {
    Key::new(8 * N as u32, addr)
}
