//! One attempt of the red team and what came of it: the positive control first, then the same under agentcontainer.
