//! The table that the programs about files look paths up in (`enforcer_common::files`). Rules become a deterministic automaton over a
//! path's names, which is then turned around: the kernel has a path from its end to the root, so a state of the table is what the names read so far
//! make of every state of the automaton. Whatever the number of rules, a path costs one look for each of its names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use enforcer_common::files::{
    Glob, MAX_GLOBS, MAX_NAME, MAX_PART, NAME_ENTRIES, NEXT_ENTRIES, Name, Place, STATE_ENTRIES,
    Settings, right,
};
use policy::FileRight;
use serde::{Deserialize, Serialize};

/// Most states of the automaton before it is turned around.
const MAX_STATES: usize = 4096;
/// Most steps that making a table may take: init waits for it.
const MAX_WORK: usize = 50_000_000;

/// What is said of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Say {
    /// Of what matches and all below it.
    Right(FileRight),
    /// The same: whether it is read-only by what is mounted there, which is a file and hides another, or a directory.
    Mounted { read_only: bool, file: bool },
    /// Of exactly this file: it may be executed, and nobody inside changes it.
    Execute,
    /// The same by a person's word, while it is what its directory has by this name, and the file that has this number.
    Approved(u16),
}

/// A rule, its path from the root of the container: names, names with one `*`, and `**` for any number of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Whether a rule may spell out all of these names.
pub fn spells(path: &Path) -> bool {
    let mut names = path.components();
    names.all(|name| name.as_os_str().len() <= MAX_NAME)
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
    /// By what is mounted.
    closed: bool,
    covered: bool,
    /// The rights of what may be executed, or none.
    execute: u32,
}

impl Table {
    /// A rule with an empty path is about the root.
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
    let start = settle(rules, says, start.collect(), (None, false));
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
    settle(rules, says, reading, (state.holds, state.closed))
}

/// `**` may stand for nothing; what has been read to its end holds from here on.
fn settle(
    rules: &[Vec<Segment>],
    says: &[Say],
    mut reading: BTreeSet<(usize, usize)>,
    before: (Option<FileRight>, bool),
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
    let holds = strictest.or(before.0);
    let mounted = ended.iter().rev().find_map(|say| match say {
        Say::Mounted { read_only, .. } => Some(*read_only),
        _ => None,
    });
    let mut closed = mounted.unwrap_or(before.1);
    let is_file = |say: &Say| matches!(say, Say::Mounted { file: true, .. });
    let mut covered = ended.iter().any(is_file);
    if holds == Some(FileRight::Denied) {
        reading.clear();
        (closed, covered) = (false, false);
    }
    let executes = ended.iter().filter_map(|say| say.executes()).min();
    State {
        reading,
        holds,
        closed,
        covered,
        execute: executes
            .filter(|_| holds != Some(FileRight::Denied))
            .unwrap_or(0),
    }
}

impl Say {
    /// The rights of what may be executed; of two the lower ones are the wider.
    fn executes(self) -> Option<u32> {
        match self {
            Self::Right(_) | Self::Mounted { .. } => None,
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
        let closed = if self.closed { right::CLOSED } else { 0 };
        let covered = if self.covered { right::COVERED } else { 0 };
        let held = held | closed | covered;
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
mod tests;
