//! What happened in runs, to see that they are not vacuous: a check that never meets its situation
//! proves nothing.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often each situation arose.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Coverage { $($(#[$doc])* pub $name: u64),* }

        impl Coverage {
            /// Adds the counts of another run.
            pub fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }

            /// All counters by name.
            pub fn all(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($name), self.$name)),*] }
        }
    };
}

counters! {
    /// Inputs the machines were stepped with.
    steps,
    /// Blocks decided, counted once a height.
    blocks,
    /// Blocks decided in a round above 0.
    blocks_in_late_rounds,
    /// Proposals by honest validators with the POL of an earlier round.
    reproposals,
    /// Payments with a commit quorum.
    payments_final_by_votes,
    /// Proofs of finality that a light client accepted, one a node and payment.
    finality_proofs,
    /// Payments a node called final before it had their body.
    finals_without_body,
    /// Payments in blocks.
    payments_in_blocks,
    /// Payments in blocks that were not final by votes before.
    payments_by_block_only,
    /// Payments made of outputs of payments of the same era that became final by votes.
    chained_final_by_votes,
    /// Pairs of conflicting payments of which one was settled by a block.
    conflicts_settled,
    /// Outputs for which two payments were prepared by someone in one era.
    conflicts_voted_on,
    /// Payments refused for what they are.
    refused_payments,
    crashes,
    restarts,
    /// Restarts that found fewer records than were written.
    torn_logs,
    /// Restarts in the middle of a height in which the validator had signed.
    restarts_in_mid_height,
    /// Restarts of frozen validators.
    restarts_frozen,
    partitions,
    /// Nodes cut off one by one and healed in another order.
    swizzles,
    /// Crashes before an effect chosen by its number.
    crashes_by_number,
    /// Crashes of nodes that had just been shown a withheld quorum.
    crashes_of_favourites,
    /// Nodes that started from genesis when the run was under way.
    late_joiners,
    clock_jumps,
    /// Eras in which the honest together commit-voted more than half of what one validator may prepare.
    unions_above_half_a_budget,
    /// Messages refused before they reached a machine: forged, malformed or too light.
    refused_messages,
    /// Answers to pulls that were not what was asked for.
    lying_answers,
    /// Decided blocks served with a certificate that does not carry them.
    forged_decisions,
    /// Proposals with precommits left out of the last commit.
    censored_commits,
    /// Certificates made of fewer votes than a quorum.
    light_certificates,
    /// Prepare votes shown to one node just before its freeze.
    withheld_quorums,
    /// Proposals of blocks with payments nobody else has.
    hidden_payments_proposed,
    /// Heights without faults whose round was compared with the one due.
    heights_paced,
    /// Restarts compared with what the log implies.
    restarts_compared,
    /// Two different messages of a Byzantine validator for one place.
    equivocations,
    /// Double signing noticed by honest validators.
    equivocations_noticed,
    /// Of those, by what was proved.
    evidence_of_batches,
    evidence_of_payments,
    evidence_of_votes,
    evidence_of_proposals,
    /// Validators convicted by evidence in a block.
    convictions,
    /// Blocks learned by pulling instead of by votes.
    pulled_blocks,
    /// Proposals honest validators did not prevote.
    refused_proposals,
    /// Messages handed back to be checked in the next era.
    replayed_messages,
    /// Twins let back by a block, seen by each node that committed it.
    resumes,
    /// Honest validators let back by a block, counted once.
    honest_resumes,
    registrations,
    updates,
    unbondings,
    /// Blocks after which others vote, or with other keys.
    committee_changes,
    /// Masternodes jailed, and the honest among them.
    jailed,
    honest_jailed,
    lost_logs,
    lost_directories,
    backups_restored,
    snapshots_restored,
    copied_directories,
    vote_keys_replaced,
    /// Validators kept down for long.
    absences,
    /// Processes that found another one let in with their key, or saw it sign.
    displaced,
    rivals_sighted,
    /// Displaced processes that were wanted and started anew.
    displaced_restarted,
    /// Runs with changes of the registry, jail or lost logs.
    runs_with_unrest,
    /// Runs of plain Tendermint.
    runs_without_fast_path,
    /// Runs with real signatures.
    runs_with_real_keys,
    /// Runs with unequal weights.
    runs_with_unequal_weights,
}
