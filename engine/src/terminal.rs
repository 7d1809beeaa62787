//! What a program on a terminal inside is told of the person's terminal: its name, where an image can be expected to know it. An engine
//! says `xterm` to everybody, and programs that draw a screen take that at its word.

use std::collections::BTreeMap;

/// The terminals that Debian's `ncurses-base` describes and people use. Any other that has a name is taken for the one that all
/// graphical ones can be.
const KNOWN: [&str; 12] = [
    "ansi",
    "dumb",
    "linux",
    "screen",
    "screen-256color",
    "sun",
    "tmux",
    "tmux-256color",
    "vt100",
    "vt220",
    "xterm",
    "xterm-256color",
];
const ANY: &str = "xterm-256color";

/// `TERM` for the inside, and `COLORTERM` where the terminal has all colours; nothing else of either comes in.
pub fn environment(local_env: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let Some(name) = local_env("TERM").filter(|name| !name.is_empty()) else {
        return BTreeMap::new();
    };
    let known = KNOWN.into_iter().find(|known| *known == name);
    let mut out = BTreeMap::from([("TERM".to_owned(), known.unwrap_or(ANY).to_owned())]);
    let colours = local_env("COLORTERM").unwrap_or_default();
    if ["truecolor", "24bit"].contains(&colours.as_str()) {
        out.insert("COLORTERM".to_owned(), colours);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_terminal_is_called_what_an_image_knows() {
        for (term, colours, shown) in [
            ("tmux-256color", "", "TERM=tmux-256color"),
            (
                "xterm-kitty",
                "truecolor",
                "COLORTERM=truecolor TERM=xterm-256color",
            ),
            ("../../etc\n", "$(id)", "TERM=xterm-256color"),
            ("", "truecolor", ""),
        ] {
            let local = |name: &str| match name {
                "TERM" => Some(term.to_owned()),
                "COLORTERM" => Some(colours.to_owned()),
                _ => None,
            };
            let all: Vec<String> = environment(&local)
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            assert_eq!(all.join(" "), shown);
        }
        assert!(environment(&|_| None).is_empty());
    }
}
