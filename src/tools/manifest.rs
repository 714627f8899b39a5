//! `MANIFEST.toml` of a backup: what it holds, and size and checksum of each file. Written last, so a
//! folder without it is no backup.

use crate::primitives::hash::{BlockId, ChainId, Hash};
use crate::tools::ToolError;
use crate::tools::files::{read_small, write_new};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path};

/// Name of the file.
pub const MANIFEST_FILE_NAME: &str = "MANIFEST.toml";
/// Name of the archive with blocks and state.
pub const ARCHIVE_FILE_NAME: &str = "chain.archive";
/// Version of the folder.
pub const BACKUP_FORMAT: u32 = 1;
/// Largest manifest read.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

const HEAD: &str = "# A backup of a masternode: `masternode restore` reads it (docs/operating.md). It holds the chain, and no\n\
                    # votes: a restored masternode follows the chain until that lets it sign again.\n";

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`BACKUP_FORMAT`].
    pub format: u32,
    /// The program that made it.
    pub program: String,
    /// When, for people.
    pub made: String,
    /// When, in milliseconds since 1970.
    pub made_ms: u64,
    /// Name of the node.
    pub node: String,
    /// The chain.
    pub chain: ChainId,
    /// Height of the state.
    pub height: u64,
    /// The block of that height.
    pub block: BlockId,
    /// `utxo_hash` of its header.
    pub state_hash: Hash,
    /// Unspent outputs.
    pub outputs: u64,
    /// Transactions in its blocks.
    pub transactions: u64,
    /// How many old blocks are there without their transactions.
    pub blocks_without_transactions: u64,
    /// Whether the key files are among the files.
    pub keys: bool,
    /// Every other file.
    pub files: Vec<Listed>,
}

/// A file of the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Path within the backup.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its BLAKE3 hash in hexadecimal.
    pub blake3: String,
}

impl Manifest {
    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// [`ToolError::Refused`] when there is none, or of a newer version.
    pub fn read(backup: &Path) -> Result<Self, ToolError> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        let path = backup.join(MANIFEST_FILE_NAME);
        if !path.exists() {
            return Err(ToolError::Refused(format!(
                "{}: holds no {MANIFEST_FILE_NAME}: name the folder that `masternode backup` has made",
                backup.display()
            )));
        }
        let shown = path.display();
        let damaged = |reason: &str| ToolError::Refused(format!("{shown}: {reason}: use another backup"));
        let bytes = read_small(&path, MANIFEST_BYTES_MAX)?;
        let text = String::from_utf8(bytes).map_err(|_| damaged("damaged, it is not text"))?;
        let FormatOnly { format } =
            toml::from_str(&text).map_err(|error| damaged(&format!("damaged, {}", error.message())))?;
        if format != BACKUP_FORMAT {
            return Err(ToolError::Refused(format!(
                "{shown}: backup format {format}, this program reads {BACKUP_FORMAT}: use a newer masternode program"
            )));
        }
        let manifest: Self =
            toml::from_str(&text).map_err(|error| damaged(&format!("damaged, {}", error.message())))?;
        let plain = |file: &Listed| {
            let mut parts = Path::new(&file.name).components();
            !file.name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        match manifest.files.iter().find(|file| !plain(file)) {
            Some(_) => Err(damaged("names a file outside of the backup")),
            None => Ok(manifest),
        }
    }

    /// Writes it into a folder, synced.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn write(&self, folder: &Path) -> Result<(), ToolError> {
        let text = toml::to_string(self).map_err(|error| ToolError::Failed(error.to_string()))?;
        write_new(&folder.join(MANIFEST_FILE_NAME), format!("{HEAD}{text}").as_bytes())
    }

    /// The file with this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&Listed> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// A time in milliseconds since 1970 as `2026-11-22 03:00:00 UTC`.
#[must_use]
pub fn utc(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    // Days since 1 March of the year 0; years of 365.2425 days begin in March.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(951_868_800_000), "2000-03-01 00:00:00 UTC");
        assert_eq!(utc(1_735_689_599_000), "2024-12-31 23:59:59 UTC");
        assert_eq!(utc(1_795_300_200_000), "2026-11-21 22:30:00 UTC");
    }
}
