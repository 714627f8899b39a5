//! What the harness knows of files: the page it shares with the file layer, and what a power cut leaves
//! of a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Splitmix64: the same seed is the same run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn place(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}

/// The file layer, built once.
pub fn shim() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let library = target.join(format!("libstorage_shim-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage/shim.rs");
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let built = Command::new(compiler)
            .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"])
            .args([&library, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        library
    })
}

/// The page shared with one process under the file layer.
pub struct Control {
    file: File,
    path: PathBuf,
}

impl Control {
    pub fn new(path: &Path) -> Self {
        std::fs::write(path, [0; 64]).unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        Self { file, path: path.to_owned() }
    }

    fn set(&self, word: u64, value: u64) {
        self.file.write_all_at(&value.to_le_bytes(), word * 8).unwrap();
    }

    fn word(&self, word: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, word * 8).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub fn operations(&self) -> u64 {
        self.word(0)
    }

    /// Kill the process in its `after`-th operation from now, with so many of 256 parts of it done.
    pub fn kill_after(&self, after: u64, part: u64) {
        self.set(2, part);
        self.set(1, self.operations() + after);
    }

    /// Fail whatever needs space, from the `after`-th operation from now on; the first one in the middle.
    pub fn fail_after(&self, after: u64, error: i32, part: u64) {
        self.set(2, part);
        self.set(4, u64::try_from(error).unwrap());
        self.set(5, 0);
        self.set(3, self.operations() + after);
    }

    pub fn failures(&self) -> u64 {
        self.word(5)
    }

    pub fn heal(&self) {
        self.set(3, 0);
    }

    /// Puts the file layer in front of a command's C library.
    pub fn apply(&self, command: &mut Command, dir: &Path, log: Option<&Path>) {
        command
            .env("LD_PRELOAD", shim())
            .env("STORAGE_SHIM_DIR", dir)
            .env("STORAGE_SHIM_CONTROL", &self.path);
        if let Some(log) = log {
            command.env("STORAGE_SHIM_LOG", log);
        }
    }
}

/// A change of one file that no sync has covered.
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                if image.len() < at + bytes.len() {
                    image.resize(at + bytes.len(), 0);
                }
                image[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(length) => image.resize(*length, 0),
        }
    }
}

#[derive(Default)]
struct Image {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A change of names that no sync has covered.
enum Naming {
    Link(PathBuf, usize),
    Folder(PathBuf),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Naming {
    fn folders(&self) -> Vec<&Path> {
        match self {
            Self::Link(path, _) | Self::Folder(path) | Self::Unlink(path) => vec![path.parent().unwrap()],
            Self::Rename(from, to) => vec![from.parent().unwrap(), to.parent().unwrap()],
        }
    }
}

/// Names and what they stand for; `None` is a folder.
type Names = BTreeMap<PathBuf, Option<usize>>;

/// A directory as a disk knows it: what is durable, and what only the system has.
pub struct Shelf {
    root: PathBuf,
    images: Vec<Image>,
    durable: Names,
    now: Names,
    pending: Vec<Naming>,
}

impl Shelf {
    /// All of `root` as it is now, durable.
    pub fn of(root: &Path) -> Self {
        let mut shelf = Self {
            root: root.to_owned(),
            images: Vec::new(),
            durable: Names::new(),
            now: Names::new(),
            pending: Vec::new(),
        };
        shelf.add(root);
        shelf.now = shelf.durable.clone();
        shelf
    }

    fn add(&mut self, folder: &Path) {
        self.durable.insert(folder.to_owned(), None);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.add(&path);
            } else {
                let durable = std::fs::read(&path).unwrap();
                self.images.push(Image { durable, pending: Vec::new() });
                self.durable.insert(path, Some(self.images.len() - 1));
            }
        }
    }

    /// Everything the file layer noted.
    pub fn play(&mut self, log: &Path) {
        let bytes = std::fs::read(log).unwrap_or_default();
        let mut rest = &bytes[..];
        let mut part = |length: usize| {
            let (part, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(part.to_vec())
        };
        let length = |bytes: Vec<u8>| u32::from_le_bytes(bytes.try_into().unwrap()) as usize;
        while let Some(kind) = part(1) {
            let name = part(4).map(length).and_then(&mut part).unwrap();
            let path = PathBuf::from(String::from_utf8(name).unwrap());
            let number = u64::from_le_bytes(part(8).unwrap().try_into().unwrap());
            let data = part(4).map(length).and_then(&mut part).unwrap();
            self.note(kind[0], path, usize::try_from(number).unwrap(), data);
        }
    }

    fn note(&mut self, kind: u8, path: PathBuf, number: usize, data: Vec<u8>) {
        let image = self.now.get(&path).copied().flatten();
        match kind {
            b'W' => self.images[image.unwrap()].pending.push(Change::Write { at: number, bytes: data }),
            b'T' => self.images[image.unwrap()].pending.push(Change::Length(number)),
            b'S' => self.sync(&path),
            b'C' => {
                self.images.push(Image::default());
                self.now.insert(path.clone(), Some(self.images.len() - 1));
                self.pending.push(Naming::Link(path, self.images.len() - 1));
            }
            b'M' => {
                self.now.insert(path.clone(), None);
                self.pending.push(Naming::Folder(path));
            }
            b'U' => {
                self.now.remove(&path);
                self.pending.push(Naming::Unlink(path));
            }
            b'R' => {
                let to = PathBuf::from(String::from_utf8(data).unwrap());
                name(&mut self.now, &Naming::Rename(path.clone(), to.clone()));
                self.pending.push(Naming::Rename(path, to));
            }
            other => panic!("a note of kind {other}"),
        }
    }

    fn sync(&mut self, path: &Path) {
        match self.now.get(path) {
            Some(Some(image)) => {
                let Image { durable, pending } = &mut self.images[*image];
                pending.drain(..).for_each(|change| change.apply(durable));
            }
            _ => {
                // File systems keep the order of names: what is before is durable too.
                let concerns = |naming: &Naming| naming.folders().contains(&path);
                let last = self.pending.iter().rposition(concerns).map_or(0, |last| last + 1);
                self.pending.drain(..last).for_each(|naming| name(&mut self.durable, &naming));
            }
        }
    }

    /// Puts into `target` what is there after a cut now: of changes no sync has covered, names up to some
    /// moment, writes of each file none, all, or any, each whole, without some sectors, or begun.
    pub fn cut(mut self, random: &mut Random, target: &Path) {
        let kept = random.place(self.pending.len() + 1);
        self.pending.drain(..kept).for_each(|naming| name(&mut self.durable, &naming));
        for (path, image) in &self.durable {
            let path = target.join(path.strip_prefix(&self.root).unwrap());
            let Some(image) = image else {
                std::fs::create_dir_all(path).unwrap();
                continue;
            };
            let Image { durable, pending } = &mut self.images[*image];
            let mode = random.below(4);
            for change in pending.drain(..) {
                let keeps = match mode {
                    0 => false,
                    1 => true,
                    _ => random.below(2) == 0,
                };
                if keeps {
                    torn(change, random).iter().for_each(|part| part.apply(durable));
                }
            }
            std::fs::write(path, durable).unwrap();
        }
    }
}

fn name(names: &mut Names, naming: &Naming) {
    match naming {
        Naming::Link(path, image) => drop(names.insert(path.clone(), Some(*image))),
        Naming::Folder(path) => drop(names.insert(path.clone(), None)),
        Naming::Unlink(path) => drop(names.remove(path)),
        Naming::Rename(from, to) => {
            let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                let image = names.remove(&path).unwrap();
                let rest = path.strip_prefix(from).unwrap();
                let target = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(target, image);
            }
        }
    }
}

/// A write as it may be found: whole, up to some byte, or without some of its sectors.
fn torn(change: Change, random: &mut Random) -> Vec<Change> {
    let Change::Write { at, bytes } = change else { return vec![change] };
    match random.below(4) {
        0 => {
            let kept = random.place(bytes.len() + 1);
            vec![Change::Write { at, bytes: bytes[..kept].to_vec() }]
        }
        1 => {
            let mut parts = Vec::new();
            let mut from = 0;
            while from < bytes.len() {
                let to = (from + 512 - (at + from) % 512).min(bytes.len());
                if random.below(3) != 0 {
                    parts.push(Change::Write { at: at + from, bytes: bytes[from..to].to_vec() });
                }
                from = to;
            }
            parts
        }
        _ => vec![Change::Write { at, bytes }],
    }
}

/// Copies a directory, but for sockets.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&path, &target),
            kind if kind.is_file() => drop(std::fs::copy(&path, &target).unwrap()),
            _ => {}
        }
    }
}
