//! The public suffix list, asked one question. A crate of its own because the list is generic code of ten thousand branches that the
//! compiler makes anew in whichever crate asks it: here that is once, and not at each change of `schema`.

#![forbid(unsafe_code)]

/// Whether `name` (canonical, ASCII) is itself on the list, private domains included (publicsuffix.org/list).
pub fn holds(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix == name.as_bytes())
}
