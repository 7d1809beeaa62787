#![allow(clippy::unwrap_used)]
use super::*;

fn path(text: &str) -> PathPattern {
    text.parse().unwrap()
}

const FOLDER: [&str; 2] = ["workspaces", UNKNOWN];

#[test]
fn a_tree_covers_what_lies_in_it_and_nothing_that_might_not() {
    for (wide, narrow, covered) in [
        ("/srv/**", "/srv/a/b", true),
        ("/srv", "/srv/a/b", true),
        ("/srv", "/srv", true),
        ("/srv/a", "/srv", false),
        ("/srv", "/srv2", false),
        ("/srv/*/cache", "/srv/x/cache/y", true),
        ("/srv/*/cache", "/srv/*/cache", true),
        ("/srv/*.d", "/srv/x*.d", true),
        ("/srv/*.d", "/srv/*", false),
        ("/srv/x", "/srv/*", false),
        ("/srv", "/srv/**/x", true),
        ("/srv/*/x", "/srv/**/x", false),
        ("/srv/a/**", "/srv/**", false),
        ("**/target", "target", true),
        ("**/target", "a/target/debug", true),
        ("**/target", "**/target", true),
        ("**/target", "a/**/target", false),
        ("**/target", "/workspaces/a/target", false),
        ("/workspaces/**", "build", true),
        ("/workspaces/*/build", "build/x", true),
        ("/workspaces/mine/build", "build", false),
    ] {
        assert_eq!(
            covers(&path(wide), &path(narrow), Some(&FOLDER)),
            covered,
            "{wide} {narrow}"
        );
    }
    // Nothing is known of the folder.
    assert!(!covers(&path("/workspaces/**"), &path("build"), None));
    assert!(covers(&path("**/build"), &path("build"), None));
}

#[test]
fn what_may_lie_in_a_tree_is_found_and_what_cannot_is_not() {
    for (own, tree, may_be) in [
        ("/srv/a", "/srv", true),
        ("/srv", "/srv/a", false),
        ("/etc/x", "/srv", false),
        ("/srv/*/x", "/srv/a", true),
        ("src/x", "**/src", true),
        ("src/x", "/workspaces/mine", true),
        ("src/x", "/etc/ssl", false),
        ("/etc/ssl/x", "**/src", false),
        ("/workspaces/mine/src/x", "**/src", true),
    ] {
        assert_eq!(
            may_be_within(&path(own), &path(tree), Some(&FOLDER)),
            may_be,
            "{own} {tree}"
        );
    }
    assert!(may_be_within(&path("src"), &path("/etc/ssl"), None));
}
