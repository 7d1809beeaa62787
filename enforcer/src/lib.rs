//! enforcer.
