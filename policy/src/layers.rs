//! What a host's kernel has for rules that mounts do not carry.

/// Each is there, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers<'a> {
    /// BPF LSM: every open, change and start is seen before it is done, and refused.
    pub lsm: Result<(), &'a str>,
    /// A tracepoint: every start is seen before the program's first instruction, and the program ended.
    pub starts: Result<(), &'a str>,
}

impl Layers<'_> {
    /// Of a host that has both.
    pub const ALL: Layers<'static> = Layers {
        lsm: Ok(()),
        starts: Ok(()),
    };
}
