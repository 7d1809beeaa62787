//! The table that the programs about files look paths up in (`enforcer_common::files`). Rules become a deterministic automaton over a
//! path's names, which is then turned around: the kernel has a path from its end to the root, so a state of the table is what the names read so far
//! make of every state of the automaton. Whatever the number of rules, a path costs one look for each of its names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use enforcer_common::files::{
    Glob, MAX_GLOBS, MAX_NAME, MAX_PART, NAME_ENTRIES, NEXT_ENTRIES, Name, Place, STATE_ENTRIES,
    Settings, right,
};
use policy::FileRight;

/// Most states of the automaton before it is turned around.
const MAX_STATES: usize = 4096;
/// Most steps that making a table may take: init waits for it.
const MAX_WORK: usize = 50_000_000;

/// What is said of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Say {
    /// Of what matches and all below it.
    Right(FileRight),
    /// Of exactly this file: it may be executed, and nobody inside changes it.
    Execute,
    /// The same by a person's word, while it is what its directory has by this name, and the file that has this number.
    Approved(u16),
}

/// A rule, its path from the root of the container: names, names with one `*`, and `**` for any number of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub path: Vec<String>,
    pub say: Say,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TableError {
    #[error(
        "\"{0}\" has more than one `*` in a name, or more than {MAX_PART} bytes beside it: the kernel's table takes `*` and up to {MAX_PART} bytes before and after it"
    )]
    Glob(String),
    #[error("more than {MAX_GLOBS} different names with a `*`: {0} is one too many")]
    Globs(String),
    #[error("a name of more than {MAX_NAME} bytes: {0}")]
    Name(String),
    #[error(
        "the rules are too many, or their `**` too many in one path, for the kernel's table: {0}"
    )]
    TooMany(&'static str),
}

/// As the maps hold it.
#[derive(Debug)]
pub struct Table {
    pub names: Vec<(Name, u32)>,
    pub globs: Vec<Glob>,
    pub glob_classes: Vec<u32>,
    pub next: Vec<u32>,
    pub places: Vec<Place>,
    pub classes: u32,
    pub listed: bool,
}

/// A segment of a rule's path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`
    Any,
    /// `*`
    One,
    Literal(usize),
    Glob(usize),
}

/// What stands before and after a name's one `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    head: String,
    tail: String,
}

/// A class of names: those that match the same segments.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    literal: Option<usize>,
    /// A bit for each glob.
    globs: u32,
}

/// A state of the automaton: how far each rule has been read, and what holds so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct State {
    reading: BTreeSet<(usize, usize)>,
    holds: Option<FileRight>,
    /// The rights of what may be executed, or none.
    execute: u32,
}

impl Table {
    /// Without `**` or with; a rule with an empty path is of no use and is not asked for.
    /// `listed`: nothing is executed but what a rule says so of.
    pub fn new(rules: &[Rule], listed: bool) -> Result<Self, TableError> {
        let (rules, says, literals, globs) = segments(rules)?;
        let symbols = symbols(&literals, &globs);
        let (rows, outputs) = determinize(&rules, &says, &symbols)?;
        let (rows, outputs, root) = minimize(&rows, &outputs);
        // Each state twice: as it is, and as what a name leads to that a rule has at this place.
        let other = literals.len();
        let rows: Vec<Vec<u32>> = rows
            .iter()
            .flat_map(|row| {
                let named = |to: &u32| 2 * to + u32::from(*to != row[other]);
                let row: Vec<u32> = row.iter().map(named).collect();
                [row.clone(), row]
            })
            .collect();
        let root = 2 * root;
        let (columns, of_symbol) = merge(&rows, symbols.len());
        let (next, ends) = turn_around(&rows, &columns, root)?;
        let classes = columns.len();
        let name = |text: &String| Name::new(text.as_bytes()).ok_or(TableError::Name(text.clone()));
        Ok(Self {
            names: literals
                .iter()
                .zip(&of_symbol)
                .map(|(text, class)| Ok((name(text)?, *class)))
                .collect::<Result<_, TableError>>()?,
            globs: globs.iter().map(Parts::compiled).collect(),
            glob_classes: of_symbol[literals.len()..].to_vec(),
            next,
            places: ends
                .into_iter()
                .map(|state| Place {
                    class: state / 2,
                    rights: outputs[state as usize / 2]
                        | if state % 2 == 1 { right::NAMED } else { 0 },
                })
                .collect(),
            classes: classes as u32,
            listed,
        })
    }

    /// For the programs, with what they work by besides.
    pub fn settings(&self, besides: Settings) -> Settings {
        Settings {
            classes: self.classes,
            globs: self.globs.len() as u32,
            listed: self.listed.into(),
            ..besides
        }
    }
}

// === impl Parts ===

impl Parts {
    fn of(segment: &str) -> Option<Self> {
        let (head, tail) = segment.split_once('*')?;
        let fits = head.len() <= MAX_PART && tail.len() <= MAX_PART && !tail.contains('*');
        fits.then(|| Self {
            head: head.to_owned(),
            tail: tail.to_owned(),
        })
    }

    fn matches(&self, name: &str) -> bool {
        name.len() >= self.head.len() + self.tail.len()
            && name.starts_with(&self.head)
            && name.ends_with(&self.tail)
    }

    fn compiled(&self) -> Glob {
        let words = |bytes: &[u8], at: usize| {
            let (mut value, mut mask) = ([0u8; MAX_PART], [0u8; MAX_PART]);
            value[at..at + bytes.len()].copy_from_slice(bytes);
            mask[at..at + bytes.len()].fill(0xff);
            let word = |bytes: &[u8; MAX_PART], at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[at..at + 8]);
                u64::from_le_bytes(word)
            };
            (
                [word(&value, 0), word(&value, 8)],
                [word(&mask, 0), word(&mask, 8)],
            )
        };
        let (head, head_mask) = words(self.head.as_bytes(), 0);
        let (tail, tail_mask) = words(self.tail.as_bytes(), MAX_PART - self.tail.len());
        Glob {
            head,
            head_mask,
            tail,
            tail_mask,
            shortest: (self.head.len() + self.tail.len()) as u64,
        }
    }
}

type Segments = (Vec<Vec<Segment>>, Vec<Say>, Vec<String>, Vec<Parts>);

fn segments(rules: &[Rule]) -> Result<Segments, TableError> {
    let (mut paths, mut says) = (Vec::new(), Vec::new());
    let (mut literals, mut globs): (Vec<String>, Vec<Parts>) = Default::default();
    let mut known: HashMap<String, usize> = HashMap::new();
    for rule in rules {
        let mut path = Vec::new();
        for segment in &rule.path {
            path.push(match segment.as_str() {
                "**" if path.last() == Some(&Segment::Any) => continue,
                "**" => Segment::Any,
                "*" => Segment::One,
                text if text.contains('*') => {
                    let parts = Parts::of(text).ok_or(TableError::Glob(text.to_owned()))?;
                    let found = globs.iter().position(|glob| *glob == parts);
                    if found.is_none() {
                        if globs.len() == MAX_GLOBS {
                            return Err(TableError::Globs(text.to_owned()));
                        }
                        globs.push(parts);
                    }
                    Segment::Glob(found.unwrap_or(globs.len() - 1))
                }
                text if text.len() > MAX_NAME => return Err(TableError::Name(text.to_owned())),
                text => {
                    let next = literals.len();
                    let index = *known.entry(text.to_owned()).or_insert(next);
                    if index == next {
                        literals.push(text.to_owned());
                    }
                    Segment::Literal(index)
                }
            });
        }
        paths.push(path);
        says.push(rule.say);
    }
    if literals.len() > NAME_ENTRIES as usize {
        return Err(TableError::TooMany("names"));
    }
    Ok((paths, says, literals, globs))
}

/// Every literal, then every set of globs for names that no rule spells out.
fn symbols(literals: &[String], globs: &[Parts]) -> Vec<Symbol> {
    let matched = |name: &str| {
        globs
            .iter()
            .enumerate()
            .filter(|(_, glob)| glob.matches(name))
            .fold(0, |set, (at, _)| set | 1 << at)
    };
    let spelt = literals.iter().enumerate().map(|(at, name)| Symbol {
        literal: Some(at),
        globs: matched(name),
    });
    let others = (0..1u32 << MAX_GLOBS).map(|globs| Symbol {
        literal: None,
        globs,
    });
    spelt.chain(others).collect()
}

impl Segment {
    fn reads(&self, symbol: Symbol) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Literal(at) => symbol.literal == Some(*at),
            Self::Glob(at) => symbol.globs & 1 << at != 0,
        }
    }
}

/// One state for each row, one symbol for each column; the first row is the root. And what holds in each state.
fn determinize(
    rules: &[Vec<Segment>],
    says: &[Say],
    symbols: &[Symbol],
) -> Result<(Vec<Vec<u32>>, Vec<u32>), TableError> {
    let start = (0..rules.len()).map(|rule| (rule, 0));
    let start = settle(rules, says, start.collect(), None);
    let mut numbers: HashMap<State, u32> = HashMap::from([(start.clone(), 0)]);
    let (mut states, mut rows) = (vec![start], Vec::new());
    let mut work = 0;
    while rows.len() < states.len() {
        let state = states[rows.len()].clone();
        // What no rule that is being read spells out leads to the same state for the same globs.
        let mut others: HashMap<u32, u32> = HashMap::new();
        let spelt: BTreeSet<usize> = state
            .reading
            .iter()
            .filter_map(|(rule, at)| match rules[*rule].get(*at) {
                Some(Segment::Literal(literal)) => Some(*literal),
                _ => None,
            })
            .collect();
        let mut row = Vec::with_capacity(symbols.len());
        for symbol in symbols {
            let plain = symbol.literal.is_none_or(|at| !spelt.contains(&at));
            if plain && let Some(known) = others.get(&symbol.globs) {
                row.push(*known);
                continue;
            }
            work += state.reading.len() + 1;
            let next = read(rules, says, &state, *symbol);
            let number = match numbers.get(&next) {
                Some(number) => *number,
                None => {
                    let number = states.len() as u32;
                    if states.len() == MAX_STATES {
                        return Err(TableError::TooMany("states"));
                    }
                    numbers.insert(next.clone(), number);
                    states.push(next);
                    number
                }
            };
            if plain {
                others.insert(symbol.globs, number);
            }
            row.push(number);
        }
        work += symbols.len();
        if work > MAX_WORK {
            return Err(TableError::TooMany("steps"));
        }
        rows.push(row);
    }
    Ok((rows, states.iter().map(State::rights).collect()))
}

fn read(rules: &[Vec<Segment>], says: &[Say], state: &State, symbol: Symbol) -> State {
    if state.holds == Some(FileRight::Denied) {
        return state.clone();
    }
    let mut reading = BTreeSet::new();
    for &(rule, at) in &state.reading {
        let segment = &rules[rule][at];
        if segment.reads(symbol) {
            let next = if *segment == Segment::Any { at } else { at + 1 };
            reading.insert((rule, next));
        }
    }
    settle(rules, says, reading, state.holds)
}

/// `**` may stand for nothing; what has been read to its end holds from here on.
fn settle(
    rules: &[Vec<Segment>],
    says: &[Say],
    mut reading: BTreeSet<(usize, usize)>,
    before: Option<FileRight>,
) -> State {
    let skipped: Vec<_> = reading
        .iter()
        .filter(|(rule, at)| rules[*rule].get(*at) == Some(&Segment::Any))
        .map(|(rule, at)| (*rule, at + 1))
        .collect();
    reading.extend(skipped);
    let ended: Vec<Say> = reading
        .iter()
        .filter(|(rule, at)| *at == rules[*rule].len())
        .map(|(rule, _)| says[*rule])
        .collect();
    reading.retain(|(rule, at)| *at < rules[*rule].len());
    let strictest = [FileRight::Denied, FileRight::ReadOnly, FileRight::Writable]
        .into_iter()
        .find(|right| ended.contains(&Say::Right(*right)));
    let holds = strictest.or(before);
    if holds == Some(FileRight::Denied) {
        reading.clear();
    }
    let executes = ended.iter().filter_map(|say| say.executes()).min();
    State {
        reading,
        holds,
        execute: executes
            .filter(|_| holds != Some(FileRight::Denied))
            .unwrap_or(0),
    }
}

impl Say {
    /// The rights of what may be executed; of two the lower ones are the wider.
    fn executes(self) -> Option<u32> {
        match self {
            Self::Right(_) => None,
            Self::Execute => Some(right::EXECUTE),
            Self::Approved(number) => {
                let number = u32::from(number) << right::NUMBER_SHIFT;
                Some(right::EXECUTE | right::APPROVED | number)
            }
        }
    }
}

impl State {
    fn rights(&self) -> u32 {
        let held = match self.holds {
            Some(FileRight::Denied) => right::DENIED,
            Some(FileRight::ReadOnly) => right::READ_ONLY,
            Some(FileRight::Writable) | None => 0,
        };
        match self.execute {
            0 => held,
            execute => held | right::READ_ONLY | execute,
        }
    }
}

/// States that nothing tells apart become one (Moore's partition refinement). The root's number comes last.
fn minimize(rows: &[Vec<u32>], outputs: &[u32]) -> (Vec<Vec<u32>>, Vec<u32>, u32) {
    let number = |keys: Vec<Vec<u32>>| -> (Vec<u32>, usize) {
        let mut known: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
        let of = keys.into_iter().map(|key| {
            let next = known.len() as u32;
            *known.entry(key).or_insert(next)
        });
        let of: Vec<u32> = of.collect();
        let count = known.len();
        (of, count)
    };
    let (mut class, mut count) = number(outputs.iter().map(|output| vec![*output]).collect());
    loop {
        let key = |(state, row): (usize, &Vec<u32>)| {
            let mut key = vec![class[state]];
            key.extend(row.iter().map(|next| class[*next as usize]));
            key
        };
        let (finer, now) = number(rows.iter().enumerate().map(key).collect());
        let done = now == count;
        (class, count) = (finer, now);
        if done {
            break;
        }
    }
    let mut merged = vec![Vec::new(); count];
    let mut held = vec![0; count];
    for (state, row) in rows.iter().enumerate() {
        let to = class[state] as usize;
        merged[to] = row.iter().map(|next| class[*next as usize]).collect();
        held[to] = outputs[state];
    }
    (merged, held, class[0])
}

/// Symbols that nothing tells apart become one class: a column for each, and the class of each symbol.
fn merge(rows: &[Vec<u32>], symbols: usize) -> (Vec<Vec<u32>>, Vec<u32>) {
    let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
    let mut columns = Vec::new();
    let mut of = Vec::with_capacity(symbols);
    for symbol in 0..symbols {
        let column: Vec<u32> = rows.iter().map(|row| row[symbol]).collect();
        let next = columns.len() as u32;
        let class = *known.entry(column.clone()).or_insert(next);
        if class == next {
            columns.push(column);
        }
        of.push(class);
    }
    (columns, of)
}

/// From an automaton that reads from the root to one that reads towards it: its state is where each state of the first would end. Row by row
/// the next state for each class, and for each state where the root ends.
fn turn_around(
    rows: &[Vec<u32>],
    columns: &[Vec<u32>],
    root: u32,
) -> Result<(Vec<u32>, Vec<u32>), TableError> {
    let start: Vec<u32> = (0..rows.len() as u32).collect();
    let mut numbers: HashMap<Vec<u32>, u32> = HashMap::from([(start.clone(), 0)]);
    let mut states = vec![start];
    let mut next = Vec::new();
    let mut done = 0;
    while done < states.len() {
        for column in columns {
            let state = &states[done];
            let above: Vec<u32> = column.iter().map(|to| state[*to as usize]).collect();
            let number = match numbers.get(&above) {
                Some(number) => *number,
                None => {
                    let number = states.len() as u32;
                    numbers.insert(above.clone(), number);
                    states.push(above);
                    number
                }
            };
            next.push(number);
        }
        done += 1;
        let work = next.len() * rows.len();
        if states.len() > STATE_ENTRIES as usize
            || next.len() > NEXT_ENTRIES as usize
            || work > MAX_WORK
        {
            return Err(TableError::TooMany("transitions"));
        }
    }
    let ends = states.iter().map(|state| state[root as usize]).collect();
    Ok((next, ends))
}

#[cfg(test)]
mod tests {
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
                            && (0..2)
                                .all(|w| word(&head, 8 * w) & glob.head_mask[w] == glob.head[w])
                            && (0..2)
                                .all(|w| word(&tail, 8 * w) & glob.tail_mask[w] == glob.tail[w]);
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
        let mut execute = false;
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
            execute = matched(Say::Execute);
        }
        holds
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
        let table = Table::new(&rules, true).unwrap();
        assert_eq!(
            rights(&table, "usr/bin/program-299"),
            right::READ_ONLY | right::EXECUTE
        );
        assert_eq!(rights(&table, "w/src/part199/file/x"), right::READ_ONLY);
        assert_eq!(rights(&table, "w/src/part199/.env/x"), right::DENIED);
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
}
