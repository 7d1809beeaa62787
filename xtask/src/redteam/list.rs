//! The attempts that are written down, by id, and what is said of those that the suite's own table has no row for: which other
//! test asks them, or what they wait for. `cargo xtask redteam` fails on one that is in neither.

/// Every attempt: N sockets and protocols, C descriptors, cgroups and namespaces, D names, DNS, TLS and HTTP, F files, E programs, K the
/// enforcer and the control plane, X what a review of the design added. Some numbers are nobody's.
const ALL: &str = "N01-N07 N09-N16 N18-N28 N30-N34 C01-C02 C04 C06 C08-C23 D01-D19 D21-D31 F01-F06 F08-F13 F15-F18 E01-E07 E09-E13 \
    K01-K05 K07-K08 K10 K12-K24 X01-X10";

/// Asked by a test that is no row of the table, for it is not about one container and one receiver.
pub const ELSEWHERE: &[(&str, &str)] = &[
    (
        "N18 N21 N23",
        "rows N22 and N22p try every socket family and every IP protocol",
    ),
    (
        "N32",
        "e2e_network::rules::a_network_opens_its_addresses_at_its_port_and_no_other",
    ),
    (
        "C09",
        "engine::request: engine sockets and host roots cannot be mounted",
    ),
    (
        "C13",
        "the canaries are tried from inside before anything starts: enforcer::session::wired::init_starts_nothing_where_one_of_the_hooks_is_gone, init::challenge",
    ),
    (
        "D06 D07",
        "e2e_network::rules: a raw address is EPERM although an allowed name leads there; the wire must say the name",
    ),
    ("D09-D11", "gateway::tls, gateway::http"),
    ("D12-D14", "gateway::smuggling, gateway::http"),
    ("D18", "gateway::websocket"),
    (
        "D21",
        "e2e_network::rules::a_wildcard_opens_any_depth_below_it_and_neither_itself_nor_a_look_alike",
    ),
    ("D29", "gateway: limits, relay; e2e_network::bulk"),
    (
        "D31",
        "e2e_network::rules::a_name_with_a_port_opens_that_port_alone",
    ),
    (
        "K03",
        "e2e_network::sessions::a_hundred_starts_whose_first_act_is_to_dial",
    ),
    ("K20", "e2e_cli::refusals; row X05"),
    ("K21", "cargo xtask fuzz"),
    (
        "D08 D15-D17 D22",
        "gateway: `smuggling`, `https`, `ruled`, the differential test against node and nginx; schema::request for paths",
    ),
    (
        "D23-D25 D27 D28",
        "gateway::credentials, e2e_cli::credentials, e2e_cli::trust, e2e_network::clients",
    ),
    (
        "D26",
        "e2e_network::github::a_github_credential_goes_to_the_workspaces_own_repository_alone",
    ),
    (
        "F11",
        "row F04; no layer of the engine is mounted inside (engine::request)",
    ),
    ("F15", "e2e_cli::control_files, rows X04 and X05"),
    (
        "F09",
        "enforcer::session::received, by BPF LSM in `cargo xtask vm`; without it residual, no socket of the host is mounted",
    ),
    (
        "K16",
        "cli::question: the place comes first, and nothing that a stranger chose hides it or steers the terminal; e2e_network::asked",
    ),
    (
        "K17",
        "enforcer::approvals::what_is_kept_is_the_same_rule_host_port_method_and_path_and_no_more, gateway::asked::what_an_earlier_policy_asked_is_not_carried_by_a_later_one, e2e_network::asked",
    ),
    (
        "E12",
        "enforcer::session::later::nothing_is_started_but_what_is_listed_by_whatever_way (by a tracepoint here, by BPF LSM in `cargo xtask vm`) and ::started",
    ),
    ("X09", "row E02l"),
    (
        "X06",
        "schema::config::a_workspace_cannot_say_where_a_value_comes_from_and_its_words_are_not_repeated",
    ),
    (
        "K18 K19",
        "e2e_supply: organisation, lock, registries, verify",
    ),
];

/// What has no counterpart yet, or cannot have one.
pub const NOT_YET: &[(&str, &str)] = &[
    (
        "N25",
        "flows in flight when policy tightens: with `domain rm` on a live session; gateway::relay asks the gateway's half",
    ),
    (
        "N34",
        "data to allowed destinations: budgets and L7 rules; residual",
    ),
    (
        "C12",
        "kernels before 5.15 are refused by doctor: none is at hand to be refused",
    ),
    (
        "C15 C16",
        "residual: processes of one session are one trust domain",
    ),
    ("D30", "MCP: no row of its own"),
    (
        "F16",
        "residual: file systems that fold case; none is at hand",
    ),
    (
        "E04 E06",
        "an interpreter runs what it is given, and mapped code is no start: said, and stopped by mounts where it can be written (SPEC PR-30), by BPF LSM beyond the image",
    ),
    (
        "E11 E13",
        "rules about arguments (there are none); a program that is changed while it runs: processes of one session are one trust domain",
    ),
    ("K12 K23", "log proofs, upgrades"),
    (
        "K13",
        "readiness: nothing that is read for it is the agent's to write; no test forges it yet",
    ),
    ("K22", "there is no switch inside; nothing to try"),
    ("K24", "side channels of the machine: out of scope"),
];

/// `N01-N03 C06` as single ids.
fn ids(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().flat_map(|word| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let number = |id: &str| id.get(1..).and_then(|digits| digits.parse::<u32>().ok());
        let group = word.get(..1).unwrap_or_default().to_owned();
        let range = number(first).unwrap_or(1)..=number(last).unwrap_or(0);
        range.map(move |n| format!("{group}{n:02}"))
    })
}

/// The attempts that neither a row nor a word accounts for. A row may be a variant: `N02u` is a row of N02.
pub fn unaccounted<'a>(rows: impl Iterator<Item = &'a str>) -> Vec<String> {
    let said = ELSEWHERE
        .iter()
        .chain(NOT_YET)
        .flat_map(|(text, _)| ids(text));
    let rows = rows.map(|row| row.chars().take(3).collect::<String>());
    let accounted: std::collections::BTreeSet<String> = said.chain(rows).collect();
    ids(ALL).filter(|id| !accounted.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The ids that the suite's sources record, by the way they are spelt there.
    fn rows() -> Vec<String> {
        let dir = crate::paths::root().join("tests/tests");
        let sources = ["redteam", "death", "e2e_network"].map(|suite| {
            let files = std::fs::read_dir(dir.join(suite)).unwrap().flatten();
            let inner: String = files
                .filter_map(|file| std::fs::read_to_string(file.path()).ok())
                .collect();
            inner + &std::fs::read_to_string(dir.join(format!("{suite}.rs"))).unwrap()
        });
        let id = |word: &&str| {
            let digits = word
                .get(1..3)
                .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
            digits && word.len() <= 4 && word.starts_with(|c: char| c.is_ascii_uppercase())
        };
        sources
            .concat()
            .split('"')
            .filter(id)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_attempt_that_is_written_down_is_accounted_for() {
        let rows = rows();
        assert!(rows.len() > 60, "{rows:?}");
        assert_eq!(unaccounted(rows.iter().map(String::as_str)), [""; 0]);
        assert!(unaccounted(["N02u"].into_iter()).contains(&"N01".to_owned()));
        assert!(!unaccounted(["N02u"].into_iter()).contains(&"N02".to_owned()));
    }

    #[test]
    fn a_range_of_ids_is_each_of_them() {
        assert_eq!(
            ids("N09-N11 C06").collect::<Vec<_>>(),
            ["N09", "N10", "N11", "C06"]
        );
    }
}
