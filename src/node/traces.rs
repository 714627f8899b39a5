//! What a data directory says of what its vote key has signed, judged at the start: is the vote log
//! whole, or does this masternode have to be let back by the chain (protocol §10, safe start)?
//!
//! Nothing is deleted: files that cannot be used any more are renamed, and the message names them.

use crate::consensus::standing::Nonce;
use crate::durable::sync_folder;
use crate::node::instance::{Finding, Since};
use crate::node::journal::LogEnd;
use std::io;
use std::path::{Path, PathBuf};

/// Most files of one name that are set aside before the operator has to tidy up.
const ASIDE_MAX: u32 = 10_000;

/// What is on disk.
#[derive(Debug)]
pub struct Traces {
    /// The file `instance`.
    pub finding: Finding,
    /// The sign floor, if the file is there; or that it is damaged.
    pub floor: Result<Option<u64>, String>,
    /// Heights of the oldest and the newest segment of the vote log, if there is one.
    pub log: Option<(u64, u64)>,
    /// Where the log ended when the node was stopped in order, if it was, and where it ends now.
    pub closed: Option<(LogEnd, Option<LogEnd>)>,
    /// Height of the newest block in the database.
    pub stored: u64,
}

/// What follows from the traces.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What the vote log is whole since.
    pub since: Since,
    /// Numbers drawn in earlier lives that still count.
    pub drawn: Vec<Nonce>,
    /// The vote log cannot be taken up and has to make room for another.
    pub log_is_useless: bool,
}

impl Judgement {
    /// The log is lost for this reason, and a new one begins.
    #[must_use]
    pub fn lost(reason: String) -> Self {
        Self { since: Since::Lost(reason), drawn: Vec::new(), log_is_useless: true }
    }
}

impl Traces {
    /// Judges the traces. Pure.
    #[must_use]
    pub fn judge(self) -> Judgement {
        let gap = self.gap();
        let damage = self.damage();
        match self.finding {
            Finding::Unusable(reason) => Judgement::lost(reason),
            Finding::Absent if self.stored == 0 && self.log.is_none() && self.floor == Ok(None) => {
                Judgement { since: Since::Never, drawn: Vec::new(), log_is_useless: false }
            }
            Finding::Absent if self.log.is_none() && self.floor == Ok(None) => Judgement::lost(format!(
                "this data directory is new and its database is at height {}, from a snapshot or a copy: nobody \
                 knows here what its key has signed",
                self.stored
            )),
            Finding::Absent => Judgement::lost(
                "the file `instance` is missing, so nobody knows whether this data directory is whole"
                    .to_owned(),
            ),
            Finding::Intact { since, drawn } => match since {
                Since::Registration | Since::Resume(_) => match damage.or_else(|| gap.clone()) {
                    Some(reason) => Judgement::lost(reason),
                    None => Judgement { since, drawn, log_is_useless: false },
                },
                // Nothing was signed that a log could have lost.
                Since::Never | Since::Lost(_) => Judgement { since, drawn, log_is_useless: gap.is_some() },
            },
        }
    }

    /// Heights that are missing between database and log: it cannot be replayed.
    fn gap(&self) -> Option<String> {
        let (oldest, newest) = self.log.filter(|(oldest, _)| *oldest > self.stored.saturating_add(1))?;
        Some(format!(
            "the database is at height {} and the vote log goes from height {oldest} to {newest}: the database has \
             gone back in time",
            self.stored
        ))
    }

    /// What is missing of what a masternode that has signed leaves behind.
    fn damage(&self) -> Option<String> {
        let stored = self.stored;
        if let Some((was, is)) = self.closed.filter(|(was, is)| *is != Some(*was)) {
            let is = is.map_or("is not there".to_owned(), |is| {
                format!("ends at byte {} of height {}", is.bytes, is.height)
            });
            return Some(format!(
                "the vote log ended at byte {} of height {} when this node was stopped, and now {is}: it was cut or \
                 replaced",
                was.bytes, was.height
            ));
        }
        match (&self.floor, self.log) {
            (Err(damaged), _) => Some(damaged.clone()),
            (_, None) => Some(format!("the vote log is missing while the database is at height {stored}")),
            (Ok(None), _) => {
                Some(format!("the sign floor is missing while the database is at height {stored}"))
            }
            (Ok(Some(floor)), Some((_, newest))) if *floor > stored && *floor > newest => Some(format!(
                "the database is at height {stored}, the vote log at {newest}, the sign floor at {floor}: files have \
                 gone back in time"
            )),
            _ => None,
        }
    }
}

/// Renames a file or folder to the first free of `NAME.old-1`, `NAME.old-2` and so on; what it is called
/// now.
///
/// # Errors
/// What the system says.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..ASIDE_MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".old-{number}"));
        let target = PathBuf::from(name);
        if !target.try_exists()? {
            std::fs::rename(path, &target)?;
            sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(|error| error.source)?;
            return Ok(target);
        }
    }
    Err(io::Error::other(format!("{ASIDE_MAX} old copies are there already: move them away")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that has signed since its registration, crashed at height 9 and is whole.
    fn whole() -> Traces {
        let finding = Finding::Intact { since: Since::Registration, drawn: vec![[1; 32]] };
        Traces { finding, floor: Ok(Some(9)), log: Some((7, 9)), closed: None, stored: 8 }
    }

    #[track_caller]
    fn lost(traces: Traces, parts: &[&str]) {
        let judged = traces.judge();
        let Since::Lost(reason) = &judged.since else { panic!("{judged:?}") };
        assert!(judged.log_is_useless && judged.drawn.is_empty());
        for part in parts {
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn whole_files_are_taken_up_also_when_the_floor_is_one_ahead_of_the_database() {
        for (floor, log, stored) in [(9, (7, 9), 8), (9, (7, 9), 9), (9, (7, 8), 9), (9, (9, 9), 8)] {
            let judged = Traces { floor: Ok(Some(floor)), log: Some(log), stored, ..whole() }.judge();
            let drawn = vec![[1; 32]];
            assert_eq!(judged, Judgement { since: Since::Registration, drawn, log_is_useless: false });
        }
    }

    #[test]
    fn whatever_is_missing_of_what_was_signed_is_named_with_its_heights() {
        lost(Traces { log: None, ..whole() }, &["vote log is missing", "height 8"]);
        lost(Traces { floor: Ok(None), ..whole() }, &["sign floor is missing", "height 8"]);
        lost(Traces { floor: Err("the floor is damaged".to_owned()), ..whole() }, &["floor is damaged"]);
        lost(Traces { floor: Ok(Some(31)), ..whole() }, &["height 8", "at 9", "at 31"]);
        lost(Traces { log: Some((7, 9)), stored: 5, ..whole() }, &["height 5", "from height 7 to 9"]);
        lost(Traces { finding: Finding::Absent, ..whole() }, &["`instance` is missing"]);
        lost(Traces { finding: Finding::Unusable("a copy".to_owned()), ..whole() }, &["a copy"]);
    }

    #[test]
    fn a_log_that_does_not_end_where_it_was_closed_is_told_with_both_ends() {
        let end = |bytes| LogEnd { height: 9, bytes };
        lost(Traces { closed: Some((end(512), Some(end(200)))), ..whole() }, &["byte 512", "byte 200"]);
        lost(Traces { closed: Some((end(512), None)), ..whole() }, &["byte 512", "not there"]);
        let judged = Traces { closed: Some((end(512), Some(end(512)))), ..whole() }.judge();
        assert_eq!(judged.since, Since::Registration);
    }

    #[test]
    fn an_empty_directory_is_new_and_one_trace_of_use_is_enough_that_it_is_not() {
        let empty =
            || Traces { finding: Finding::Absent, floor: Ok(None), log: None, closed: None, stored: 0 };
        assert_eq!(empty().judge().since, Since::Never);
        lost(Traces { floor: Ok(Some(4)), ..empty() }, &["`instance`"]);
        lost(Traces { log: Some((1, 1)), ..empty() }, &["`instance`"]);
        lost(Traces { stored: 1, ..empty() }, &["is new", "height 1"]);
    }

    #[test]
    fn where_nothing_was_signed_nothing_can_be_lost_and_only_a_log_with_a_gap_makes_room() {
        for since in [Since::Never, Since::Lost("moved".to_owned())] {
            let finding = || Finding::Intact { since: since.clone(), drawn: vec![[2; 32]] };
            let kept =
                Traces { finding: finding(), floor: Ok(None), log: None, stored: 3, ..whole() }.judge();
            assert_eq!(kept, Judgement { since: since.clone(), drawn: vec![[2; 32]], log_is_useless: false });
            let gap = Traces { finding: finding(), log: Some((7, 9)), stored: 0, ..whole() }.judge();
            assert_eq!(gap, Judgement { since: since.clone(), drawn: vec![[2; 32]], log_is_useless: true });
        }
    }

    #[test]
    fn what_is_set_aside_keeps_its_content_and_never_replaces_anything() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("journal");
        for number in 1..=3 {
            std::fs::write(&path, format!("{number}")).unwrap();
            let now = set_aside(&path).unwrap();
            assert_eq!(now, root.path().join(format!("journal.old-{number}")));
            assert!(!path.exists());
        }
        assert_eq!(std::fs::read_to_string(root.path().join("journal.old-2")).unwrap(), "2");
    }
}
