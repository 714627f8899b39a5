//! The runs: scenarios that keep every rule with the size of their graphs, and one scenario for each rule
//! left out. `docs/protocol.md` lists them.

use crate::checker::Size;
use crate::properties::{L0, S1, S2, S3, S4};
use crate::scenario::{
    BASE, CHAIN, Committee, EQUAL, HALF_BYZANTINE, HARMONY, HEAVY, INDEPENDENT, OVERLAP, Rule, Scenario,
    WEIGHTED,
};

/// A scenario in which nothing may fall.
pub struct Run {
    pub name: &'static str,
    pub scenario: Scenario,
    pub size: Size,
}

/// A scenario in which `property` falls after `steps` and not before.
pub struct Mutation {
    pub name: &'static str,
    pub scenario: Scenario,
    pub property: &'static str,
    pub steps: usize,
}

const NEXT_ERA: Scenario = Scenario { next_era: true, ..BASE };
const ONE_ROUND: Scenario = Scenario { rounds: 1, ..BASE };
const SAFE_START: Scenario = Scenario { rounds: 1, second_process: true, ..NEXT_ERA };
/// Another committee in the next era: one key weighs double.
const GROWN: Committee = Committee { honest: [2, 1, 1], byzantine: 1 };

const fn run(name: &'static str, scenario: Scenario, size: [usize; 3]) -> Run {
    let [states, transitions, depth] = size;
    Run { name, scenario, size: Size { states, transitions, depth } }
}

/// Part of every test run.
pub const SHORT: &[Run] = &[
    run("one-round", ONE_ROUND, [2_946, 7_047, 12]),
    run("chain", Scenario { payments: CHAIN, ..ONE_ROUND }, [31_875, 80_530, 18]),
    run("overlap", Scenario { payments: OVERLAP, ..ONE_ROUND }, [63_414, 163_418, 18]),
    run("two-rounds", BASE, [252_265, 677_214, 18]),
    run("weighted", Scenario { committees: [WEIGHTED; 2], ..BASE }, [737_274, 1_975_553, 18]),
    run("next-era", Scenario { rounds: 1, ..NEXT_ERA }, [53_191, 133_809, 19]),
    run(
        "new-committee",
        Scenario { rounds: 1, committees: [EQUAL, GROWN], ..NEXT_ERA },
        [129_823, 320_998, 19],
    ),
    run("safe-start", SAFE_START, [1_104_113, 3_359_190, 20]),
    run("plain-tendermint", Scenario { fast_path: false, rounds: 3, ..BASE }, [572_737, 1_690_581, 18]),
];

/// By the documented command only.
pub const LONG: &[Run] = &[
    run("chain-two-rounds", Scenario { payments: CHAIN, ..BASE }, [3_813_485, 10_172_071, 24]),
    run("independent", Scenario { payments: INDEPENDENT, ..BASE }, [46_662_134, 122_500_221, 24]),
    run("overlap-two-rounds", Scenario { payments: OVERLAP, ..BASE }, [10_556_721, 27_864_311, 24]),
    run(
        "parent-at-prepare-only",
        Scenario { payments: CHAIN, ..BASE }.without(Rule::ParentAtCommit),
        [4_614_194, 12_438_084, 24],
    ),
    run(
        "parent-at-commit-only",
        Scenario { payments: CHAIN, ..BASE }.without(Rule::ParentAtPrepare),
        [6_457_469, 17_183_250, 24],
    ),
    run("three-rounds", Scenario { rounds: 3, ..BASE }, [20_719_021, 61_845_678, 24]),
    run("next-era-two-rounds", NEXT_ERA, [7_151_026, 18_764_557, 25]),
    run("next-era-chain", Scenario { rounds: 1, payments: CHAIN, ..NEXT_ERA }, [1_846_157, 6_364_580, 29]),
    run(
        "next-era-weighted",
        Scenario { rounds: 1, committees: [WEIGHTED; 2], ..NEXT_ERA },
        [154_567, 388_286, 19],
    ),
    run(
        "safe-start-weighted",
        Scenario { committees: [WEIGHTED; 2], ..SAFE_START },
        [2_176_441, 6_617_574, 20],
    ),
    run("safe-start-chain", Scenario { payments: CHAIN, ..SAFE_START }, [39_604_244, 158_863_642, 30]),
];

const fn mutation(name: &'static str, property: &'static str, steps: usize, scenario: Scenario) -> Mutation {
    Mutation { name, scenario, property, steps }
}

/// A second process without its log, in one era.
const NO_SAFE_START: Scenario =
    Scenario { second_process: true, ..ONE_ROUND }.without(Rule::SilentUntilResume);
/// The first process does not stop; the weight of its key and the Byzantine weight make a quorum.
const DISPLACED: Scenario =
    Scenario { room: 0, committees: [HEAVY; 2], ..SAFE_START }.without(Rule::StopWhenDisplaced);
/// The checkpoint alone.
const NO_PAYMENTS: Scenario = Scenario { fast_path: false, ..BASE };

/// Each leaves out one rule, or exceeds what the protocol assumes; each in a scenario no larger than it needs.
/// Part of every test run.
pub const MUTATIONS: &[Mutation] = &[
    mutation("no-freeze", S2, 8, ONE_ROUND.without(Rule::Freeze)),
    mutation("no-subset-rule", S2, 8, ONE_ROUND.without(Rule::Subset)),
    mutation("no-coin-lock", S1, 8, ONE_ROUND.without(Rule::CoinLock)),
    mutation("no-bft-lock", S3, 8, NO_PAYMENTS.without(Rule::BftLock)),
    mutation("no-proof-of-lock", S2, 8, BASE.without(Rule::ProofOfLock)),
    mutation("final-at-prepare-quorum", S2, 6, ONE_ROUND.without(Rule::SecondPhase)),
    mutation("no-era-tag", S1, 13, Scenario { rounds: 1, ..NEXT_ERA }.without(Rule::EraTag)),
    mutation("next-era-on-old-state", S4, 10, Scenario { rounds: 1, ..NEXT_ERA }.without(Rule::NewState)),
    mutation(
        "no-parent-rule",
        S1,
        8,
        Scenario { payments: CHAIN, ..ONE_ROUND }
            .without(Rule::ParentAtPrepare)
            .without(Rule::ParentAtCommit),
    ),
    mutation("log-loses-prepares", S1, 9, ONE_ROUND.without(Rule::LogHoldsPrepares)),
    mutation("log-loses-commit-votes", S2, 9, ONE_ROUND.without(Rule::LogHoldsCommitVotes)),
    mutation("log-loses-freeze", S2, 9, ONE_ROUND.without(Rule::LogHoldsFreeze)),
    mutation("log-loses-bft-lock", S3, 9, NO_PAYMENTS.without(Rule::LogHoldsLock)),
    mutation("no-safe-start-payments", S1, 8, Scenario { room: 0, ..NO_SAFE_START }),
    mutation("no-safe-start-subset", S2, 8, Scenario { room: 0, ..NO_SAFE_START }),
    mutation("no-safe-start-blocks", S3, 8, Scenario { fast_path: false, ..NO_SAFE_START }),
    mutation("displaced-goes-on", S1, 8, DISPLACED),
    mutation("no-room-in-block", L0, 6, Scenario { payments: HARMONY, room: 1, ..ONE_ROUND }),
    mutation("quorum-one-less", S3, 4, NO_PAYMENTS.without(Rule::Quorum)),
    mutation("half-byzantine", S3, 4, Scenario { committees: [HALF_BYZANTINE; 2], ..NO_PAYMENTS }),
];

/// Is there a run or a mutation of this name?
pub fn is_known(name: &str) -> bool {
    SHORT.iter().chain(LONG).any(|run| run.name == name) || MUTATIONS.iter().any(|run| run.name == name)
}
