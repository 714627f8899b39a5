//! Any part of a log of gigabytes, at once: what the viewer shows.
//!
//! A file is cut into blocks of [`BLOCK_BYTES`]; a line belongs to the block it begins in, so each block can be
//! read without those before it. What is on the screen is read when it is shown. Threads in the background
//! sum up every block, the newest first: how many lines pass the filter, of which times and levels. From the
//! sums follow the counts shown, and which blocks a search may skip. Memory: some 60 bytes a block.

use crate::telemetry::log::LogLevel;
use crate::tools::ToolError;
use crate::tools::logs::blocks::{BLOCK_BYTES, Line, Place, block_lines, blocks_of};
use crate::tools::logs::files::{Found, Opened, is_packed};
use crate::tools::logs::filter::Filter;
use parking_lot::{Condvar, Mutex};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Blocks read for one screen that were not summed up yet: more than that waits for the background.
const SCREEN_BLOCKS: usize = 64;
/// Blocks read by one search.
const SEARCH_BLOCKS: usize = 4096;
/// Most threads in the background.
const THREADS_MAX: usize = 4;

/// What a look brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The lines, ascending.
    pub lines: Vec<Line>,
    /// Whether more may follow in this direction that nobody has looked at yet.
    pub unfinished: bool,
}

/// A direction of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Towards the newest.
    Forward,
    /// Towards the oldest.
    Backward,
}

/// How far the background is, and what it has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks summed up.
    pub done: u64,
    /// All blocks.
    pub blocks: u64,
    /// Lines in those.
    pub lines: u64,
    /// Lines of them that pass.
    pub passing: u64,
    /// Packed files that are not unpacked yet.
    pub unpacking: usize,
}

/// What is known of a block under the present filter.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    lines: u32,
    passing: u32,
    /// The greatest level of a line that passes.
    level: Option<LogLevel>,
}

struct FileState {
    opened: Arc<Opened>,
    length: u64,
    sums: Vec<Option<Sum>>,
}

struct State {
    /// One for each file, in order; `None` while it is unpacked.
    files: Vec<Option<FileState>>,
    filter: Arc<Filter>,
    /// Counts filters, so that a sum under an old one is not taken for one of the new.
    generation: u64,
    /// Blocks to be summed up, the last one first.
    waiting: Vec<(usize, usize)>,
    unpacking: Vec<(usize, Found)>,
    failures: Vec<String>,
    progress: Progress,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    over: AtomicBool,
    now_ms: u64,
}

/// A log of many files.
pub struct Pages {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pages {
    /// Opens files in the order given. Packed ones are unpacked in the background.
    ///
    /// # Errors
    /// [`ToolError`] when one cannot be opened.
    pub fn open(found: Vec<Found>, filter: Filter, now_ms: u64) -> Result<Self, ToolError> {
        let (mut files, mut unpacking) = (Vec::new(), Vec::new());
        for found in found {
            let packed = is_packed(&found.path);
            if packed.is_ok_and(|packed| packed) {
                unpacking.push((files.len(), found));
                files.push(None);
            } else {
                files.push(Some(file_state(Opened::open(&found.path)?)));
            }
        }
        let progress = Progress { unpacking: unpacking.len(), ..Progress::default() };
        let mut state = State {
            files,
            filter: Arc::new(filter),
            generation: 0,
            waiting: Vec::new(),
            unpacking,
            failures: Vec::new(),
            progress,
        };
        state.begin();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            over: AtomicBool::new(false),
            now_ms,
        });
        let count = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
        let threads = (0..count)
            .filter_map(|number| {
                let shared = Arc::clone(&shared);
                let thread = std::thread::Builder::new().name(format!("log-index-{number}"));
                thread.spawn(move || shared.work_off()).ok()
            })
            .collect();
        Ok(Self { shared, threads })
    }

    /// Shows other lines from now on.
    pub fn set_filter(&self, filter: Filter) {
        let mut state = self.shared.state.lock();
        state.filter = Arc::new(filter);
        state.generation += 1;
        for file in state.files.iter_mut().flatten() {
            file.sums.fill(None);
        }
        state.begin();
        self.shared.work.notify_all();
    }

    /// How far the background is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.state.lock().progress
    }

    /// What could not be read, since asked last.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state.lock().failures)
    }

    /// Name of a file.
    #[must_use]
    pub fn file_name(&self, file: usize) -> String {
        let state = self.shared.state.lock();
        let found = state.files.get(file).and_then(Option::as_ref);
        found.map_or_else(String::new, |file| {
            let name = file.opened.path.file_name().unwrap_or(file.opened.path.as_os_str());
            name.to_string_lossy().into_owned()
        })
    }

    /// Looks whether files have grown or were rotated; whether anything is new.
    pub fn refresh(&self) -> bool {
        let mut state = self.shared.state.lock();
        let (mut any, mut fresh) = (false, Vec::new());
        let mut again = Vec::new();
        for (number, file) in state.files.iter_mut().enumerate() {
            let Some(file) = file else { continue };
            let length = file.opened.length().unwrap_or(file.length);
            if length != file.length {
                any = true;
                // The last line may have been half of one; one that became shorter begins anew.
                let changed = blocks_of(file.length).saturating_sub(2);
                let changed = if length < file.length { 0 } else { changed };
                file.length = length;
                file.sums.resize(blocks_of(length), None);
                for block in changed..file.sums.len() {
                    if let Some(sum) = file.sums.get_mut(block) {
                        again.push((number, block, sum.take()));
                    }
                }
            }
            if file.opened.was_replaced() {
                fresh.push(file.opened.path.clone());
            }
        }
        for (number, block, sum) in again {
            state.forget(sum);
            state.waiting.push((number, block));
        }
        for path in fresh {
            let known = state
                .files
                .iter()
                .flatten()
                .any(|file| file.opened.path == path && !file.opened.was_replaced());
            if !known && let Ok(opened) = Opened::open(&path) {
                any = true;
                let number = state.files.len();
                state.add(number, opened);
            }
        }
        state.count_blocks();
        self.shared.work.notify_all();
        any
    }

    /// At most `count` lines before a place, or the last ones.
    #[must_use]
    pub fn before(&self, place: Option<Place>, count: usize) -> Look {
        self.look(place, Way::Backward, count, SCREEN_BLOCKS, &|_| true, &|_| true)
    }

    /// At most `count` lines from a place on, or the first ones.
    #[must_use]
    pub fn from(&self, place: Option<Place>, count: usize) -> Look {
        self.look(place, Way::Forward, count, SCREEN_BLOCKS, &|_| true, &|_| true)
    }

    /// How many lines behind a place pass, as far as they are summed up.
    #[must_use]
    pub fn passing_after(&self, place: Place) -> u64 {
        let own = usize::try_from(place.offset).unwrap_or(usize::MAX) / BLOCK_BYTES;
        let (opened, length, filter, later) = {
            let state = self.shared.state.lock();
            let Some(Some(file)) = state.files.get(place.file) else { return 0 };
            let rest = state.files.iter().skip(place.file + 1).flatten().flat_map(|file| &file.sums);
            let sums = file.sums.iter().skip(own + 1).chain(rest);
            let later: u64 = sums.flatten().map(|sum| u64::from(sum.passing)).sum();
            (Arc::clone(&file.opened), file.length, Arc::clone(&state.filter), later)
        };
        let lines = block_lines(&opened, own, length, self.shared.now_ms);
        let passes = |line: &&Line| {
            line.place.offset > place.offset && filter.passes(&line.bytes, line.head, self.shared.now_ms)
        };
        later + lines.iter().filter(passes).count() as u64
    }

    /// The next line behind or before `place` of a level or above.
    #[must_use]
    pub fn of_level(&self, place: Option<Place>, way: Way, least: LogLevel) -> Look {
        let may = |sum: &Sum| sum.level >= Some(least);
        let is = |line: &Line| line.head.level >= Some(least) && Some(line.place) != place;
        self.look(place, way, 1, SEARCH_BLOCKS, &may, &is)
    }

    /// The first line of a time or later.
    #[must_use]
    pub fn at_time(&self, time_ms: u64) -> Look {
        let is = |line: &Line| line.head.time_ms.is_some_and(|ms| ms >= time_ms);
        let from = self.near_time(time_ms);
        self.look(from, Way::Forward, 1, SEARCH_BLOCKS, &|_| true, &is)
    }

    /// A place at or before the first line of a time, by halving.
    fn near_time(&self, time_ms: u64) -> Option<Place> {
        let files: Vec<_> = {
            let state = self.shared.state.lock();
            let files = state.files.iter().enumerate();
            files
                .filter_map(|(number, file)| {
                    Some((number, file.as_ref()?.opened.clone(), file.as_ref()?.length))
                })
                .collect()
        };
        let mut best = None;
        for (number, opened, length) in files {
            let (mut low, mut high) = (0, blocks_of(length));
            // The last block that begins before the time.
            while low < high {
                let middle = usize::midpoint(low, high);
                let lines = block_lines(&opened, middle, length, self.shared.now_ms);
                let first = lines.iter().find_map(|line| line.head.time_ms);
                if first.is_some_and(|first| first < time_ms) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            if low > 0 {
                best = Some(Place { file: number, offset: ((low - 1) * BLOCK_BYTES) as u64 });
            }
        }
        best
    }

    /// Collects lines in one direction: skips blocks whose sum says that they hold nothing, and reads at most
    /// so many of which there is no sum.
    fn look(
        &self,
        place: Option<Place>,
        way: Way,
        count: usize,
        blocks_max: usize,
        may: &dyn Fn(&Sum) -> bool,
        is: &dyn Fn(&Line) -> bool,
    ) -> Look {
        let mut look = Look::default();
        let mut read = 0;
        let mut next = self.shared.state.lock().block_at(place, way);
        while look.lines.len() < count
            && let Some((file, block)) = next
        {
            let (opened, length, sum, filter) = {
                let state = self.shared.state.lock();
                next = state.neighbour((file, block), way);
                let Some(Some(found)) = state.files.get(file) else { continue };
                let sum = found.sums.get(block).copied().flatten();
                (Arc::clone(&found.opened), found.length, sum, Arc::clone(&state.filter))
            };
            if sum.is_some_and(|sum| sum.passing == 0 || !may(&sum)) {
                continue;
            }
            if sum.is_none() {
                read += 1;
                if read > blocks_max {
                    look.unfinished = true;
                    break;
                }
            }
            let now_ms = self.shared.now_ms;
            let mut lines = block_lines(&opened, block, length, now_ms);
            lines.iter_mut().for_each(|line| line.place.file = file);
            lines.retain(|line| {
                let there = match (way, place) {
                    (_, None) => true,
                    (Way::Forward, Some(place)) => line.place >= place,
                    (Way::Backward, Some(place)) => line.place < place,
                };
                there && filter.passes(&line.bytes, line.head, now_ms) && is(line)
            });
            let room = count - look.lines.len();
            match way {
                Way::Forward => look.lines.extend(lines.into_iter().take(room)),
                Way::Backward => {
                    let spare = lines.len().saturating_sub(room);
                    lines.drain(..spare);
                    lines.append(&mut look.lines);
                    look.lines = lines;
                }
            }
        }
        look
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has nothing to give back.
            let _ended = thread.join();
        }
    }
}

fn file_state(opened: Opened) -> FileState {
    let length = opened.length().unwrap_or(0);
    FileState { opened: Arc::new(opened), length, sums: vec![None; blocks_of(length)] }
}

impl State {
    /// Begins the sums again.
    fn begin(&mut self) {
        let files = self.files.iter().enumerate();
        let blocks = files.flat_map(|(number, file)| {
            let blocks = file.as_ref().map_or(0, |file| file.sums.len());
            (0..blocks).map(move |block| (number, block))
        });
        self.waiting = blocks.collect();
        self.progress = Progress { unpacking: self.progress.unpacking, ..Progress::default() };
        self.count_blocks();
    }

    fn count_blocks(&mut self) {
        self.progress.blocks = self.files.iter().flatten().map(|file| file.sums.len() as u64).sum();
    }

    fn add(&mut self, number: usize, opened: Opened) {
        let file = file_state(opened);
        self.waiting.extend((0..file.sums.len()).map(|block| (number, block)));
        while self.files.len() <= number {
            self.files.push(None);
        }
        if let Some(place) = self.files.get_mut(number) {
            *place = Some(file);
        }
        self.count_blocks();
    }

    fn forget(&mut self, sum: Option<Sum>) {
        if let Some(sum) = sum {
            self.progress.done = self.progress.done.saturating_sub(1);
            self.progress.lines = self.progress.lines.saturating_sub(u64::from(sum.lines));
            self.progress.passing = self.progress.passing.saturating_sub(u64::from(sum.passing));
        }
    }

    fn blocks(&self, file: usize) -> usize {
        self.files.get(file).and_then(Option::as_ref).map_or(0, |file| file.sums.len())
    }

    /// The block a look begins with.
    fn block_at(&self, place: Option<Place>, way: Way) -> Option<(usize, usize)> {
        let Some(place) = place else {
            return match way {
                Way::Forward => self.first_from(0),
                Way::Backward => self.last_before(self.files.len()),
            };
        };
        let block = usize::try_from(place.offset).unwrap_or(usize::MAX) / BLOCK_BYTES;
        if block < self.blocks(place.file) {
            return Some((place.file, block));
        }
        match way {
            Way::Forward => self.first_from(place.file + 1),
            Way::Backward => self.last_before(place.file + 1),
        }
    }

    fn neighbour(&self, (file, block): (usize, usize), way: Way) -> Option<(usize, usize)> {
        match way {
            Way::Forward if block + 1 < self.blocks(file) => Some((file, block + 1)),
            Way::Forward => self.first_from(file + 1),
            Way::Backward if block > 0 => Some((file, block - 1)),
            Way::Backward => self.last_before(file),
        }
    }

    fn first_from(&self, file: usize) -> Option<(usize, usize)> {
        (file..self.files.len()).find(|file| self.blocks(*file) > 0).map(|file| (file, 0))
    }

    fn last_before(&self, file: usize) -> Option<(usize, usize)> {
        (0..file).rev().find(|file| self.blocks(*file) > 0).map(|file| (file, self.blocks(file) - 1))
    }
}

/// What a thread in the background has to do next.
enum Task {
    Sum { place: (usize, usize), opened: Arc<Opened>, length: u64, filter: Arc<Filter>, generation: u64 },
    Unpack(usize, Found),
}

impl Shared {
    fn work_off(&self) {
        while let Some(task) = self.next_task() {
            match task {
                Task::Unpack(number, found) => {
                    let opened = Opened::open(&found.path);
                    let mut state = self.state.lock();
                    state.progress.unpacking = state.progress.unpacking.saturating_sub(1);
                    match opened {
                        Ok(opened) => state.add(number, opened),
                        Err(error) => state.failures.push(error.to_string()),
                    }
                    self.work.notify_all();
                }
                Task::Sum { place, opened, length, filter, generation } => {
                    let sum = sum(&block_lines(&opened, place.1, length, self.now_ms), &filter, self.now_ms);
                    let mut state = self.state.lock();
                    if state.generation == generation {
                        state.keep(place, length, sum);
                    }
                }
            }
        }
    }

    /// Waits for something to do; `None` when it is over.
    fn next_task(&self) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if self.over.load(Ordering::Relaxed) {
                return None;
            }
            if let Some((file, block)) = state.waiting.pop() {
                let generation = state.generation;
                let filter = Arc::clone(&state.filter);
                let Some(Some(found)) = state.files.get(file) else { continue };
                let (opened, length) = (Arc::clone(&found.opened), found.length);
                return Some(Task::Sum { place: (file, block), opened, length, filter, generation });
            }
            if let Some((number, found)) = state.unpacking.pop() {
                return Some(Task::Unpack(number, found));
            }
            self.work.wait(&mut state);
        }
    }
}

impl State {
    fn keep(&mut self, (file, block): (usize, usize), length: u64, sum: Sum) {
        let Some(Some(found)) = self.files.get_mut(file) else { return };
        // It grew meanwhile: the last line may have been half of one.
        if found.length != length && block + 1 >= blocks_of(length) {
            self.waiting.push((file, block));
            return;
        }
        let Some(place) = found.sums.get_mut(block) else { return };
        let old = place.replace(sum);
        self.forget(old);
        self.progress.done += 1;
        self.progress.lines += u64::from(sum.lines);
        self.progress.passing += u64::from(sum.passing);
    }
}

fn sum(lines: &[Line], filter: &Filter, now_ms: u64) -> Sum {
    let mut sum = Sum { lines: u32::try_from(lines.len()).unwrap_or(u32::MAX), ..Sum::default() };
    for line in lines {
        if filter.passes(&line.bytes, line.head, now_ms) {
            sum.passing += 1;
            sum.level = sum.level.max(line.head.level);
        }
    }
    sum
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
