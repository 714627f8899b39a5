//! `masternode doctor`: looks at everything a node depends on and says what is wrong, where, and what to do.
//!
//! It changes nothing: files are only read, and what can be read by opening it for writing only (the
//! database, the vote log) is opened as a copy in a folder of its own, which is removed. Of a running node
//! the database is the node's to recount. Every check stands alone, so damage in one place hides nothing in
//! another.

mod data;
mod files;
mod machine;
mod running;

use crate::config::Config;
use crate::ledger::genesis::Genesis;
use crate::node::data_dir::is_locked;
use crate::rpc::client::{ClientError, ControlClient};
use crate::telemetry::snapshot::Snapshot;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Looked at and right.
    Ok,
    /// Worth knowing.
    Note,
    /// Could not be looked at, and why.
    Skipped,
    /// Will be a fault some day, or may be one.
    Warning,
    /// The node does not start, does not vote, or must not.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Skipped => "skipped",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check; stable.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// File or address.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do; empty when nothing has to be done.
    pub remedy: String,
}

/// All findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings are of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn add(
        &mut self,
        check: &'static str,
        severity: Severity,
        place: impl fmt::Display,
        what: impl Into<String>,
    ) {
        let (what, place) = (what.into(), place.to_string());
        self.findings.push(Finding { check, severity, what, place, remedy: String::new() });
    }

    fn ok(&mut self, check: &'static str, place: impl fmt::Display, what: impl Into<String>) {
        self.add(check, Severity::Ok, place, what);
    }

    fn fault(
        &mut self,
        check: &'static str,
        severity: Severity,
        place: impl fmt::Display,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check, severity, place, what);
        if let Some(last) = self.findings.last_mut() {
            last.remedy = remedy.into();
        }
    }
}

/// What to look at.
#[derive(Clone, Debug)]
pub struct DoctorOrder {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configuration file, or where it ought to be.
    pub config_file: PathBuf,
    /// The configuration, or why there is none.
    pub config: Result<Config, String>,
    /// Where copies are made; a folder in it is made and removed.
    pub scratch: PathBuf,
    /// Leaves out what takes long: opening the database and recounting it.
    pub quick: bool,
    /// Also reads every stored block.
    pub deep: bool,
}

/// Whether a node runs in the directory.
enum Node {
    Running(Box<Running>),
    /// The lock is held and nobody answers, for this reason.
    Silent(String),
    Stopped,
}

struct Running {
    client: ControlClient,
    snapshot: Snapshot,
}

/// What the checks share.
struct Patient {
    order: DoctorOrder,
    config: Config,
    genesis: Option<Genesis>,
    node: Node,
}

impl Patient {
    fn dir(&self) -> &Path {
        &self.order.data_dir
    }
}

/// Looks at everything.
#[must_use]
pub fn examine(order: DoctorOrder) -> Report {
    let mut report = Report::default();
    let mut config = match &order.config {
        Ok(config) => config.clone(),
        Err(_) => Config::defaults(crate::primitives::chain::NetworkKind::Mainnet),
    };
    config.data_dir.clone_from(&order.data_dir);
    files::configuration(&order, &mut report);
    if !files::directory(&order.data_dir, &mut report) {
        return report;
    }
    let genesis = files::genesis(&config, order.config.is_ok(), &mut report);
    let node = find_node(&config);
    let mut patient = Patient { order, config, genesis, node };
    files::owners(&patient, &mut report);
    files::keys(&patient, &mut report);
    files::leftovers(&patient, &mut report);
    machine::disk(&patient, &mut report);
    machine::open_files(&mut report);
    machine::port(&patient, &mut report);
    machine::clock(&patient, &mut report);
    match &mut patient.node {
        Node::Running(node) => running::look(node, patient.order.quick, &patient.order.data_dir, &mut report),
        Node::Silent(reason) => report.fault(
            "node",
            Severity::Warning,
            patient.order.data_dir.join("LOCK").display(),
            format!("a process holds the lock of the data directory, but does not answer: {reason}"),
            "it may be starting or stopping: look again in a minute, then at its log",
        ),
        Node::Stopped => {
            report.add("node", Severity::Note, patient.order.data_dir.display(), "no masternode runs here");
        }
    }
    match patient.node {
        Node::Running(_) => {}
        Node::Silent(_) => {
            let place = patient.config.database_path();
            report.add("database", Severity::Skipped, place.display(), "another process uses it");
        }
        Node::Stopped => data::look(&patient, &mut report),
    }
    report
}

fn find_node(config: &Config) -> Node {
    match ControlClient::connect(&config.data_dir).and_then(|mut client| {
        let snapshot = client.status()?;
        Ok(Running { client, snapshot })
    }) {
        Ok(running) => Node::Running(Box::new(running)),
        Err(error) if is_locked(&config.lock_path()) => Node::Silent(error.to_string()),
        // Somebody answers or may, though the lock is free.
        Err(
            error @ (ClientError::Silent { .. }
            | ClientError::Closed { .. }
            | ClientError::Refused { .. }
            | ClientError::Garbled { .. }),
        ) => Node::Silent(error.to_string()),
        Err(_) => Node::Stopped,
    }
}
