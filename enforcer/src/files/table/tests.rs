#![allow(clippy::unwrap_used)]
use super::*;
use FileRight::{Denied, ReadOnly, Writable};
use schema::request::segments_match;

fn rule(path: &str, say: Say) -> Rule {
    Rule {
        path: path.split('/').map(str::to_owned).collect(),
        say,
    }
}

/// As the program in the kernel does it.
fn place(table: &Table, path: &[&str]) -> Place {
    let word = |bytes: &[u8], at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let mut state = 0;
    for name in path.iter().rev() {
        let spelt = Name::new(name.as_bytes());
        let found = table
            .names
            .iter()
            .find(|(known, _)| Some(known) == spelt.as_ref());
        let class = match found {
            Some((_, class)) => *class,
            None => {
                let (mut head, mut tail) = ([0; 16], [0; 16]);
                let n = name.len().min(16);
                head[..n].copy_from_slice(&name.as_bytes()[..n]);
                tail[16 - n..].copy_from_slice(&name.as_bytes()[name.len() - n..]);
                let mut set = 0;
                for (at, glob) in table.globs.iter().enumerate() {
                    let fits = name.len() as u64 >= glob.shortest
                        && (0..2).all(|w| word(&head, 8 * w) & glob.head_mask[w] == glob.head[w])
                        && (0..2).all(|w| word(&tail, 8 * w) & glob.tail_mask[w] == glob.tail[w]);
                    set |= usize::from(fits) << at;
                }
                table.glob_classes[set]
            }
        };
        state = table.next[(state * table.classes + class) as usize];
    }
    table.places[state as usize]
}

fn rights(table: &Table, path: &str) -> u32 {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    place(table, &names).rights & !right::NAMED
}

/// The same, as it is defined: a denial anywhere on the way, else the longest that matches, the stricter of equals.
fn defined(rules: &[Rule], path: &[&str]) -> u32 {
    let mut holds = 0;
    let (mut closed, mut execute) = (0, false);
    for end in 0..=path.len() {
        let matched = |say: Say| {
            rules.iter().any(|rule| {
                let pattern: Vec<&str> = rule.path.iter().map(String::as_str).collect();
                rule.say == say && segments_match(&pattern, &path[..end])
            })
        };
        if matched(Say::Right(Denied)) {
            return right::DENIED;
        }
        if matched(Say::Right(ReadOnly)) {
            holds = right::READ_ONLY;
        } else if matched(Say::Right(Writable)) {
            holds = 0;
        }
        // Of one place one thing is mounted.
        if matched(Say::Mounted {
            read_only: true,
            file: false,
        }) {
            closed = right::CLOSED;
        }
        execute = matched(Say::Execute);
    }
    holds
        | closed
        | if execute {
            right::READ_ONLY | right::EXECUTE
        } else {
            0
        }
}

#[test]
fn rules_hold_for_what_matches_and_all_below_it() {
    let table = Table::new(
        &[
            rule("w/**/.env", Say::Right(Denied)),
            rule("w/**/*.lock", Say::Right(ReadOnly)),
            rule("w/vendor", Say::Right(ReadOnly)),
            rule("w/vendor/cache", Say::Right(Writable)),
            rule("usr/bin/git", Say::Execute),
        ],
        true,
    )
    .unwrap();
    for (path, expected) in [
        ("", 0),
        ("w/.env", right::DENIED),
        ("w/a/b/.env", right::DENIED),
        ("w/a/.env/below/it", right::DENIED),
        ("w/.envrc", 0),
        (".env", 0),
        ("x/.env", 0),
        ("w/Cargo.lock", right::READ_ONLY),
        ("w/a/.lock", right::READ_ONLY),
        ("w/a/lock", 0),
        ("w/vendor", right::READ_ONLY),
        ("w/vendor/x", right::READ_ONLY),
        ("w/vendor/cache/x", 0),
        ("w/vendor/cache/x.lock", right::READ_ONLY),
        ("w/vendor/cache/.env", right::DENIED),
        ("usr/bin/git", right::READ_ONLY | right::EXECUTE),
        ("usr/bin/git/x", 0),
        ("usr/bin/gi", 0),
    ] {
        assert_eq!(rights(&table, path), expected, "{path}");
    }
    assert!(table.listed);
}

#[test]
fn directories_have_one_class_where_the_same_holds_below_them() {
    let table = Table::new(
        &[
            rule("w/**/.env", Say::Right(Denied)),
            rule("w/secret/*.key", Say::Right(Denied)),
        ],
        false,
    )
    .unwrap();
    let class = |path: &str| {
        let names: Vec<&str> = path.split('/').collect();
        place(&table, &names).class
    };
    assert_eq!(class("w/a"), class("w/a/b/c"));
    assert_eq!(class("x"), class("y/z"));
    assert_ne!(class("w/a"), class("x"));
    assert_ne!(class("w/secret"), class("w/a"));
    assert_ne!(class("w/a/secret"), class("w/secret"));
    assert_eq!(class("w/a/secret"), class("w/b"));
    // Where a rule's own name is no link may stand.
    let named = |path: &str| {
        let names: Vec<&str> = path.split('/').collect();
        place(&table, &names).rights & right::NAMED != 0
    };
    for (path, expected) in [
        ("w", true),
        ("w/secret", true),
        ("w/secret/a.key", true),
        ("w/b/.env", true),
        ("w/secret/a", false),
        ("w/b", false),
        ("w/b/secret", false),
        ("x", false),
    ] {
        assert_eq!(named(path), expected, "{path}");
    }
}

#[test]
fn what_a_person_approved_says_by_which_number() {
    let executes = right::READ_ONLY | right::EXECUTE;
    let approved = executes | right::APPROVED;
    let table = Table::new(
        &[
            rule("usr/bin/git", Say::Execute),
            rule("usr/bin/git", Say::Approved(3)),
            rule("usr/bin/id", Say::Approved(1)),
            rule("usr/bin/env", Say::Approved(u16::MAX)),
            rule("w/frozen", Say::Right(ReadOnly)),
            rule("w/secret", Say::Right(Denied)),
            rule("w/secret/x", Say::Approved(4)),
        ],
        true,
    )
    .unwrap();
    for (path, expected) in [
        ("usr/bin/git", executes),
        ("usr/bin/id", approved | 1 << 16),
        ("usr/bin/id/x", 0),
        ("usr/bin/env", approved | u32::from(u16::MAX) << 16),
        ("usr/bin/ls", 0),
        ("w/frozen", right::READ_ONLY),
        ("w/secret/x", right::DENIED),
    ] {
        assert_eq!(rights(&table, path), expected, "{path}");
    }
}

#[test]
fn what_is_read_only_by_its_mount_is_said_beside_what_rules_say() {
    let closed = |path: &str| {
        rule(
            path,
            Say::Mounted {
                read_only: true,
                file: false,
            },
        )
    };
    let open = |path: &str| {
        rule(
            path,
            Say::Mounted {
                read_only: false,
                file: false,
            },
        )
    };
    let root = Rule {
        path: Vec::new(),
        say: Say::Mounted {
            read_only: true,
            file: false,
        },
    };
    let table = Table::new(
        &[
            root,
            open("w/cache"),
            closed("w/cache/kept"),
            rule("w/cache/kept/free", Say::Right(Writable)),
            rule("w/**/.env", Say::Right(Denied)),
            rule("w/**/*.lock", Say::Right(ReadOnly)),
            rule(
                "w/cache/file",
                Say::Mounted {
                    read_only: false,
                    file: true,
                },
            ),
            rule(
                "etc/file",
                Say::Mounted {
                    read_only: true,
                    file: true,
                },
            ),
            rule("usr/bin/git", Say::Execute),
        ],
        true,
    )
    .unwrap();
    let executes = right::READ_ONLY | right::EXECUTE;
    for (path, expected) in [
        ("w/cache/file", right::COVERED),
        ("etc/file", right::CLOSED | right::COVERED),
        ("", right::CLOSED),
        ("etc/passwd", right::CLOSED),
        ("w/cache", 0),
        ("w/cache/x", 0),
        ("w/cache/kept/x", right::CLOSED),
        ("w/cache/kept/free/x", right::CLOSED),
        ("w/cache/x.lock", right::READ_ONLY),
        ("w/x.lock", right::CLOSED | right::READ_ONLY),
        ("w/.env/x", right::DENIED),
        ("usr/bin/git", right::CLOSED | executes),
    ] {
        assert_eq!(rights(&table, path), expected, "{path}");
    }
}

#[test]
fn what_the_table_cannot_say_is_refused() {
    let made = |paths: &[&str]| {
        let rules: Vec<Rule> = paths
            .iter()
            .map(|path| rule(path, Say::Right(Denied)))
            .collect();
        Table::new(&rules, false).map(drop)
    };
    assert_eq!(made(&["w/**/a*b"]), Ok(()));
    assert_eq!(made(&["w/a*b*c"]), Err(TableError::Glob("a*b*c".into())));
    let longest = format!("{0}*{0}", "x".repeat(MAX_PART));
    assert_eq!(made(&[&longest]), Ok(()));
    let longer = format!("{}*", "x".repeat(MAX_PART + 1));
    assert_eq!(made(&[&longer]), Err(TableError::Glob(longer.clone())));
    assert_eq!(made(&[&"n".repeat(MAX_NAME)]), Ok(()));
    let name = "n".repeat(MAX_NAME + 1);
    assert_eq!(made(&[&name]), Err(TableError::Name(name.clone())));
    let globs: Vec<String> = (0..=MAX_GLOBS).map(|n| format!("{n}*")).collect();
    let globs: Vec<&str> = globs.iter().map(String::as_str).collect();
    assert_eq!(made(&globs[..MAX_GLOBS]), Ok(()));
    assert_eq!(
        made(&globs),
        Err(TableError::Globs(globs[MAX_GLOBS].into()))
    );
    // The nth name from the end: as many states as sets of places.
    let deep = format!("w/**/a/{}z", "*/".repeat(14));
    assert!(matches!(made(&[&deep]), Err(TableError::TooMany(_))));
}

#[test]
fn hundreds_of_rules_fit() {
    let mut rules: Vec<Rule> = (0..300)
        .map(|n| rule(&format!("usr/bin/program-{n}"), Say::Execute))
        .collect();
    rules.push(rule("w/**/.env", Say::Right(Denied)));
    rules.extend((0..200).map(|n| rule(&format!("w/src/part{n}/file"), Say::Right(ReadOnly))));
    // What engines mount read-only, and covers of control files.
    let mounted = [
        "sys",
        "proc/bus",
        "proc/irq",
        "proc/sys",
        "w/.vscode/x.json",
    ];
    let closed = Say::Mounted {
        read_only: true,
        file: false,
    };
    rules.extend(mounted.iter().map(|path| rule(path, closed)));
    rules.extend((0..50).map(|n| rule(&format!("w/.git/modules/{n}/hooks"), closed)));
    let table = Table::new(&rules, true).unwrap();
    assert_eq!(
        rights(&table, "usr/bin/program-299"),
        right::READ_ONLY | right::EXECUTE
    );
    assert_eq!(rights(&table, "w/src/part199/file/x"), right::READ_ONLY);
    assert_eq!(rights(&table, "w/src/part199/.env/x"), right::DENIED);
    assert_eq!(rights(&table, "w/.git/modules/7/hooks/x"), right::CLOSED);
}

/// Numbers that are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

#[test]
fn the_table_says_what_the_rules_mean() {
    let says = [
        Say::Right(Denied),
        Say::Right(ReadOnly),
        Say::Right(Writable),
        Say::Mounted {
            read_only: true,
            file: false,
        },
        Say::Execute,
    ];
    let mut random = Random(7);
    let (mut compared, mut restricted) = (0, 0);
    for _ in 0..2000 {
        let rules: Vec<Rule> = (0..1 + random.below(5))
            .map(|_| Rule {
                path: (0..1 + random.below(4))
                    .map(|_| {
                        random
                            .of(&["a", "b", "ab", "*", "a*", "*b", "**", "**"])
                            .to_owned()
                    })
                    .collect(),
                say: random.of(&says),
            })
            .collect();
        let table = Table::new(&rules, true).unwrap();
        for _ in 0..40 {
            let path: Vec<&str> = (0..random.below(5))
                .map(|_| random.of(&["a", "b", "ab", "c", "abc", "ba", "aab"]))
                .collect();
            let said = place(&table, &path).rights & !right::NAMED;
            assert_eq!(said, defined(&rules, &path), "{rules:?} {path:?}");
            compared += 1;
            restricted += usize::from(said != 0);
        }
    }
    // Of both there is enough.
    assert!(
        restricted > compared / 5 && restricted < compared * 4 / 5,
        "{restricted} of {compared}"
    );
}
