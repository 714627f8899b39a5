//! The peers file: one fact a line, so that an operator can read it and add to it.
//!
//! It holds the secret that the places of addresses depend on, so it is for its owner alone. It is replaced
//! atomically, and a damaged one costs only the lines that are damaged. A line with an address alone counts as
//! hearsay from that address.

use crate::durable::write_whole;
use crate::primitives::encoding::{decode, encode};
use crate::primitives::endpoint::EndpointRecord;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Lines read: every bucket full, and a record of each masternode of a large network.
const LINES_MAX: usize = 8192;
/// Largest file read, in bytes: those lines, a quarter of them records at their longest.
const FILE_MAX: u64 = 384 * LINES_MAX as u64;

/// Longest record of a masternode, in bytes.
const RECORD_BYTES_MAX: usize = 512;

/// What is kept between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Secret of the buckets; a new one when absent.
    pub secret: Option<[u8; 32]>,
    /// Connections to restore first.
    pub anchors: Vec<SocketAddr>,
    /// Addresses at which peers were reached.
    pub tried: Vec<SocketAddr>,
    /// Hearsay, and who told it.
    pub new: Vec<(SocketAddr, IpAddr)>,
    /// Where masternodes said they are; signatures are not checked yet.
    pub endpoints: Vec<EndpointRecord>,
}

impl Remembered {
    /// Takes a line; false when it makes no sense.
    fn take(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["secret", digits] => {
                let secret = parse_secret(digits);
                self.secret = secret.or(self.secret);
                secret.is_some()
            }
            ["anchor", address] => push(&mut self.anchors, address.parse().ok()),
            ["tried", address] => push(&mut self.tried, address.parse().ok()),
            ["endpoint", digits] => push(&mut self.endpoints, parse_record(digits)),
            ["new", address, teller] => push(&mut self.new, address.parse().ok().zip(teller.parse().ok())),
            [address] => {
                let address = address.parse().ok();
                push(&mut self.new, address.map(|address: SocketAddr| (address, address.ip())))
            }
            _ => false,
        }
    }
}

/// Whether there was something to add.
fn push<T>(list: &mut Vec<T>, item: Option<T>) -> bool {
    let there = item.is_some();
    list.extend(item);
    there
}

fn parse_record(digits: &str) -> Option<EndpointRecord> {
    decode::<EndpointRecord, RECORD_BYTES_MAX>(&hex::decode(digits).ok()?).ok()
}

fn parse_secret(digits: &str) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    hex::decode_to_slice(digits, &mut secret).ok()?;
    Some(secret)
}

/// Reads a peers file; nothing when it does not exist. Lines that make no sense are skipped and counted in
/// the log.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn load(file: &Path) -> io::Result<Remembered> {
    let mut text = Vec::new();
    match std::fs::File::open(file) {
        Ok(open) => open.take(FILE_MAX).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remembered::default()),
        Err(error) => return Err(error),
    };
    let mut remembered = Remembered::default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let bad = lines.take(LINES_MAX).filter(|line| !remembered.take(line)).count();
    if bad > 0 {
        tracing::warn!(file = %file.display(), lines = bad, "lines of the peers file make no sense");
    }
    Ok(remembered)
}

/// Writes a peers file so that a crash leaves the old one or the new one.
///
/// # Errors
/// When the file or its directory cannot be written.
pub fn save(file: &Path, remembered: &Remembered) -> io::Result<()> {
    let mut text = String::from(
        "# Addresses of other nodes, written by the node. Lines: anchor, tried, new, endpoint.\n",
    );
    let mut line = |words: &[&dyn std::fmt::Display]| {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        text.push_str(&words.join(" "));
        text.push('\n');
    };
    if let Some(secret) = &remembered.secret {
        line(&[&"secret", &hex::encode(secret)]);
    }
    for address in &remembered.anchors {
        line(&[&"anchor", address]);
    }
    for address in &remembered.tried {
        line(&[&"tried", address]);
    }
    for (address, teller) in &remembered.new {
        line(&[&"new", address, teller]);
    }
    for record in &remembered.endpoints {
        line(&[&"endpoint", &hex::encode(encode(record))]);
    }
    write_whole(file, |_| Ok(text)).map_err(|error| io::Error::new(error.source.kind(), error))
}
