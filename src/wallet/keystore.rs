//! Key files: one ed25519 key a file, mode 0600, encrypted unless told otherwise.
//!
//! Encryption is XChaCha20-Poly1305 under a key that Argon2id (64 MiB, 3 passes, 1 lane) makes of the
//! passphrase; everything else in the file is authenticated with it. A file is written whole or not at
//! all, synced with its directory, and never overwritten. Reading refuses files that others may read,
//! files that ask for an absurd key derivation, and files whose public key is not that of the secret.
//! Absent on purpose: prompting, which is the binary's task.

use crate::primitives::hash::{ParseHexError, parse_hex};
use crate::primitives::keys::{PublicKey, SecretKey};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize as _, Zeroizing};

/// Environment variable with the passphrase, for services.
pub const PASSPHRASE_VARIABLE: &str = "MASTERNODE_PASSPHRASE";

/// The only format of key files.
const FORMAT: u32 = 1;
/// Largest key or passphrase file read, in bytes; ours have about 600.
const FILE_BYTES_MAX: u64 = 4096;
/// Shortest passphrase for a new key file, in bytes.
const PASSPHRASE_BYTES_MIN: usize = 8;

/// Key derivation of new files: memory in KiB, passes, lanes.
const DERIVATION: Derivation = Derivation { memory_kib: 64 << 10, passes: 3, lanes: 1 };
/// Most a file may ask for, so that a forged one cannot exhaust the machine.
const DERIVATION_MAX: Derivation = Derivation { memory_kib: 256 << 10, passes: 10, lanes: 4 };

/// A passphrase, wiped when dropped and never shown.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

/// Why a key file cannot be used. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    #[error("{file}: no such key file. Make keys with `masternode init`, or set its place in [keys]", file = .0.display())]
    Missing(PathBuf),
    #[error("{file}: a key file is already there and is never overwritten. Move it away first, and keep it if it holds a key in use", file = .0.display())]
    Exists(PathBuf),
    #[error("{file}: others may read this file (mode {mode:04o}). Run `chmod 600 {file}`; if others had access, make a new key", file = file.display())]
    TooOpen { file: PathBuf, mode: u32 },
    #[error("{file}: {source}. Check that the file and its directory are yours to use", file = file.display())]
    Io { file: PathBuf, source: std::io::Error },
    #[error("{file}: {reason}. Restore the file from your backup, or make a new key with `masternode init`", file = file.display())]
    Malformed { file: PathBuf, reason: String },
    #[error("{file}: the key is encrypted and no passphrase was given. Set [keys] passphrase_file or {PASSPHRASE_VARIABLE}, or start on a terminal", file = .0.display())]
    NeedsPassphrase(PathBuf),
    #[error("{file}: wrong passphrase, or the file was altered. Check the passphrase, then your backup", file = .0.display())]
    WrongPassphrase(PathBuf),
    #[error("the passphrase has {0} bytes, at least {PASSPHRASE_BYTES_MIN} are needed")]
    ShortPassphrase(usize),
    #[error("the system has no randomness to make a key of: {0}")]
    NoRandomness(String),
}

/// A key file as it stands on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    format: u32,
    public_key: String,
    /// Hexadecimal: the seed itself, or its encryption with the tag.
    secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<Encryption>,
}

/// How the secret of a key file is encrypted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encryption {
    cipher: String,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    nonce: String,
}

const CIPHER: &str = "xchacha20-poly1305";
const KDF: &str = "argon2id";

impl Passphrase {
    /// Takes a passphrase as typed.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The first line of a file that only its owner may read.
    ///
    /// # Errors
    /// [`KeystoreError`] naming the file.
    pub fn from_file(file: &Path) -> Result<Self, KeystoreError> {
        let text = read_private(file)?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            let reason = "the first line, which is the passphrase, is empty".to_owned();
            return Err(KeystoreError::Malformed { file: file.to_owned(), reason });
        }
        Ok(Self::new(line.to_owned()))
    }

    /// The passphrase a node is given without asking: from `file` when there is one, else from the
    /// environment ([`PASSPHRASE_VARIABLE`]), else none.
    ///
    /// # Errors
    /// [`KeystoreError`] when the file cannot be used.
    pub fn given(file: Option<&Path>) -> Result<Option<Self>, KeystoreError> {
        match file {
            Some(file) => Self::from_file(file).map(Some),
            None => {
                Ok(std::env::var(PASSPHRASE_VARIABLE).ok().filter(|text| !text.is_empty()).map(Self::new))
            }
        }
    }

    /// Whether both are the same, for asking twice.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }

    /// Refuses a passphrase too short for a new key file.
    ///
    /// # Errors
    /// [`KeystoreError::ShortPassphrase`].
    pub fn check_strength(&self) -> Result<(), KeystoreError> {
        if self.0.len() >= PASSPHRASE_BYTES_MIN {
            Ok(())
        } else {
            Err(KeystoreError::ShortPassphrase(self.0.len()))
        }
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// A new key from the system's generator.
///
/// # Errors
/// [`KeystoreError::NoRandomness`].
pub fn generate() -> Result<SecretKey, KeystoreError> {
    Ok(SecretKey::from_seed(&Zeroizing::new(random::<32>()?)))
}

/// Writes a new key file, encrypted when there is a passphrase; makes its directory (mode 0700) when
/// that is missing. Durable when it returns. Costs 64 MiB and some 100 ms when it encrypts.
///
/// # Errors
/// [`KeystoreError`]; an existing file is left as it is.
pub fn create(file: &Path, key: &SecretKey, passphrase: Option<&Passphrase>) -> Result<(), KeystoreError> {
    if let Some(passphrase) = passphrase {
        passphrase.check_strength()?;
    }
    let io = |source| KeystoreError::Io { file: file.to_owned(), source };
    if file.symlink_metadata().is_ok() {
        return Err(KeystoreError::Exists(file.to_owned()));
    }
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
    let text = sealed(file, key, passphrase)?;
    let unique = hex::encode(random::<8>()?);
    let temporary = directory.join(format!(".new-key-{unique}"));
    let written =
        write_synced(&temporary, text.as_bytes()).and_then(|()| std::fs::hard_link(&temporary, file));
    // Linking fails when the name is taken, so even a race never overwrites a key.
    let removed = std::fs::remove_file(&temporary);
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(KeystoreError::Exists(file.to_owned()));
        }
        result => result.and(removed).map_err(io)?,
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
}

/// Reads a key file. Costs 64 MiB and some 100 ms when it is encrypted.
///
/// # Errors
/// [`KeystoreError`] naming the file and the remedy.
pub fn load(file: &Path, passphrase: Option<&Passphrase>) -> Result<SecretKey, KeystoreError> {
    let stored = read(file)?;
    let malformed = |reason: String| KeystoreError::Malformed { file: file.to_owned(), reason };
    let hex_fault = |error: ParseHexError| malformed(error.to_string());
    let public = parse_hex::<32>(&stored.public_key).map(PublicKey).map_err(hex_fault)?;
    let seed = match &stored.encryption {
        // The digits of a plain secret must not appear in an error.
        None => Zeroizing::new(
            parse_hex::<32>(&stored.secret)
                .map_err(|_| malformed("`secret` is not 64 hexadecimal digits".to_owned()))?,
        ),
        Some(encryption) => {
            let passphrase = passphrase.ok_or_else(|| KeystoreError::NeedsPassphrase(file.to_owned()))?;
            let sealed = parse_hex::<48>(&stored.secret).map_err(hex_fault)?;
            open(file, encryption, &public, &sealed, passphrase)?
        }
    };
    let key = SecretKey::from_seed(&seed);
    if key.public() == public {
        Ok(key)
    } else {
        Err(malformed("the secret is not that of the public key".to_owned()))
    }
}

/// The public key of a file and whether its secret is encrypted; needs no passphrase.
///
/// # Errors
/// [`KeystoreError`] naming the file and the remedy.
pub fn inspect(file: &Path) -> Result<(PublicKey, bool), KeystoreError> {
    let stored = read(file)?;
    let public = stored.public_key.parse().map_err(|error: ParseHexError| KeystoreError::Malformed {
        file: file.to_owned(),
        reason: error.to_string(),
    })?;
    Ok((public, stored.encryption.is_some()))
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Reads and checks everything that needs no passphrase.
fn read(file: &Path) -> Result<KeyFile, KeystoreError> {
    let text = read_private(file)?;
    let malformed = |reason: String| KeystoreError::Malformed { file: file.to_owned(), reason };
    let stored: KeyFile = toml::from_str(&text).map_err(|error| {
        let line =
            error.span().map_or(1, |span| text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1);
        malformed(format!("not a key file (line {line})"))
    })?;
    if stored.format != FORMAT {
        return Err(malformed(format!(
            "key format {} is unknown, this version reads {FORMAT}",
            stored.format
        )));
    }
    if let Some(encryption) = &stored.encryption {
        if encryption.cipher != CIPHER || encryption.kdf != KDF {
            return Err(malformed(format!("encryption must be {CIPHER} with {KDF}")));
        }
        let most = DERIVATION_MAX;
        let within = |value: u32, most: u32| (1..=most).contains(&value);
        if !within(encryption.memory_kib, most.memory_kib)
            || !within(encryption.passes, most.passes)
            || !within(encryption.lanes, most.lanes)
        {
            return Err(malformed(format!(
                "key derivation asks for {} KiB, {} passes, {} lanes; at most {}, {}, {} are allowed",
                encryption.memory_kib,
                encryption.passes,
                encryption.lanes,
                most.memory_kib,
                most.passes,
                most.lanes
            )));
        }
    }
    Ok(stored)
}

/// Key derivation cost: memory in KiB, passes over it, lanes.
#[derive(Clone, Copy)]
struct Derivation {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// The text of a key file.
fn sealed(
    file: &Path,
    key: &SecretKey,
    passphrase: Option<&Passphrase>,
) -> Result<Zeroizing<String>, KeystoreError> {
    let malformed = |reason: String| KeystoreError::Malformed { file: file.to_owned(), reason };
    let public = key.public();
    let mut stored =
        KeyFile { format: FORMAT, public_key: public.to_string(), secret: String::new(), encryption: None };
    match passphrase {
        None => stored.secret = hex::encode(*key.seed()),
        Some(passphrase) => {
            let encryption = Encryption {
                cipher: CIPHER.to_owned(),
                kdf: KDF.to_owned(),
                memory_kib: DERIVATION.memory_kib,
                passes: DERIVATION.passes,
                lanes: DERIVATION.lanes,
                salt: hex::encode(random::<16>()?),
                nonce: hex::encode(random::<24>()?),
            };
            let (cipher, nonce) = cipher(file, &encryption, passphrase)?;
            let bound = bound_text(&encryption, &public);
            let payload = Payload { msg: &*key.seed(), aad: bound.as_bytes() };
            let sealed = cipher
                .encrypt(&nonce, payload)
                .map_err(|_| malformed("the secret could not be encrypted".to_owned()))?;
            stored.secret = hex::encode(sealed);
            stored.encryption = Some(encryption);
        }
    }
    let mut text = toml::to_string(&stored).map_err(|error| malformed(error.to_string()))?;
    let kind = if passphrase.is_some() { "encrypted" } else { "NOT encrypted" };
    text.insert_str(
        0,
        &format!("# Secret key of a masternode, {kind}. Keep it private and keep a backup.\n"),
    );
    Ok(Zeroizing::new(text))
}

fn open(
    file: &Path,
    encryption: &Encryption,
    public: &PublicKey,
    sealed: &[u8; 48],
    passphrase: &Passphrase,
) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let (cipher, nonce) = cipher(file, encryption, passphrase)?;
    let bound = bound_text(encryption, public);
    let wrong = || KeystoreError::WrongPassphrase(file.to_owned());
    let payload = Payload { msg: sealed, aad: bound.as_bytes() };
    let opened = Zeroizing::new(cipher.decrypt(&nonce, payload).map_err(|_| wrong())?);
    <[u8; 32]>::try_from(opened.as_slice()).map(Zeroizing::new).map_err(|_| wrong())
}

/// Everything of the file beside the secret, which is authenticated with it.
fn bound_text(encryption: &Encryption, public: &PublicKey) -> String {
    let Encryption { cipher, kdf, memory_kib, passes, lanes, salt, nonce } = encryption;
    format!("masternode key {FORMAT} {public} {cipher} {kdf} {memory_kib} {passes} {lanes} {salt} {nonce}")
}

fn cipher(
    file: &Path,
    encryption: &Encryption,
    passphrase: &Passphrase,
) -> Result<(XChaCha20Poly1305, XNonce), KeystoreError> {
    let malformed = |reason: String| KeystoreError::Malformed { file: file.to_owned(), reason };
    let salt = parse_hex::<16>(&encryption.salt).map_err(|error| malformed(error.to_string()))?;
    let nonce = parse_hex::<24>(&encryption.nonce).map_err(|error| malformed(error.to_string()))?;
    let parameters = Params::new(encryption.memory_kib, encryption.passes, encryption.lanes, Some(32))
        .map_err(|error| malformed(format!("key derivation: {error}")))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(passphrase.0.as_bytes(), &salt, &mut *key)
        .map_err(|error| malformed(format!("key derivation: {error}")))?;
    Ok((XChaCha20Poly1305::new((&*key).into()), XNonce::from(nonce)))
}

fn random<const N: usize>() -> Result<[u8; N], KeystoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeystoreError::NoRandomness(error.to_string()))?;
    Ok(bytes)
}

fn write_synced(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    open.write_all(bytes)?;
    open.sync_all()
}

/// The text of a file that only its owner may read, refused when it is too long.
fn read_private(file: &Path) -> Result<Zeroizing<String>, KeystoreError> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => KeystoreError::Missing(file.to_owned()),
        _ => KeystoreError::Io { file: file.to_owned(), source },
    };
    let opened = File::open(file).map_err(io)?;
    let mode = opened.metadata().map_err(io)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeystoreError::TooOpen { file: file.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    let malformed = |reason: String| KeystoreError::Malformed { file: file.to_owned(), reason };
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err(malformed(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("not text".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn phrase(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned())
    }

    fn key_file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys").join("vote.key");
        (directory, file)
    }

    #[test]
    fn an_encrypted_key_comes_back_with_its_passphrase_only() {
        let (_directory, file) = key_file();
        let key = generate().unwrap();
        create(&file, &key, Some(&phrase("correct horse"))).unwrap();
        assert_eq!(load(&file, Some(&phrase("correct horse"))).unwrap().public(), key.public());
        assert!(matches!(
            load(&file, Some(&phrase("correct house"))),
            Err(KeystoreError::WrongPassphrase(_))
        ));
        assert!(matches!(load(&file, None), Err(KeystoreError::NeedsPassphrase(_))));
        assert_eq!(inspect(&file).unwrap(), (key.public(), true));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&hex::encode(*key.seed())));
    }

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let (_directory, file) = key_file();
        let key = generate().unwrap();
        create(&file, &key, None).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(create(&file, &generate().unwrap(), None), Err(KeystoreError::Exists(_))));
        assert_eq!(load(&file, None).unwrap().public(), key.public());
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        let (_directory, file) = key_file();
        create(&file, &generate().unwrap(), None).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let message = load(&file, None).unwrap_err().to_string();
        assert!(message.contains("mode 0640") && message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn any_altered_line_of_an_encrypted_file_is_noticed() {
        let (_directory, file) = key_file();
        create(&file, &generate().unwrap(), Some(&phrase("correct horse"))).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let other = generate().unwrap().public().to_string();
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let alterations = [
            (line("public_key"), format!("public_key = \"{other}\"")),
            (line("salt"), format!("salt = \"{}\"", "00".repeat(16))),
            (line("nonce"), format!("nonce = \"{}\"", "00".repeat(24))),
            (line("secret"), format!("secret = \"{}\"", "00".repeat(48))),
            (line("passes"), "passes = 2".to_owned()),
            (line("memory_kib"), "memory_kib = 4000000".to_owned()),
            (line("lanes"), "lanes = 0".to_owned()),
            (line("cipher"), "cipher = \"none\"".to_owned()),
            (line("format"), "format = 2".to_owned()),
            (line("kdf"), "nonsense".to_owned()),
        ];
        for (old, new) in alterations {
            std::fs::write(&file, text.replace(&old, &new)).unwrap();
            let message = load(&file, Some(&phrase("correct horse"))).unwrap_err().to_string();
            assert!(message.contains("vote.key") && message.contains("backup"), "{new}: {message}");
        }
    }

    #[test]
    fn garbage_is_refused_without_showing_a_secret() {
        let (_directory, file) = key_file();
        create(&file, &generate().unwrap(), None).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let seed = text
            .lines()
            .find_map(|line| line.strip_prefix("secret = "))
            .unwrap()
            .trim_matches('"')
            .to_owned();
        for garbage in [
            text.replace(&seed, &seed[..60]),
            text.replace("secret = ", "secret : "),
            text.replace(&seed, &"11".repeat(32)),
            "x".repeat(5000),
            String::new(),
        ] {
            std::fs::write(&file, &garbage).unwrap();
            let message = load(&file, None).unwrap_err().to_string();
            assert!(message.contains("vote.key") && !message.contains(&seed[..60]), "{message}");
        }
        std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
        assert!(matches!(load(&file, None), Err(KeystoreError::Malformed { .. })));
        assert!(matches!(load(&file.with_extension("none"), None), Err(KeystoreError::Missing(_))));
    }

    #[test]
    fn a_passphrase_is_the_first_line_of_a_private_file() {
        let (directory, _) = key_file();
        let file = directory.path().join("passphrase");
        write_synced(&file, b"first line\nsecond\n").unwrap();
        assert!(Passphrase::from_file(&file).unwrap().matches(&phrase("first line")));
        std::fs::write(&file, "\n").unwrap();
        assert!(matches!(Passphrase::given(Some(&file)), Err(KeystoreError::Malformed { .. })));
        assert!(matches!(phrase("short").check_strength(), Err(KeystoreError::ShortPassphrase(5))));
        assert_eq!(format!("{:?}", phrase("hidden")), "Passphrase(..)");
    }
}
