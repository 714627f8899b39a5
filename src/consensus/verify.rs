//! Which signatures a message rests on, and the only maker of [`Verified`] values.
//!
//! Pure and stateless, so the node runs it in batches off the engine loop. What cannot be checked
//! because it belongs to another era passes unchecked; see [`Verified`].

use crate::consensus::host::Tip;
use crate::consensus::input::Verified;
use crate::consensus::planted::{Bug, Planted};
use crate::primitives::block::{Block, Header, Outline, last_commit_root, tx_root};
use crate::primitives::certificate::{CertificateError, Qc};
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::hash::{BlockId, ChainId, EraTag, Hash, era_tag};
use crate::primitives::keys::{Checker, SignatureCheck, verify_batch};
use crate::primitives::message::{Message, Proposal};
use crate::primitives::transaction::{SharedTransaction, Transaction};
use crate::primitives::vote::{Step, VoteBatch};
use std::sync::Arc;

/// What the signatures of one era are checked against.
#[derive(Clone, Debug)]
pub struct EraContext {
    /// The chain.
    pub chain: ChainId,
    /// Height being decided.
    pub height: u64,
    /// Its era tag.
    pub era_tag: EraTag,
    /// Who votes in it.
    pub committee: Arc<Committee>,
    /// Id of the block before.
    pub previous: BlockId,
    /// Header of the block before: what finality proofs of this era rest on.
    pub header: Arc<Header>,
    /// Era tag and committee of the block before; `None` at height 1.
    pub previous_era: Option<(EraTag, Arc<Committee>)>,
    /// The fault planted in the machine, in tests of the tests.
    pub(super) planted: Planted,
}

impl EraContext {
    /// The context of the height after `tip`.
    #[must_use]
    pub fn after(chain: ChainId, tip: &Tip) -> Self {
        let previous_era =
            (tip.height > 0).then(|| (era_tag(chain, tip.height, tip.parent), Arc::clone(&tip.committee)));
        Self {
            chain,
            height: tip.height + 1,
            era_tag: era_tag(chain, tip.height + 1, tip.block),
            committee: Arc::clone(&tip.next_committee),
            previous: tip.block,
            header: Arc::clone(&tip.header),
            previous_era,
            planted: Planted::default(),
        }
    }
}

impl EraContext {
    /// Whether a certificate claims that another block than the one decided here was decided at the
    /// height before.
    #[must_use]
    pub fn is_fork(&self, height: u64, qc: &Qc) -> bool {
        self.previous_era.is_some() && height.checked_add(1) == Some(self.height) && qc.block != self.previous
    }
}

/// Why a message is refused before it reaches the machine. Only a faulty or hostile sender makes one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0} from voter {1}, who is not in the committee")]
    UnknownVoter(&'static str, VoterIndex),
    #[error("{0} with an invalid signature")]
    BadSignature(&'static str),
    #[error("{0}: {1}")]
    BadCertificate(&'static str, CertificateError),
    #[error("{0}: {1}")]
    Malformed(&'static str, &'static str),
    /// Which of the two is right depends on the block before: who sent it may be honest and see another chain.
    #[error("{0}: not the next block")]
    NotNext(&'static str),
}

/// Most votes of one phase in a batch; above it the batch is malformed.
pub const BATCH_VOTES_MAX: usize = 16_384;

/// Checks messages, all signatures in one batch. The answers are in the order of the messages.
#[must_use]
pub fn verify_messages(
    messages: Vec<Message>,
    context: &EraContext,
    checker: Checker<'_>,
) -> Vec<Result<Verified<Message>, Fault>> {
    let mut all = Vec::new();
    let spans: Vec<_> = messages
        .iter()
        .map(|message| {
            let start = all.len();
            signatures(message, context).map(|checks| {
                all.extend(checks);
                start..all.len()
            })
        })
        .collect();
    let valid = checker(&all);
    messages
        .into_iter()
        .zip(spans)
        .map(|(value, span)| {
            let good = |span: std::ops::Range<usize>| valid.get(span).is_some_and(|v| v.iter().all(|ok| *ok));
            if good(span?) {
                Ok(Verified { value, era: context.era_tag })
            } else {
                Err(Fault::BadSignature(value.name()))
            }
        })
        .collect()
}

/// [`verify_messages`] with real signatures.
#[must_use]
pub fn verify_real(messages: Vec<Message>, context: &EraContext) -> Vec<Result<Verified<Message>, Fault>> {
    verify_messages(messages, context, &verify_batch)
}

/// Checks the input signatures of transactions, all in one batch; the answer for each names the first
/// bad input.
#[must_use]
pub fn verify_transactions(
    transactions: Vec<SharedTransaction>,
    context: &EraContext,
    checker: Checker<'_>,
) -> Vec<Result<Verified<SharedTransaction>, (SharedTransaction, u32)>> {
    let mut all = Vec::new();
    let spans: Vec<_> = transactions
        .iter()
        .map(|transaction| {
            let start = all.len();
            all.extend(transaction.body().signature_checks(context.chain));
            start..all.len()
        })
        .collect();
    let valid = checker(&all);
    transactions
        .into_iter()
        .zip(spans)
        .map(|(value, span)| {
            match valid.get(span).into_iter().flatten().zip(0u32..).find(|(good, _)| !**good) {
                None => Ok(Verified { value, era: context.era_tag }),
                Some((_, input)) => Err((value, input)),
            }
        })
        .collect()
}

impl EraContext {
    /// The context of the height after, when `header` is the block decided at this one and the committee
    /// stays; `root` is that of this committee. A header names the committee after it by its root, so nothing
    /// but the header has to be believed.
    #[must_use]
    pub fn successor(&self, header: Arc<Header>, root: Hash) -> Option<Self> {
        if header.next_committee_root != root || header.height != self.height {
            return None;
        }
        let tip = Tip {
            height: header.height,
            block: header.id(),
            parent: self.previous,
            time_ms: header.time_ms,
            commit: None,
            committee: Arc::clone(&self.committee),
            next_committee: Arc::clone(&self.committee),
            header,
        };
        Some(Self { planted: self.planted, ..Self::after(self.chain, &tip) })
    }
}

/// Checks the outline of a decided block that was pulled: that it is the next one, that ids and header
/// belong together, its certificate and the last commit in it.
///
/// # Errors
/// [`Fault`] of the peer that served it.
pub fn verify_outline(
    outline: &Outline,
    qc: &Qc,
    context: &EraContext,
    checker: Checker<'_>,
) -> Result<(), Fault> {
    let checks = decided_signatures(outline, qc, context)?;
    if checker(&checks).iter().all(|good| *good) { Ok(()) } else { Err(Fault::BadSignature("block")) }
}

fn decided_signatures(
    outline: &Outline,
    qc: &Qc,
    context: &EraContext,
) -> Result<Vec<SignatureCheck>, Fault> {
    const NAME: &str = "block";
    let header = &outline.header;
    if header.height != context.height || header.previous != context.previous {
        return Err(Fault::NotNext(NAME));
    }
    if qc.step != Step::Precommit || qc.block != header.id() {
        return Err(Fault::Malformed(NAME, "the certificate is for something else"));
    }
    let mut checks = outline_signatures(NAME, outline, context)?;
    checks.extend(
        qc.checks(context.era_tag, &context.committee).map_err(|error| Fault::BadCertificate(NAME, error))?,
    );
    Ok(checks)
}

/// Checks a decided block that was pulled: that it is the next one, its certificate, that bodies,
/// ids and header belong together, and all signatures.
///
/// # Errors
/// [`Fault`] of the peer that served it.
pub fn verify_decided(
    block: Block,
    qc: Qc,
    context: &EraContext,
    checker: Checker<'_>,
) -> Result<Verified<(Block, Qc)>, Fault> {
    let mut checks = decided_signatures(&block.outline(), &qc, context)?;
    for transaction in &block.transactions {
        checks.extend(transaction.body().signature_checks(context.chain));
    }
    if checker(&checks).iter().all(|good| *good) {
        Ok(Verified { value: (block, qc), era: context.era_tag })
    } else {
        Err(Fault::BadSignature("block"))
    }
}

fn signatures(message: &Message, context: &EraContext) -> Result<Vec<SignatureCheck>, Fault> {
    let name = message.name();
    let current = |tag: EraTag| tag == context.era_tag;
    match message {
        Message::Transaction(transaction) => Ok(transaction.signature_checks(context.chain)),
        Message::Transactions(transactions) => {
            Ok(transactions.iter().flat_map(|tx: &Transaction| tx.signature_checks(context.chain)).collect())
        }
        Message::VoteBatch(batch) if current(batch.era_tag) => batch_signature(name, batch, context),
        Message::Stream(batches) => {
            let mut checks = Vec::new();
            for batch in batches.iter().filter(|batch| current(batch.era_tag)) {
                checks.extend(batch_signature(name, batch, context)?);
            }
            Ok(checks)
        }
        Message::Proposal(proposal) if current(proposal.era_tag) => {
            proposal_signatures(name, proposal, context)
        }
        Message::Vote(vote) => {
            // A precommit for the block before may still arrive for the next block's last commit.
            let committee = if current(vote.era_tag) {
                &context.committee
            } else {
                match &context.previous_era {
                    Some((tag, committee)) if *tag == vote.era_tag => committee,
                    _ => return Ok(Vec::new()),
                }
            };
            let member = committee.member(vote.voter).ok_or(Fault::UnknownVoter(name, vote.voter))?;
            Ok(vec![SignatureCheck {
                key: member.vote_key,
                digest: vote.digest(),
                signature: vote.signature,
            }])
        }
        Message::Pol { era_tag, qc } if current(*era_tag) => pol_signatures(name, qc, context),
        Message::Commit { height, qc } if *height == context.height => {
            commit_signatures(name, qc, context.era_tag, &context.committee)
        }
        Message::Commit { height, qc } if context.is_fork(*height, qc) => match &context.previous_era {
            Some((tag, committee)) => commit_signatures(name, qc, *tag, committee),
            None => Ok(Vec::new()),
        },
        Message::Certificate { era_tag, certificate } if current(*era_tag) => certificate
            .checks(context.era_tag, &context.committee)
            .map_err(|error| Fault::BadCertificate(name, error)),
        Message::Candidate { era_tag, outline } if current(*era_tag) => {
            outline_signatures(name, outline, context)
        }
        // Nothing signed, or of another era.
        _ => Ok(Vec::new()),
    }
}

fn batch_signature(
    name: &'static str,
    batch: &VoteBatch,
    context: &EraContext,
) -> Result<Vec<SignatureCheck>, Fault> {
    if batch.prepares.len() > BATCH_VOTES_MAX || batch.commits.len() > BATCH_VOTES_MAX {
        return Err(Fault::Malformed(name, "more votes than a batch may hold"));
    }
    let member = context.committee.member(batch.voter).ok_or(Fault::UnknownVoter(name, batch.voter))?;
    Ok(vec![SignatureCheck { key: member.vote_key, digest: batch.digest(), signature: batch.signature }])
}

fn proposal_signatures(
    name: &'static str,
    proposal: &Proposal,
    context: &EraContext,
) -> Result<Vec<SignatureCheck>, Fault> {
    let proposer = context.committee.proposer(context.height, proposal.round);
    let Some(member) = proposer.and_then(|index| context.committee.member(index)) else {
        return Err(Fault::Malformed(name, "the committee is empty"));
    };
    // The certificate is not under the proposer's signature: a proposal from which it was stripped on
    // the way must not take the place of the real one.
    let pol_fits = match (&proposal.pol, proposal.valid_round) {
        (None, -1) => true,
        (Some(pol), round) => {
            i64::from(pol.round) == i64::from(round) && pol.block == proposal.outline.header.id()
        }
        _ => false,
    };
    if !pol_fits {
        return Err(Fault::Malformed(name, "valid round and prevote quorum do not belong together"));
    }
    let mut checks = outline_signatures(name, &proposal.outline, context)?;
    checks.push(SignatureCheck {
        key: member.vote_key,
        digest: proposal.digest(),
        signature: proposal.signature,
    });
    if let Some(pol) = &proposal.pol {
        checks.extend(pol_signatures(name, pol, context)?);
    }
    Ok(checks)
}

fn commit_signatures(
    name: &'static str,
    qc: &Qc,
    era_tag: EraTag,
    committee: &Committee,
) -> Result<Vec<SignatureCheck>, Fault> {
    if qc.step != Step::Precommit {
        return Err(Fault::Malformed(name, "not a certificate of precommits"));
    }
    qc.checks(era_tag, committee).map_err(|error| Fault::BadCertificate(name, error))
}

fn pol_signatures(name: &'static str, qc: &Qc, context: &EraContext) -> Result<Vec<SignatureCheck>, Fault> {
    if qc.step != Step::Prevote {
        return Err(Fault::Malformed(name, "not a certificate of prevotes"));
    }
    match qc.checks(context.era_tag, &context.committee) {
        Err(CertificateError::TooLight { .. }) if context.planted.has(Bug::UncheckedPol) => Ok(Vec::new()),
        checks => checks.map_err(|error| Fault::BadCertificate(name, error)),
    }
}

/// The outline must match its own header, and its last commit be a quorum of the era before.
fn outline_signatures(
    name: &'static str,
    outline: &Outline,
    context: &EraContext,
) -> Result<Vec<SignatureCheck>, Fault> {
    let header = &outline.header;
    if !outline.txids.is_sorted_by(|left, right| left < right) {
        return Err(Fault::Malformed(name, "transaction ids are not strictly ascending"));
    }
    if header.tx_root != tx_root(&outline.txids) || u32::try_from(outline.txids.len()) != Ok(header.tx_count)
    {
        return Err(Fault::Malformed(name, "transaction ids do not match the header"));
    }
    if header.last_commit_root != last_commit_root(outline.last_commit.as_ref()) {
        return Err(Fault::Malformed(name, "last commit does not match the header"));
    }
    match (&outline.last_commit, &context.previous_era) {
        (None, None) => Ok(Vec::new()),
        (Some(qc), Some((tag, committee))) => {
            if qc.step != Step::Precommit || qc.block != context.previous {
                return Err(Fault::Malformed(name, "last commit is for another block"));
            }
            qc.checks(*tag, committee).map_err(|error| Fault::BadCertificate(name, error))
        }
        _ => Err(Fault::Malformed(name, "last commit missing or out of place")),
    }
}
