//! Items to and from bytes, with their checksums; see the parent module for the layout.

use crate::archive::{ArchiveError, ITEM_BYTES_MAX, Item, MAGIC, VERSION};
use crate::primitives::encoding::{decode, encode};
use std::io::{self, Read, Write};

/// Bytes of a checksum.
const CHECK_BYTES: usize = 16;
type Check = [u8; CHECK_BYTES];

fn check_of(before: &Check, payload: &[u8]) -> Check {
    let mut hasher = blake3::Hasher::new_derive_key("timecoin masternode v1 archive frame");
    hasher.update(before).update(&(payload.len() as u64).to_le_bytes()).update(payload);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// Writes items.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    name: String,
    check: Check,
    items: u64,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive; `name` is what errors call it.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn new(out: W, name: &str) -> Result<Self, ArchiveError> {
        let mut writer = Self { out, name: name.to_owned(), check: [0; CHECK_BYTES], items: 0 };
        writer.write(&MAGIC)?;
        writer.write(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let io = |source| ArchiveError::Io { name: self.name.clone(), action: "write", source };
        self.out.write_all(bytes).map_err(io)
    }

    /// Adds an item.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn item(&mut self, item: &Item) -> Result<(), ArchiveError> {
        let payload = encode(item);
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= ITEM_BYTES_MAX);
        let Some(length) = length else {
            let reason = format!("an item of {} bytes is larger than {ITEM_BYTES_MAX}", payload.len());
            return Err(ArchiveError::Wrong { name: self.name.clone(), reason });
        };
        self.check = check_of(&self.check, &payload);
        self.write(&length.to_le_bytes())?;
        let check = self.check;
        self.write(&check)?;
        self.write(&payload)?;
        self.items += 1;
        Ok(())
    }

    /// Ends the archive and gives back what it was written to, flushed.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.item(&Item::End(self.items))?;
        let Self { mut out, name, .. } = self;
        out.flush().map_err(|source| ArchiveError::Io { name, action: "write", source })?;
        Ok(out)
    }
}

/// Reads items.
#[derive(Debug)]
pub struct ArchiveReader<R> {
    input: R,
    name: String,
    offset: u64,
    check: Check,
    items: u64,
    ended: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// Begins to read an archive; `name` is what errors call it.
    ///
    /// # Errors
    /// [`ArchiveError`] when it is none, or of another version.
    pub fn new(input: R, name: &str) -> Result<Self, ArchiveError> {
        let name = name.to_owned();
        let mut reader = Self { input, name, offset: 0, check: [0; CHECK_BYTES], items: 0, ended: false };
        let (mut magic, mut version) = ([0; 8], [0; 4]);
        let begun = reader.fill(&mut magic).and_then(|()| reader.fill(&mut version));
        match begun {
            Err(ArchiveError::Truncated { name, .. }) => return Err(ArchiveError::NotArchive { name }),
            begun => begun?,
        }
        if magic != MAGIC {
            return Err(ArchiveError::NotArchive { name: reader.name });
        }
        match u32::from_le_bytes(version) {
            VERSION => Ok(reader),
            found => Err(ArchiveError::Version { name: reader.name, found }),
        }
    }

    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes were read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next item; `None` after the end.
    ///
    /// # Errors
    /// [`ArchiveError`] when the bytes end early or are not what was written.
    pub fn read(&mut self) -> Result<Option<Item>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let at = self.offset;
        let (mut length, mut check) = ([0; 4], [0; CHECK_BYTES]);
        self.fill(&mut length)?;
        self.fill(&mut check)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > ITEM_BYTES_MAX {
            return Err(self.damaged(at, format!("an item claims {length} bytes")));
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        self.check = check_of(&self.check, &payload);
        if self.check != check {
            return Err(self.damaged(at, "an item fails its checksum".to_owned()));
        }
        let item = decode::<Item, { 2 * ITEM_BYTES_MAX }>(&payload)
            .map_err(|error| self.damaged(at, error.to_string()))?;
        if let Item::End(items) = item {
            self.end(at, items)?;
            return Ok(None);
        }
        self.items += 1;
        Ok(Some(item))
    }

    fn end(&mut self, at: u64, items: u64) -> Result<(), ArchiveError> {
        self.ended = true;
        if items != self.items {
            return Err(self.damaged(at, format!("it holds {} items and says {items}", self.items)));
        }
        let mut more = [0; 1];
        match self.fill(&mut more) {
            Err(ArchiveError::Truncated { .. }) => Ok(()),
            Ok(()) => Err(self.damaged(at, "something follows the end".to_owned())),
            Err(error) => Err(error),
        }
    }

    fn damaged(&self, offset: u64, reason: String) -> ArchiveError {
        ArchiveError::Damaged { name: self.name.clone(), offset, reason }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        let mut rest = &mut *bytes;
        while !rest.is_empty() {
            match self.input.read(rest) {
                Ok(0) => {
                    return Err(ArchiveError::Truncated { name: self.name.clone(), offset: self.offset });
                }
                Ok(read) => {
                    self.offset += read as u64;
                    rest = rest.get_mut(read..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let name = self.name.clone();
                    return Err(ArchiveError::Io { name, action: "read", source });
                }
            }
        }
        Ok(())
    }
}
