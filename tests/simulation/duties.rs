//! What a machine owes between its messages (protocol §12): its state is what its log says, its memory
//! stays within the bounds of §8, and its ledger is the ledger of all.

use crate::actor::Actor;
use crate::disk::Disk;
use crate::oracle::{Broken, Oracle, broken};
use masternode::consensus::machine::Machine;
use masternode::consensus::machine::audit::DurableState;
use masternode::consensus::output::Record;
use masternode::consensus::signer::Signer;
use masternode::consensus::verify::EraContext;
use masternode::primitives::params::Params;
use masternode::primitives::vote::Step;
use std::collections::{BTreeMap, BTreeSet};

/// Rounds kept below the current one, and next to it.
const ROUNDS_MAX: usize = 64 + 2;

/// Second versions of batches kept of one voter.
const VARIANTS_MAX: usize = 32;

/// Bytes of messages for the next era kept of one peer.
const FUTURE_BYTES_MAX: usize = 1 << 20;

/// The state a log implies, worked out from the messages in it alone.
pub fn implied(disk: &Disk, context: &EraContext, oracle: &Oracle) -> DurableState {
    let mut state = DurableState {
        height: context.height,
        frozen: false,
        next_sequence: 0,
        locks: BTreeMap::new(),
        commit_voted: BTreeSet::new(),
        locked: None,
    };
    let records = disk.log.iter().rev().take_while(|(height, _)| *height >= context.height);
    let of_height: Vec<&Record> =
        records.filter(|(height, _)| *height == context.height).map(|(_, record)| record).collect();
    for record in of_height.into_iter().rev() {
        match record {
            Record::OwnBatch(batch) => {
                state.next_sequence = batch.sequence + 1;
                state.frozen |= batch.last;
                for txid in &batch.prepares {
                    let spends = oracle.bodies.get(txid).into_iter().flat_map(|body| body.spends());
                    state.locks.extend(spends.map(|outpoint| (outpoint, *txid)));
                }
                state.commit_voted.extend(&batch.commits);
            }
            Record::Proposal(_) => state.frozen = true,
            Record::Vote(vote) => {
                state.frozen = true;
                if let (Step::Precommit, Some(block)) = (vote.step, vote.block) {
                    state.locked = Some((block, vote.round));
                }
            }
            _ => {}
        }
    }
    state
}

/// After a restart the machine is exactly what its log implies.
pub fn check_restored(actor: &Actor, machine: &Machine, oracle: &Oracle) -> Result<(), Broken> {
    let (found, due) = (machine.durable_state(), implied(&actor.disk, &machine.era(), oracle));
    if found == due {
        return Ok(());
    }
    broken("restart", format!("node {} is {found:?} after a restart, its log says {due:?}", actor.address))
}

/// While it runs the machine is what its log implies, but for what waits to be sent.
pub fn check_running(actor: &Actor, oracle: &Oracle) -> Result<(), Broken> {
    let Some(machine) = &actor.machine else { return Ok(()) };
    if machine.era().committee.index_of(&actor.key.public()).is_none() {
        // Without a seat it goes through the rounds to show them, and nothing of it is kept.
        return Ok(());
    }
    let (found, due) = (machine.durable_state(), implied(&actor.disk, &machine.era(), oracle));
    let locks = due.locks.iter().all(|(outpoint, txid)| found.locks.get(outpoint) == Some(txid));
    let commits = due.commit_voted.is_subset(&found.commit_voted);
    // Without the fast path the freeze leaves no batch behind.
    let frozen = found.frozen == due.frozen || !oracle.fast_path();
    if locks && commits && frozen && found.locked == due.locked && found.next_sequence == due.next_sequence {
        return Ok(());
    }
    broken("log", format!("node {} is {found:?}, its log says {due:?}", actor.address))
}

/// The bounds of protocol §8.
pub fn check_memory(actor: &Actor, params: &Params) -> Result<(), Broken> {
    let Some(machine) = &actor.machine else { return Ok(()) };
    let (held, voters, peers) = (machine.memory(), machine.era().committee.len(), actor.connected.len());
    let votes_max = usize::try_from(params.era_bytes / 200).expect("small");
    // A voter's own budget of prepares and twice that of commits, and once more in second versions.
    let ballots_max = voters * votes_max * 3 * 2;
    let bounds = [
        ("rounds", held.rounds, ROUNDS_MAX + voters),
        ("candidates", held.candidates, 3 * (ROUNDS_MAX + voters)),
        ("second versions", held.variants, VARIANTS_MAX),
        ("bytes for the next era", held.future_bytes, peers * FUTURE_BYTES_MAX),
        ("ballots", held.ballots, ballots_max),
        ("bodies", held.bodies, ballots_max),
        ("pulls", held.pulls, 3 * ballots_max + voters),
    ];
    match bounds.into_iter().find(|(_, held, most)| held > most) {
        None => Ok(()),
        Some((what, held, most)) => broken(
            "memory",
            format!("node {} holds {held} {what}, at most {most} are allowed", actor.address),
        ),
    }
}
