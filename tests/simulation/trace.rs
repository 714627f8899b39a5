//! The record of a run: a hash of everything that happened, and on demand the story in words.

use crate::random::mix;
use masternode::primitives::encoding::encode;
use masternode::primitives::message::Message;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Lines kept for the report of a failure when the trace is on.
const LINES_MAX: usize = 200_000;

/// Hash and story of a run.
pub struct Trace {
    hash: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub fn new(in_words: bool) -> Self {
        Self { hash: 0, lines: in_words.then(VecDeque::new) }
    }

    /// Mixes an event into the hash and, if the trace is on, notes it in words.
    pub fn note(&mut self, at_us: u64, value: u64, words: impl FnOnce() -> String) {
        self.hash = mix(self.hash.rotate_left(7) ^ mix(at_us ^ value.rotate_left(32)));
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(format!("{:>10.3} ms  {}", at_us as f64 / 1000.0, words()));
        }
    }

    /// Equal for equal runs.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The story; empty unless asked for.
    pub fn story(&self) -> String {
        self.lines.iter().flatten().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }
}

/// Sixty-four bits of what a message is.
pub fn fingerprint(message: &Message) -> u64 {
    let hash = blake3::hash(&encode(message));
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash is longer than eight bytes"))
}

/// A message in a few words.
pub fn describe(message: &Message) -> String {
    let id =
        |id: &Option<_>| id.map_or("nil".to_owned(), |id: masternode::primitives::hash::BlockId| id.short());
    match message {
        Message::Transaction(transaction) => format!("transaction {}", transaction.id().short()),
        Message::VoteBatch(batch) => format!(
            "batch {}#{}{} era {} P{:?} C{:?}",
            batch.voter,
            batch.sequence,
            if batch.last { " LAST" } else { "" },
            batch.era_tag.short(),
            batch.prepares.iter().map(|id| id.short()).collect::<Vec<_>>(),
            batch.commits.iter().map(|id| id.short()).collect::<Vec<_>>(),
        ),
        Message::Proposal(proposal) => format!(
            "proposal h{} r{} vr{} {} of {:?}",
            proposal.outline.header.height,
            proposal.round,
            proposal.valid_round,
            proposal.outline.header.id().short(),
            proposal.outline.txids.iter().map(|id| id.short()).collect::<Vec<_>>(),
        ),
        Message::Vote(vote) => {
            format!(
                "{:?} {} r{} {} era {}",
                vote.step,
                vote.voter,
                vote.round,
                id(&vote.block),
                vote.era_tag.short()
            )
        }
        Message::Pol { qc, .. } => format!("pol r{} {}", qc.round, qc.block.short()),
        Message::Commit { height, qc } => format!("commit h{height} r{} {}", qc.round, qc.block.short()),
        Message::Status(status) => {
            format!("status h{} r{} heads {:?}", status.height, status.round, status.stream_heads)
        }
        Message::GetTransactions(ids) => {
            format!("get-transactions {:?}", ids.iter().map(|id| id.short()).collect::<Vec<_>>())
        }
        Message::GetStream { voter, from, .. } => format!("get-stream of {voter} from {from}"),
        Message::Stream(batches) => format!(
            "stream {:?}",
            batches
                .iter()
                .map(|b| format!("{}#{}{}", b.voter, b.sequence, if b.last { "L" } else { "" }))
                .collect::<Vec<_>>()
        ),
        Message::GetCertificate { txid, .. } => format!("get-certificate {}", txid.short()),
        Message::Certificate { certificate, .. } => format!("certificate {}", certificate.txid.short()),
        Message::GetCandidate { block, .. } => format!("get-candidate {}", block.short()),
        Message::Candidate { outline, .. } => format!("candidate {}", outline.header.id().short()),
        other => other.name().to_owned(),
    }
}
