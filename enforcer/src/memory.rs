//! The daemon's memory: small, and nobody else's. Small: what it reads once (its own binary, BTF, a policy of ten thousand rules) goes back to the system.
//! glibc raises its own thresholds with the first large block that is freed, and then keeps what follows; fixed, it does not.

/// Values of credentials pass through this process: no core file of it, and its memory is read by nobody without CAP_SYS_PTRACE.
///
/// # Errors
/// The kernel refused one of the two.
pub fn keep_to_itself() -> std::io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only read what they are given.
    let refused = unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none) != 0
            || libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) != 0
    };
    if refused {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

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
