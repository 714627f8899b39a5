//! Pulls under way: what is missing, whom it was asked of, when to ask the next one.

use super::Machine;
use crate::consensus::host::Host;
use crate::consensus::output::{Output, Target};
use crate::primitives::committee::VoterIndex;
use crate::primitives::hash::{BlockId, Txid};
use crate::primitives::message::{Message, PeerId};
use std::collections::BTreeMap;

/// Something worth asking for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// The body of a transaction.
    Body(Txid),
    /// A voter's stream from the first gap on.
    Stream(VoterIndex),
    /// The prepare certificate of a transaction.
    Certificate(Txid),
    /// The outline of an undecided block.
    Candidate(BlockId),
}

#[derive(Clone, Copy, Debug)]
struct Pull {
    due_us: u64,
    /// Whom to ask first, then whom it was asked of.
    peer: Option<PeerId>,
    asked: bool,
    tries_left: u8,
}

/// Tries before a pull is given up; whatever still needs it asks anew.
const TRIES: u8 = 8;

/// Most bodies pulled at a time, beyond which new wants are dropped and asked for again by what needs
/// them; one full block of the smallest transactions fits.
const BODIES_MAX: usize = 131_072;

/// Of those, most that are wanted only because somebody voted for them: votes of a hostile voter must
/// not crowd out what the checkpoint needs.
const VOTED_BODIES_MAX: usize = 32_768;

/// Most ids in one request.
pub(super) const IDS_MAX: usize = 4096;

/// Pulls under way.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    pulls: BTreeMap<Want, Pull>,
    /// How many of the pulls are of bodies wanted for votes only, at most.
    for_votes: usize,
    /// The peer asked last where none is preferred: the next one is asked after it.
    cursor: Option<PeerId>,
    /// No pull is due before this; kept as a lower bound so that nothing has to be searched per input.
    earliest_us: Option<u64>,
}

impl Pulls {
    /// Asks for something at `due_us`, first from `peer`. A want under way is left as it is.
    pub(super) fn want(&mut self, want: Want, peer: Option<PeerId>, due_us: u64) {
        let full = matches!(want, Want::Body(_)) && self.pulls.len() >= BODIES_MAX;
        if full || self.pulls.contains_key(&want) {
            return;
        }
        self.pulls.insert(want, Pull { due_us, peer, asked: false, tries_left: TRIES });
        self.earliest_us = Some(self.earliest_us.map_or(due_us, |earliest| earliest.min(due_us)));
    }

    /// Asks for a body that is wanted only because `peer`'s voter voted for it.
    pub(super) fn want_for_vote(&mut self, txid: Txid, peer: Option<PeerId>, due_us: u64) {
        if self.for_votes < VOTED_BODIES_MAX {
            self.for_votes += 1;
            self.want(Want::Body(txid), peer, due_us);
        }
    }

    /// It arrived, or is not needed any more.
    pub(super) fn done(&mut self, want: Want) {
        if self.pulls.remove(&want).is_some() && matches!(want, Want::Body(_)) {
            self.for_votes = self.for_votes.saturating_sub(1);
        }
    }

    /// Whether it was asked for and has not arrived.
    pub(super) fn is_wanted(&self, want: Want) -> bool {
        self.pulls.contains_key(&want)
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.pulls.len()
    }

    /// Whom it was asked of last.
    pub(super) fn asked_of(&self, want: Want) -> Option<PeerId> {
        self.pulls.get(&want).filter(|pull| pull.asked)?.peer
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self) {
        self.pulls.clear();
        self.for_votes = 0;
        self.earliest_us = None;
    }

    /// A time before which no request is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.earliest_us
    }

    fn refresh_earliest(&mut self) {
        // An upper bound: a body may since be wanted for the checkpoint too.
        self.for_votes = self.for_votes.min(self.pulls.len());
        self.earliest_us = self.pulls.values().map(|pull| pull.due_us).min();
    }
}

impl Machine {
    /// Sends every request that is due, bodies of one peer together.
    pub(super) fn send_due_pulls(&mut self, host: &dyn Host) {
        let now_us = self.now.monotonic_us;
        if self.pulls.next_due().is_none_or(|due| due > now_us) {
            return;
        }
        let due: Vec<Want> = self
            .pulls
            .pulls
            .iter()
            .filter(|(_, pull)| pull.due_us <= now_us)
            .map(|(want, _)| *want)
            .collect();
        let mut bodies: BTreeMap<PeerId, Vec<Txid>> = BTreeMap::new();
        for want in due {
            if self.is_satisfied(host, want) {
                self.pulls.done(want);
                continue;
            }
            let Some(peer) = self.next_to_ask(want, now_us) else { continue };
            match want {
                Want::Body(txid) => bodies.entry(peer).or_default().push(txid),
                _ => self.request(peer, want),
            }
        }
        self.pulls.refresh_earliest();
        for (peer, txids) in bodies {
            for chunk in txids.chunks(IDS_MAX) {
                self.send(Target::Peer(peer), Message::GetTransactions(chunk.to_vec()));
            }
        }
    }

    /// Picks the peer to ask, counts the try and sets when to ask the next one.
    fn next_to_ask(&mut self, want: Want, now_us: u64) -> Option<PeerId> {
        let pull = self.pulls.pulls.get_mut(&want)?;
        if pull.tries_left == 0 {
            self.pulls.done(want);
            return None;
        }
        let first = pull.peer.filter(|peer| !pull.asked && self.peers.contains(peer));
        let chosen =
            first.or_else(|| self.peers.after(pull.peer.filter(|_| pull.asked).or(self.pulls.cursor)));
        pull.due_us = now_us + self.timing.pull_us;
        pull.asked = true;
        pull.peer = chosen;
        pull.tries_left -= 1;
        self.pulls.cursor = chosen;
        chosen
    }

    fn request(&mut self, peer: PeerId, want: Want) {
        let era_tag = self.context.era_tag;
        let message = match want {
            Want::Stream(voter) => {
                let from =
                    self.era.streams.get(usize::from(voter)).map_or(0, super::super::stream::Stream::head);
                Message::GetStream { era_tag, voter, from }
            }
            Want::Certificate(txid) => Message::GetCertificate { era_tag, txid },
            Want::Candidate(block) => Message::GetCandidate { era_tag, block },
            Want::Body(txid) => Message::GetTransactions(vec![txid]),
        };
        self.send(Target::Peer(peer), message);
    }

    fn is_satisfied(&self, host: &dyn Host, want: Want) -> bool {
        match want {
            Want::Body(txid) => self.find_body(host, &txid).is_some(),
            Want::Certificate(txid) => self.era.ballots.get(&txid).is_some_and(|ballot| ballot.certified),
            Want::Candidate(block) => self.checkpoint.candidates.contains_key(&block),
            Want::Stream(_) => false,
        }
    }

    /// Asks the driver for the next decided block from `peer`, or from whoever is ahead.
    pub(super) fn pull_block(&mut self, peer: Option<PeerId>) {
        let height = self.context.height;
        if let Some(peer) = peer.or_else(|| self.peers.ahead_of(height))
            && self.may_pull(peer)
        {
            self.outputs.push(Output::PullBlock { peer, height });
        }
    }
}
