//! The rules of `docs/architecture.md` that the compiler does not know: reads the source text and
//! fails naming `file:line`.
//!
//! Text is judged after comments and string literals are blanked, so a word in a comment is no arrow.
//! A `#[cfg(test)]` module (or its file: `tests.rs`, `x_tests.rs`, `tests/`) may use anything to set the stage. Limits of length are a ratchet: what is
//! longer today is listed with its length and may only shrink.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Files over the limit with their length: may shrink, may not grow; remove a row when it is short.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions over the limit, as `file::function`, with their length.
const LONG_FUNCTIONS: &[(&str, usize)] =
    &[("src/node/start.rs::run", 114), ("ui/screens/overview.rs::consensus", 77)];

/// A module of the library, what it may use of the library beside itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("primitives", &[]),
    ("light", &["primitives"]),
    ("telemetry", &["primitives"]),
    ("config", &["primitives"]),
    ("durable", &[]),
    ("ledger", &["primitives", "telemetry", "durable"]),
    ("archive", &["primitives", "ledger"]),
    ("pool", &["primitives", "telemetry"]),
    ("consensus", &["primitives", "light"]),
    ("wallet", &["primitives"]),
    ("network", &["primitives", "durable", "config"]),
    ("rpc", &["primitives", "light", "config", "telemetry"]),
    (
        "node",
        &[
            "primitives",
            "durable",
            "light",
            "telemetry",
            "config",
            "ledger",
            "archive",
            "pool",
            "consensus",
            "wallet",
            "network",
            "rpc",
        ],
    ),
    (
        "tools",
        &[
            "primitives",
            "durable",
            "light",
            "telemetry",
            "config",
            "ledger",
            "archive",
            "pool",
            "consensus",
            "wallet",
            "network",
            "rpc",
            "node",
        ],
    ),
];

/// Parts of the library that compute and nothing else.
const PURE: &[&str] = &[
    "src/primitives/",
    "src/light/",
    "src/telemetry/",
    "src/consensus/",
    "src/ledger/validate",
    "src/ledger/apply",
    "src/ledger/set_hash",
    "src/ledger/rewards",
    "src/ledger/registry",
    "src/ledger/attendance",
    "src/ledger/snapshot",
    "src/ledger/specials",
];

/// What a pure part must not name, and why.
const IMPURE: &[(&str, &str)] = &[
    ("Instant", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("std::fs", "no files"),
    ("File", "no files"),
    ("std::net::Tcp", "no sockets"),
    ("std::net::Udp", "no sockets"),
    ("TcpStream", "no sockets"),
    ("UdpSocket", "no sockets"),
    ("std::env", "no environment"),
    ("std::thread", "no threads"),
    ("tokio", "no runtime"),
    ("HashMap", "its order differs from run to run"),
    ("HashSet", "its order differs from run to run"),
    ("DashMap", "its order differs from run to run"),
];

/// Crates of the terminal and the command line: the library knows neither.
const TERMINAL: &[&str] = &["ratatui", "crossterm", "clap"];

/// One source file with comments and literals blanked, line for line.
struct Source {
    name: String,
    raw: String,
    /// Blanked text; a test module is blanked too.
    code: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        rust_files(&root().join(folder), &mut paths);
    }
    assert!(!paths.is_empty());
    paths
        .into_iter()
        .map(|path| {
            let raw = std::fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            let code = match name.ends_with("tests.rs") || name.contains("/tests/") {
                // By convention such a file is a `#[cfg(test)]` module of another.
                true => "\n".repeat(raw.lines().count()),
                false => without_tests(&blanked(&raw)),
            };
            Source { name, raw, code }
        })
        .collect()
}

/// `text` with comments, strings and character literals replaced by spaces; newlines stay.
fn blanked(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = characters.clone();
    let mut at = 0;
    while at < characters.len() {
        let end = literal_end(&characters, at);
        for place in out.iter_mut().take(end).skip(at) {
            if *place != '\n' {
                *place = ' ';
            }
        }
        at = end.max(at + 1);
    }
    out.into_iter().collect()
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(text: &[char], at: usize) -> usize {
    let next = |offset: usize| text.get(at + offset).copied().unwrap_or('\0');
    let find = |from: usize, what: &dyn Fn(usize) -> bool| (from..text.len()).find(|i| what(*i));
    let word_before = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    match (text[at], next(1)) {
        ('/', '/') => find(at, &|i| text[i] == '\n').unwrap_or(text.len()),
        ('/', '*') => {
            find(at + 2, &|i| text[i] == '*' && text.get(i + 1) == Some(&'/')).map_or(text.len(), |i| i + 2)
        }
        ('r', '"' | '#') if !word_before => {
            let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
            if text.get(at + 1 + hashes) != Some(&'"') {
                return at;
            }
            let closes = |i: usize| {
                text[i] == '"' && text[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
            };
            find(at + 2 + hashes, &closes).map_or(text.len(), |i| i + 1 + hashes)
        }
        ('"', _) => {
            let mut i = at + 1;
            while i < text.len() && text[i] != '"' {
                i += if text[i] == '\\' { 2 } else { 1 };
            }
            i + 1
        }
        // A character, not a lifetime.
        ('\'', '\\') => find(at + 3, &|i| text[i] == '\'').map_or(text.len(), |i| i + 1),
        ('\'', _) if next(2) == '\'' => at + 3,
        _ => at,
    }
    .min(text.len())
}

/// Blanks the body of every `#[cfg(test)] mod`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let after = &out[start..];
        let opened = after.find('{');
        let ended = after.find(';');
        let end = match (opened, ended) {
            (Some(open), ended) if ended.is_none_or(|ended| open < ended) => {
                start + matching(&after[open..]) + open
            }
            (_, Some(ended)) => start + ended + 1,
            _ => out.len(),
        };
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Length of the braced block `text` begins with.
fn matching(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

fn line_at(text: &str, offset: usize) -> usize {
    text[..offset].bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// Where `word` stands as a whole word (or path).
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(part)
            && (word.ends_with("::Tcp") || word.ends_with("::Udp") || !after.is_some_and(part))
    })
}

/// The first name after each `crate::` or `masternode::` with its place.
fn uses<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = (usize, String)> + 'a {
    words(code, path).filter_map(move |at| {
        let rest = code[at + path.len()..].strip_prefix("::")?;
        Some((at, rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '{').collect()))
    })
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn arrow_faults(source: &Source) -> Vec<String> {
    let Some(module) = source.name.strip_prefix("src/") else { return Vec::new() };
    let module = module.split(['/', '.']).next().unwrap();
    if module == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{}:1: module `{module}` has no row in ARROWS", source.name)];
    };
    uses(&source.code, "crate")
        .filter(|(_, used)| used != module && !allowed.contains(&used.as_str()))
        .map(|(at, used)| {
            let line = line_at(&source.code, at);
            match used.strip_prefix('{') {
                Some(_) => format!(
                    "{}:{line}: grouped `use crate::{{..}}` hides its arrows: one `use` a path",
                    source.name
                ),
                None => format!("{}:{line}: `{module}` must not use `{used}`", source.name),
            }
        })
        .collect()
}

fn screen_faults(source: &Source) -> Vec<String> {
    let is = |folder: &str| source.name.starts_with(&format!("ui/{folder}"));
    let mut faults = Vec::new();
    let mut fault = |at: usize, text: String| {
        faults.push(format!("{}:{}: {text}", source.name, line_at(&source.code, at)));
    };
    if is("screens") || is("widgets") {
        for (at, used) in uses(&source.code, "masternode") {
            if !["primitives", "telemetry"].contains(&used.as_str()) {
                fault(at, format!("screens and widgets must not use `masternode::{used}`"));
            }
        }
        for (at, used) in uses(&source.code, "crate") {
            if ["commands", "cli"].contains(&used.as_str()) {
                fault(at, format!("screens and widgets must not use `crate::{used}`"));
            }
        }
    }
    for path in ["crate", "masternode"] {
        for (at, used) in uses(&source.code, path) {
            if used.starts_with('{') {
                fault(at, format!("grouped `use {path}::{{..}}` hides its arrows: one `use` a path"));
            }
        }
    }
    faults
}

fn purity_faults(source: &Source) -> Vec<String> {
    if !PURE.iter().any(|part| source.name.starts_with(part)) {
        return Vec::new();
    }
    IMPURE
        .iter()
        .flat_map(|(word, why)| {
            words(&source.code, word).map(move |at| {
                format!("{}:{}: `{word}` in a pure module: {why}", source.name, line_at(&source.code, at))
            })
        })
        .collect()
}

fn terminal_faults(source: &Source) -> Vec<String> {
    TERMINAL
        .iter()
        .flat_map(|name| {
            words(&source.code, name).map(move |at| {
                format!("{}:{}: `{name}` belongs to ui/", source.name, line_at(&source.code, at))
            })
        })
        .collect()
}

fn function_lengths(source: &Source) -> Vec<(String, usize, usize)> {
    let mut lengths = Vec::new();
    for at in words(&source.code, "fn") {
        let rest = &source.code[at + 2..];
        let name: String =
            rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = rest.find(['{', ';']) else { continue };
        if name.is_empty() || rest[open..].starts_with(';') {
            continue;
        }
        let end = at + 2 + open + matching(&rest[open..]);
        let first = line_at(&source.code, at);
        lengths.push((name, first, line_at(&source.code, end) - first + 1));
    }
    lengths
}

fn length_faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = source.raw.lines().count();
    let allowed =
        LONG_FILES.iter().find(|(name, _)| *name == source.name).map_or(FILE_LINES_MAX, |(_, lines)| *lines);
    if lines > allowed {
        faults.push(format!(
            "{}:{allowed}: {lines} lines, at most {allowed} are allowed: split it",
            source.name
        ));
    }
    for (name, line, length) in function_lengths(source) {
        let key = format!("{}::{name}", source.name);
        let allowed = LONG_FUNCTIONS
            .iter()
            .find(|(name, _)| *name == key)
            .map_or(FUNCTION_LINES_MAX, |(_, most)| *most);
        if length > allowed {
            faults.push(format!(
                "{}:{line}: `{name}` has {length} lines, at most {allowed} are allowed",
                source.name
            ));
        }
    }
    faults
}

#[test]
fn the_arrows_of_the_library_are_respected() {
    report(sources(&["src"]).iter().flat_map(arrow_faults).collect());
}

#[test]
fn the_arrows_of_the_binary_are_respected() {
    report(sources(&["ui"]).iter().flat_map(screen_faults).collect());
}

#[test]
fn pure_modules_have_no_clock_file_socket_runtime_or_unordered_map() {
    report(sources(&["src"]).iter().flat_map(purity_faults).collect());
}

#[test]
fn the_library_knows_nothing_of_terminals() {
    report(sources(&["src"]).iter().flat_map(terminal_faults).collect());
}

#[test]
fn only_one_file_names_the_store_and_one_the_encoding() {
    let mut faults = Vec::new();
    for source in sources(&["src", "ui"]) {
        for (word, owner) in [("sled", "src/ledger/store"), ("bincode", "src/primitives/encoding.rs")] {
            if source.name.starts_with(owner) {
                continue;
            }
            for at in words(&source.code, word) {
                let line = line_at(&source.code, at);
                faults.push(format!("{}:{line}: only {owner} names `{word}`", source.name));
            }
        }
    }
    report(faults);
}

#[test]
fn every_file_says_what_it_owns() {
    let headless =
        sources(&["src", "ui", "tests"]).into_iter().filter(|source| !source.raw.starts_with("//! "));
    report(headless.map(|source| format!("{}:1: does not begin with `//!`", source.name)).collect());
}

#[test]
fn files_and_functions_stay_short() {
    report(sources(&["src", "ui"]).iter().flat_map(length_faults).collect());
}

/// Faults planted for tests must not be in a build anybody runs: no default feature, no dependency and
/// no other feature may switch them on.
#[test]
fn planted_bugs_are_switched_on_by_the_tests_alone() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            section = line;
        } else if line.contains("planted-bugs") {
            found.push((section, line));
        }
    }
    let due = [
        ("[features]", "planted-bugs = []"),
        ("[dev-dependencies]", r#"masternode = { path = ".", features = ["planted-bugs"] }"#),
    ];
    assert_eq!(found, due, "Cargo.toml switches planted bugs on elsewhere");
}

#[test]
fn the_ratchet_only_lists_what_is_still_too_long() {
    let all = sources(&["src", "ui"]);
    let mut faults = Vec::new();
    for (name, listed) in LONG_FILES {
        let lines =
            all.iter().find(|source| source.name == *name).map_or(0, |source| source.raw.lines().count());
        if lines < *listed {
            faults.push(format!("{name} has {lines} lines now: lower its row from {listed}, or remove it"));
        }
    }
    for (key, listed) in LONG_FUNCTIONS {
        let (file, function) = key.rsplit_once("::").unwrap();
        let source = all.iter().find(|source| source.name == file);
        let lengths = source.map(function_lengths).unwrap_or_default();
        let length =
            lengths.iter().filter(|(name, _, _)| name == function).map(|(_, _, length)| *length).max();
        if length.unwrap_or(0) < *listed {
            faults.push(format!("{key} has {} lines now: lower its row from {listed}", length.unwrap_or(0)));
        }
    }
    report(faults);
}

/// The checks themselves find what they should, so that a silent test is a good sign.
#[test]
fn each_kind_of_broken_rule_is_found() {
    let source = |name: &str, raw: &str| Source {
        name: name.to_owned(),
        raw: raw.to_owned(),
        code: without_tests(&blanked(raw)),
    };
    let one = |faults: Vec<String>, place: &str| {
        assert!(faults.len() == 1 && faults[0].starts_with(place), "{faults:?} at {place}");
    };
    one(arrow_faults(&source("src/pool/mod.rs", "//! x\nuse crate::node::Node;\n")), "src/pool/mod.rs:2:");
    one(arrow_faults(&source("src/pool/mod.rs", "fn f() { crate::ledger::g() }")), "src/pool/mod.rs:1:");
    one(arrow_faults(&source("src/pool/mod.rs", "use crate::{\n primitives};")), "src/pool/mod.rs:1:");
    one(arrow_faults(&source("src/extra.rs", "")), "src/extra.rs:1:");
    one(screen_faults(&source("ui/screens/a.rs", "\nuse masternode::node::handle;")), "ui/screens/a.rs:2:");
    one(screen_faults(&source("ui/commands/a.rs", "use masternode::{node};")), "ui/commands/a.rs:1:");
    one(purity_faults(&source("src/consensus/a.rs", "let x = Instant::now();")), "src/consensus/a.rs:1:");
    one(
        purity_faults(&source("src/ledger/apply.rs", "\n\nuse std::collections::HashMap;")),
        "src/ledger/apply.rs:3:",
    );
    one(terminal_faults(&source("src/node/a.rs", "use ratatui::Frame;")), "src/node/a.rs:1:");
    let long = format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX));
    one(length_faults(&source("src/a.rs", &long)), "src/a.rs:2:");
    one(length_faults(&source("src/a.rs", &"// x\n".repeat(FILE_LINES_MAX + 1))), "src/a.rs:600:");

    let innocent = source(
        "src/consensus/a.rs",
        "//! crate::node, HashMap\nuse crate::primitives::hash;\nlet a = \"crate::node HashMap \\\" Instant\";\n\
         let b = r#\"tokio \"quoted\" \"#; let c = '\"'; let d: &'static str = x; /* Instant */ let e = '\\'';\n\
         let instant_ms = HashMapLike;\n#[cfg(test)]\nmod tests { use std::collections::HashMap; fn f() { Instant::now() } }\n",
    );
    let faults = [arrow_faults(&innocent), purity_faults(&innocent), length_faults(&innocent)].concat();
    assert!(faults.is_empty(), "{faults:?}");
}
