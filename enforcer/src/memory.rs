//! Keeps the daemon small: what it reads once (its own binary, BTF, a policy of ten thousand rules) goes back to the system.
//! glibc raises its own thresholds with the first large block that is freed, and then keeps what follows; fixed, it does not.

/// Sets the allocator up. To be called first, before a thread is started.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, 128 * 1024),
        (libc::M_TRIM_THRESHOLD, 128 * 1024),
    ] {
        // SAFETY: mallopt(3) changes the allocator's own settings; no other thread runs yet. Where it is refused nothing changes.
        unsafe { libc::mallopt(option, value) };
    }
}
