//! Whether this node signs (protocol §10, safe start): it listens before it signs, it resumes by way of
//! the chain when its log is lost, and it stands back for whoever the chain has let in.
//!
//! Invariants: only [`Post::Signing`] signs, and it is entered by `begin_signing` alone, after
//! [`Output::Sign`]; an era in which a message of the own key was seen that the log lacks is never
//! signed in again; nothing is signed in the era after a `Resume` of somebody else.

use super::Machine;
use crate::consensus::host::Host;
use crate::consensus::output::{Notice, Output};
use crate::consensus::planted::Bug;
use crate::consensus::rounds::{ROUNDS_KEPT, Round};
use crate::consensus::standing::{NOT_REGISTERED, Nonce, Stage, Standing, Start};
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::committee::VoterIndex;
use crate::primitives::hash::{BlockId, Domain, hash};
use crate::primitives::keys::{PublicKey, Signature};
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::message::{PeerId, Status};
use crate::primitives::special::{Resume, Special};
use crate::primitives::transaction::{SealedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind};
use crate::primitives::vote::Step;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks until a `Resume` that nobody included expires and is made anew.
const RESUME_EXPIRY_BLOCKS: u64 = 20;
/// Quiet eras before a key is taken over while a connected peer has proven to hold it: a validator that runs, but is
/// slow for a moment, may be counted in no certificate of an era.
const QUIET_ERAS_WITH_TWIN: u32 = 3;

/// Why a new data directory does not sign at once on a chain that has begun.
const NEVER_SIGNED: &str = "nothing was ever signed from this data directory, but the chain has begun";

/// Whether a certificate counts a vote of `voter`.
fn counts(qc: &Qc, voter: VoterIndex) -> bool {
    qc.votes().unwrap_or_default().iter().any(|(counted, _)| *counted == voter)
}

/// Where the node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Post {
    Listening,
    Signing,
    Resuming { reason: String },
    Displaced { height: u64, block: BlockId },
}

/// The vote key's standing and what it rests on.
#[derive(Debug)]
pub(super) struct KeyWatch {
    pub(super) post: Post,
    /// The log is whole since one of these.
    since: Vec<Option<Nonce>>,
    /// Carried by the `Resume` this node makes.
    nonce: Nonce,
    /// Nothing was ever signed from here, and the chain has not begun.
    is_new_network: bool,
    /// The newest `Resume` of the key that was seen in a block.
    resumed: Option<(u64, Nonce)>,
    /// Voters whose status of this era shows nothing of the own key that the log lacks.
    pub(super) heard: BTreeSet<VoterIndex>,
    /// Statuses of the next era; one a peer.
    ahead: BTreeMap<PeerId, Status>,
    /// The era was entered when nobody was known to be ahead.
    is_live: bool,
    /// Whole live eras in a row without a message of the own key from elsewhere.
    quiet_eras: u32,
    /// The last message of the own key that the log lacks, and the era it was seen in.
    sighted: Option<(u64, String)>,
    stage: Stage,
    /// The `Resume` under way.
    resume: Option<Transaction>,
    /// Own precommits for the block decided last; `None` when its log is gone.
    precommits: Option<OwnPrecommits>,
    /// Why the node wants nothing signed just now.
    held: Option<String>,
}

/// In which rounds the log of the era before holds an own precommit for its block.
#[derive(Debug)]
struct OwnPrecommits {
    voter: Option<VoterIndex>,
    rounds: BTreeSet<u32>,
    /// Rounds below it are not known any more.
    known_from: u32,
}

impl KeyWatch {
    /// The standing a start begins with; the registry has its say at the first input.
    pub(super) fn new(start: Start) -> Self {
        let (post, since, nonce, is_new_network) = match start {
            Start::Whole { since, nonce } => (Post::Listening, since, nonce, false),
            Start::Fresh { tried, nonce } => {
                let since = std::iter::once(None).chain(tried.into_iter().map(Some)).collect();
                (Post::Listening, since, nonce, true)
            }
            Start::Lost { reason, tried, nonce } => {
                (Post::Resuming { reason }, tried.into_iter().map(Some).collect(), nonce, false)
            }
        };
        Self {
            post,
            since,
            nonce,
            is_new_network,
            resumed: None,
            heard: BTreeSet::new(),
            ahead: BTreeMap::new(),
            is_live: false,
            quiet_eras: 0,
            sighted: None,
            stage: Stage::Watching { height: 0 },
            resume: None,
            precommits: None,
            held: None,
        }
    }

    /// Forgets a peer.
    pub(super) fn down(&mut self, peer: &PeerId) {
        self.ahead.remove(peer);
    }
}

impl Machine {
    /// Where the node stands, for people.
    pub(super) fn standing(&self) -> Standing {
        if self.signer.is_none() {
            return Standing::Observing;
        }
        match (&self.key_watch.post, &self.key_watch.held) {
            (Post::Signing, _) => Standing::Signing,
            (Post::Listening, Some(reason)) => Standing::Held { reason: reason.clone() },
            (Post::Listening, None) => Standing::Listening {
                heard_weight: self.heard_weight(),
                quorum_weight: self.context.committee.quorum(),
            },
            (Post::Resuming { reason }, _) => {
                Standing::Resuming { reason: reason.clone(), stage: self.key_watch.stage.clone() }
            }
            (Post::Displaced { height, block }, _) => Standing::Displaced { height: *height, block: *block },
        }
    }

    /// Stops signing, or lets it begin again. Locks and votes of the era stay what they are, as after a
    /// restart.
    pub(super) fn hold(&mut self, host: &mut dyn Host, reason: Option<String>) {
        if self.signer.is_none() || self.key_watch.held == reason {
            return;
        }
        self.key_watch.held = reason;
        if self.key_watch.held.is_some() && self.key_watch.post == Post::Signing {
            self.key_watch.post = Post::Listening;
            self.key_watch.heard.clear();
        }
        if self.key_watch.post == Post::Listening {
            self.notice_standing();
        }
        self.begin_if_heard(host);
    }

    /// Whether the node runs through the rounds: as a voter, or, without a vote, to show them. A member
    /// that must not sign leaves them alone, so that it can take its part from where its log ends.
    pub(super) fn takes_part(&self) -> bool {
        self.me.is_none() || self.signs().is_some()
    }

    /// The first input: what the registry says of the key at the end of the chain.
    pub(super) fn take_post(&mut self, host: &mut dyn Host) {
        let Some(key) = self.signer.as_ref().map(|signer| signer.public()) else { return };
        self.key_watch.resumed = host.masternode_of(&key).and_then(|entry| entry.resumed);
        self.key_watch.stage = Stage::Watching { height: self.context.height };
        let height = host.tip().height;
        let resumed_before = self.key_watch.resumed.is_some() && self.is_whole();
        if self.has_bug(Bug::LostLogSigns) && matches!(self.key_watch.post, Post::Resuming { .. }) {
            self.key_watch.post = Post::Listening;
        } else if self.key_watch.is_new_network
            && height > 0
            && !resumed_before
            && !self.has_bug(Bug::NewDirectorySigns)
        {
            self.resume_because(NEVER_SIGNED);
        } else if self.key_watch.post == Post::Listening && !self.is_whole() {
            let since = self.key_watch.resumed.map_or(0, |(since, _)| since);
            self.resume_because(&format!(
                "block {since} holds a resume that was not made from this data directory"
            ));
        } else if resumed_before {
            // Possibly a `Resume` of an earlier life, which took effect when this node was down.
            self.key_watch.post = Post::Listening;
            self.key_watch.is_new_network = false;
        }
        self.notice_standing();
        self.begin_if_heard(host);
    }

    /// Whether the log is whole since the newest `Resume` of the key.
    fn is_whole(&self) -> bool {
        self.key_watch.since.contains(&self.key_watch.resumed.map(|(_, nonce)| nonce))
    }

    fn resume_because(&mut self, reason: &str) {
        self.key_watch.post = Post::Resuming { reason: reason.to_owned() };
        self.key_watch.is_new_network = false;
        self.key_watch.since.retain(Option::is_some);
        (self.key_watch.quiet_eras, self.key_watch.resume) = (0, None);
        self.key_watch.stage = Stage::Watching { height: self.context.height };
    }

    fn notice_standing(&mut self) {
        let standing = self.standing();
        self.notice(Notice::Standing(standing));
    }

    // Listening --------------------------------------------------------------------------------------

    /// A status of a peer: at this height it may be heard, of the next one it is kept until then.
    pub(super) fn hear_status(&mut self, host: &mut dyn Host, from: PeerId, status: &Status) {
        if self.signer.is_none() || self.key_watch.post == Post::Signing {
            return;
        }
        if status.height > self.context.height && self.peers.contains(&from) {
            self.key_watch.ahead.insert(from, status.clone());
        }
        self.take_in(from, status);
        self.begin_if_heard(host);
    }

    /// Counts a status of this era unless it shows something of the own key that the log lacks. Such a
    /// claim is not believed either: the message itself is asked for, and its signature tells.
    fn take_in(&mut self, from: PeerId, status: &Status) {
        let same_era = status.height == self.context.height && status.previous == self.context.previous;
        let Some(voter) = self.peers.voter_of(&from).filter(|voter| Some(*voter) != self.me) else { return };
        if same_era && !self.is_beyond_log(status) {
            self.key_watch.heard.insert(voter);
        }
    }

    fn is_beyond_log(&self, status: &Status) -> bool {
        let Some(me) = self.me else { return false };
        let place = usize::from(me);
        let logged = self.era.streams.get(place).map_or(0, crate::consensus::stream::Stream::head);
        let shown = status.stream_heads.get(place).copied().unwrap_or(0);
        let voted = |bitmap: &[u8]| bitmap.get(place / 8).is_some_and(|byte| byte & (1 << (place % 8)) != 0);
        let unknown = |step| self.own_vote(status.round, step).is_none();
        shown > logged
            || (voted(&status.prevotes) && unknown(Step::Prevote))
            || (voted(&status.precommits) && unknown(Step::Precommit))
    }

    /// Weight heard in this era, own included.
    fn heard_weight(&self) -> u64 {
        let committee = &self.context.committee;
        self.key_watch.heard.iter().copied().chain(self.me).map(|voter| committee.weight(voter)).sum()
    }

    /// Begins to sign when a quorum was heard.
    pub(super) fn begin_if_heard(&mut self, host: &mut dyn Host) {
        let held = self.halted.is_some() || self.key_watch.held.is_some();
        let listens = self.key_watch.post == Post::Listening && !held && self.me.is_some();
        // A process with the same key and a log like this one's may be silent just now.
        let twin = self.has_twin();
        if listens
            && (self.heard_weight() >= self.context.committee.quorum()
                || self.has_bug(Bug::SignsBeforeListening))
            && (!twin || self.key_watch.quiet_eras >= 1)
        {
            self.begin_signing(host);
        }
    }

    fn begin_signing(&mut self, host: &mut dyn Host) {
        self.key_watch.post = Post::Signing;
        self.key_watch.is_new_network = false;
        let since = self.key_watch.resumed.map(|(_, nonce)| nonce);
        self.key_watch.since = vec![since];
        self.key_watch.ahead.clear();
        self.outputs.push(Output::Sign { since, next: self.key_watch.nonce });
        self.notice_standing();
        self.send_own_again();
        if self.era.frozen {
            self.resume_round();
        } else {
            // The era may have ended while this node listened.
            self.timers.era_end.get_or_insert(self.now.monotonic_us);
            self.resume_era(host);
            // Shown to the others at once, so that a second process with this key does not think it silent.
            if host.params().fast_path && self.era.next_sequence == 0 {
                self.flush(host, false);
            }
        }
    }

    // Sightings --------------------------------------------------------------------------------------

    /// A validly signed message of the own key that the log lacks: in this era nothing is signed any
    /// more, and nothing later unless the chain says so.
    pub(super) fn sight(&mut self, what: String) {
        let height = self.context.height;
        let first = self.key_watch.sighted.as_ref().is_none_or(|(seen, _)| *seen != height);
        self.key_watch.sighted = Some((height, what.clone()));
        if matches!(self.key_watch.post, Post::Signing | Post::Listening) {
            let old = format!(
                "{what} of era {height} carries this node's signature but is not in its vote log: the key is active \
                 elsewhere, or the data directory is an old copy"
            );
            let reason = if self.key_watch.is_new_network { NEVER_SIGNED.to_owned() } else { old };
            self.key_watch.since.clear();
            self.resume_because(&reason);
        }
        if matches!(self.key_watch.post, Post::Resuming { .. }) {
            self.key_watch.stage = Stage::Sighted { height, what: what.clone() };
            self.key_watch.resume = None;
        }
        if first {
            self.notice(Notice::KeyElsewhere { height, what });
            self.notice_standing();
        }
    }

    /// Whether a connected peer has proven to hold the own vote key.
    fn has_twin(&self) -> bool {
        self.signer.as_ref().is_some_and(|signer| self.peers.holds(&signer.public()))
    }

    /// Whether the key has been silent for long enough to be taken over.
    fn has_been_quiet(&self) -> bool {
        let needed = if self.has_twin() { QUIET_ERAS_WITH_TWIN } else { 1 };
        self.key_watch.quiet_eras >= needed
    }

    /// A connection whose other end has proven to hold the own vote key.
    pub(super) fn notice_twin(&mut self, peer: PeerId, vote_key: Option<PublicKey>) {
        if vote_key.is_some() && vote_key == self.signer.as_ref().map(|signer| signer.public()) {
            self.notice(Notice::SameKey { peer });
        }
    }

    /// A decided block and its certificate: do they count a precommit of the own key that the log lacks?
    pub(super) fn look_at_commits(&mut self, block: &Block, qc: &Qc) {
        if self.signer.is_none() {
            return;
        }
        let height = self.context.height;
        // Until the block that let this process in, whoever it took over from signed, and rightly so.
        let let_in = self.key_watch.resumed.filter(|_| self.is_whole()).map_or(0, |(height, _)| height);
        let late = match (&self.key_watch.precommits, &block.last_commit) {
            (Some(own), Some(last)) if height > let_in.saturating_add(1) => {
                let unknown = last.round >= own.known_from && !own.rounds.contains(&last.round);
                unknown && own.voter.is_some_and(|voter| counts(last, voter))
            }
            _ => false,
        };
        let me = self.me;
        let (rounds, quiet_from) =
            (&self.checkpoint.rounds, self.checkpoint.round.saturating_sub(ROUNDS_KEPT));
        let is_own = |round: &Round| {
            me.and_then(|me| round.precommits.votes().get(&me))
                .is_some_and(|(voted, _)| *voted == Some(qc.block))
        };
        let own: BTreeSet<u32> =
            rounds.iter().filter(|(_, round)| is_own(round)).map(|(number, _)| number).collect();
        let counted =
            me.is_some_and(|me| counts(qc, me)) && qc.round >= quiet_from && !own.contains(&qc.round);
        self.key_watch.precommits = Some(OwnPrecommits { voter: me, rounds: own, known_from: quiet_from });
        if self.replaying {
            return;
        }
        if counted {
            self.sight(format!("a precommit for block {height}"));
        } else if late {
            self.sight(format!("a precommit for block {}", height.saturating_sub(1)));
        }
    }

    // Eras -------------------------------------------------------------------------------------------

    /// A block was committed and the next era entered: what it changed, and whether it is time to
    /// resume.
    pub(super) fn review_standing(&mut self, host: &mut dyn Host) {
        let Some(key) = self.signer.as_ref().map(|signer| signer.public()) else { return };
        let ended = self.context.height.saturating_sub(1);
        let sighted = self.key_watch.sighted.as_ref().is_some_and(|(height, _)| *height == ended);
        let quiet = self.key_watch.is_live && !sighted;
        self.key_watch.quiet_eras = if quiet { self.key_watch.quiet_eras.saturating_add(1) } else { 0 };
        self.key_watch.is_live = self.peers.best_height() <= self.context.height;
        self.key_watch.heard.clear();
        let entry = host.masternode_of(&key);
        let resumed = entry.as_ref().and_then(|entry| entry.resumed);
        if resumed.is_some() && resumed != self.key_watch.resumed {
            self.key_watch.resumed = resumed;
            self.on_resumed(host);
        }
        let convicted =
            entry.as_ref().is_some_and(|entry| matches!(entry.status, MasternodeStatus::Tombstoned { .. }));
        let jailed = entry.as_ref().is_some_and(|entry| entry.status == MasternodeStatus::Jailed);
        let stands = matches!(self.key_watch.post, Post::Signing | Post::Listening);
        let is_new = self.key_watch.is_new_network && !self.has_bug(Bug::NewDirectorySigns);
        if is_new && self.key_watch.post == Post::Listening {
            self.resume_because(NEVER_SIGNED);
            self.notice_standing();
        } else if convicted && stands {
            self.resume_because(&format!("convicted with block {ended} of contradicting itself"));
            self.notice_standing();
        } else if jailed && stands && self.me.is_none() {
            self.resume_because(&format!("jailed with block {ended} for signing too few blocks"));
            self.notice_standing();
        }
        // Where too few are left, a jailed member stays in the committee: it votes on until it is back.
        if matches!(self.key_watch.post, Post::Resuming { .. }) || (jailed && self.me.is_some()) {
            self.seek_resume(host);
        }
        for (peer, status) in std::mem::take(&mut self.key_watch.ahead) {
            if status.height > self.context.height {
                self.key_watch.ahead.insert(peer, status);
            } else {
                self.take_in(peer, &status);
            }
        }
        self.begin_if_heard(host);
    }

    /// The registry shows another `Resume` of the key than before.
    fn on_resumed(&mut self, host: &dyn Host) {
        let Some((height, nonce)) = self.key_watch.resumed else { return };
        if self.has_bug(Bug::DisplacedGoesOn) && nonce != self.key_watch.nonce {
            return;
        }
        let is_own = nonce == self.key_watch.nonce || self.has_bug(Bug::ResumesWithoutItsNonce);
        if is_own || self.key_watch.since.contains(&Some(nonce)) {
            self.key_watch.post = Post::Listening;
            self.key_watch.since = vec![Some(nonce)];
            (self.key_watch.resume, self.key_watch.sighted) = (None, None);
            if is_own {
                // A number once used says nothing of who resumes next.
                let next = hash(Domain::RESUME, &[&nonce, &height.to_le_bytes()]);
                self.key_watch.nonce.copy_from_slice(&next.0);
            }
        } else {
            self.key_watch.since.clear();
            self.key_watch.resume = None;
            self.key_watch.post = Post::Displaced { height, block: host.tip().block };
        }
        self.notice_standing();
    }

    /// Makes the `Resume`, or makes it anew, when the rules allow.
    fn seek_resume(&mut self, host: &mut dyn Host) {
        let before = self.key_watch.stage.clone();
        let height = self.context.height;
        let stage = match self.resume_allowed(host) {
            Err(stage) => Some(stage),
            Ok(()) if !self.has_been_quiet() && self.key_watch.resume.is_none() => {
                match &self.key_watch.stage {
                    // Stays until a quiet era has passed.
                    Stage::Sighted { .. } => None,
                    _ => Some(Stage::Watching { height }),
                }
            }
            Ok(()) => {
                self.submit_resume(host);
                if self.has_bug(Bug::SignsBeforeItsResume) {
                    self.key_watch.post = Post::Listening;
                }
                match &self.key_watch.stage {
                    Stage::Submitted { .. } => None,
                    _ => Some(Stage::Submitted { height }),
                }
            }
        };
        if let Some(stage) = stage {
            self.key_watch.stage = stage;
        }
        if matches!(self.key_watch.post, Post::Resuming { .. })
            && std::mem::discriminant(&before) != std::mem::discriminant(&self.key_watch.stage)
        {
            self.notice_standing();
        }
    }

    /// Whether the registry and the chain's interval let this key resume in the next block.
    fn resume_allowed(&self, host: &dyn Host) -> Result<(), Stage> {
        let entry = self.signer.as_ref().and_then(|signer| host.masternode_of(&signer.public()));
        let Some(entry) = entry else { return Err(Stage::Barred { status: NOT_REGISTERED }) };
        if !entry.status.is_bonded() {
            return Err(Stage::Barred { status: entry.status.name() });
        }
        let interval = host.params().resume_interval_blocks;
        let first = entry.resumed.map_or(0, |(height, _)| height.saturating_add(interval));
        if first > self.context.height { Err(Stage::NotBefore { height: first }) } else { Ok(()) }
    }

    /// Puts the `Resume` into the pool and sends it, unless the one under way is still good.
    fn submit_resume(&mut self, host: &mut dyn Host) {
        let Some(signer) = &self.signer else { return };
        let Some(entry) = host.masternode_of(&signer.public()) else { return };
        let sequence = entry.sequence.saturating_add(1);
        let expiry_max = host.params().expiry_blocks_max.min(RESUME_EXPIRY_BLOCKS);
        let good = |transaction: &Transaction| {
            let same = matches!(Special::of(transaction), Ok(Some(Special::Resume(resume)))
                if resume.sequence == sequence && resume.nonce == self.key_watch.nonce);
            same && transaction.expiry >= self.context.height && host.body(&transaction.id()).is_some()
        };
        if self.key_watch.resume.as_ref().is_some_and(good) {
            return;
        }
        let resume = |signature| {
            Special::Resume(Resume {
                validator: entry.id,
                sequence,
                vote_key: signer.public(),
                nonce: self.key_watch.nonce,
                new_vote_key: None,
                signature,
            })
        };
        let blank = resume(Signature([0; 64]));
        let mut transaction = Transaction {
            version: TRANSACTION_VERSION,
            kind: TransactionKind::Resume,
            expiry: self.context.height.saturating_add(expiry_max.saturating_sub(1)),
            inputs: Vec::new(),
            outputs: Vec::new(),
            payload: blank.encode().1,
        };
        let digest = transaction.authorisation_digest(host.chain(), &blank);
        transaction.payload = resume(signer.sign(&digest)).encode().1;
        self.key_watch.resume = Some(transaction.clone());
        let sealed = SealedTransaction::new(transaction);
        self.on_transaction(host, None, &sealed);
    }
}
