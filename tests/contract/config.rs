//! The example shows the true defaults; every valid file is read, every invalid one refused in words.
//!
//! `tests/configs/invalid/NAME.toml` has its error in `NAME.txt`; `UPDATE_CONFIG_ERRORS=1` rewrites
//! those, and the difference is then for a person to read.

use masternode::config::Config;
use masternode::primitives::chain::NetworkKind;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} holds files");
    files
}

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}

fn example() -> String {
    std::fs::read_to_string(root().join("masternode.example.toml")).unwrap()
}

/// The settings of a text in order, sections included, without values.
fn outline(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(" =").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn the_example_shows_every_setting_with_its_default_in_the_order_of_the_code() {
    let defaults = Config::defaults(NetworkKind::Mainnet);
    assert_eq!(Config::parse(&example(), "masternode.example.toml").unwrap(), defaults);
    assert_eq!(outline(&example()), outline(&toml::to_string(&defaults).unwrap()));
}

#[test]
fn the_comments_of_the_example_tell_the_defaults_of_the_other_networks() {
    for (network, word) in [(NetworkKind::Testnet, "Testnet "), (NetworkKind::Devnet, "evnet ")] {
        let theirs = toml::Table::try_from(Config::defaults(network)).unwrap();
        let mainnet = toml::Table::try_from(Config::defaults(NetworkKind::Mainnet)).unwrap();
        let (mut section, mut comment, mut told) = (String::new(), String::new(), 0);
        for line in example().lines() {
            if let Some(text) = line.strip_prefix('#') {
                comment.push_str(text);
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, _)) = line.split_once(" = ")
                && !section.is_empty()
            {
                let value = &theirs[&section][key];
                let stated = comment.split(word).nth(1).map(|rest| {
                    let end = rest.find([',', ' ']).unwrap_or(rest.len());
                    rest[..end].trim_end_matches('.').to_owned()
                });
                let stated = stated.filter(|text| text.starts_with(|c: char| c.is_ascii_digit() || c == '"'));
                let expected =
                    (section == "consensus" || *value != mainnet[&section][key]).then(|| value.to_string());
                assert_eq!(stated, expected, "{network}: [{section}] {key}");
                told += usize::from(expected.is_some());
            }
            comment.clear();
        }
        assert!(told >= 11, "{network}: only {told} settings told");
    }
}

#[test]
fn every_valid_file_is_read() {
    for file in files("tests/configs/valid") {
        let config = Config::load(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(config.data_dir.is_absolute(), "{}", file.display());
    }
}

#[test]
fn every_invalid_file_is_refused_naming_file_line_and_remedy() {
    for file in files("tests/configs/invalid") {
        let text = std::fs::read_to_string(&file).unwrap();
        let error = Config::parse(&text, &name(&file)).expect_err(&name(&file)).to_string();
        let expected = file.with_extension("txt");
        if std::env::var_os("UPDATE_CONFIG_ERRORS").is_some() {
            std::fs::write(&expected, format!("{error}\n")).unwrap();
        }
        let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(error, wanted.trim_end(), "{}", name(&file));
        assert!(error.starts_with(&format!("{}:", name(&file))) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_file_that_is_not_text_is_refused_at_the_line_where_text_ends() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("masternode.toml");
    std::fs::write(&file, b"name = \"a\"\n# fine\nnetwork = \"\xff\xfe\"\n").unwrap();
    let error = Config::load(&file).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:3: not text", file.display())), "{error}");
    assert!(error.contains("masternode.example.toml"), "{error}");
}
