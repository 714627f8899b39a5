//! One fixed value of every type that travels or is stored, for the golden vectors and as seeds for
//! mutation.

use masternode::primitives::amount::Amount;
use masternode::primitives::block::{Block, Coinbase, HEADER_VERSION, Header, Outline, tx_root};
use masternode::primitives::certificate::{Certificate, Qc};
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::committee::{Committee, Member};
use masternode::primitives::encoding::encode;
use masternode::primitives::evidence::{BatchHead, Evidence, Offence, ProposalHead, VoteHead};
use masternode::primitives::hash::{BlockId, ChainId, EraTag, Hash, KeyHash, MasternodeId, Txid, era_tag};
use masternode::primitives::keys::{SecretKey, Signature};
use masternode::primitives::merkle::Phase;
use masternode::primitives::message::{Message, Proposal, SnapshotOffer, Status, proposal_digest};
use masternode::primitives::params::Params;
use masternode::primitives::tier::Tier;
use masternode::primitives::transaction::{
    OutPoint, SealedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind, TxInput, TxOutput,
};
use masternode::primitives::vote::{Step, Vote, VoteBatch, VoteProof, vote_digest};
use masternode::wallet::builder::Coin;
use masternode::wallet::special::{self, Change, Changes, NewMasternode};

pub fn chain() -> ChainId {
    ChainId(Hash([0xc4; 32]))
}

pub fn tag() -> EraTag {
    era_tag(chain(), 7, BlockId(Hash([0xb0; 32])))
}

pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

pub fn txid(number: u8) -> Txid {
    Txid(Hash([number; 32]))
}

pub fn amount(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

/// Four members of weights 1, 2, 3, 4.
pub fn committee() -> Committee {
    let member = |number: u8| Member {
        id: MasternodeId(Hash([number; 32])),
        vote_key: key(number).public(),
        weight: u64::from(number),
        payout: KeyHash(Hash([0x50 + number; 32])),
        name: format!("node-{number}"),
    };
    Committee::new((1..=4).map(member).collect())
}

pub fn transaction() -> Transaction {
    let owner = key(9);
    let input = |index| TxInput {
        outpoint: OutPoint { txid: txid(0x11), index },
        public_key: owner.public(),
        signature: Signature([0; 64]),
    };
    let mut transaction = Transaction {
        version: TRANSACTION_VERSION,
        kind: TransactionKind::Payment,
        expiry: 107,
        inputs: vec![input(0), input(3)],
        outputs: vec![
            TxOutput { value: amount(150_000_000), key_hash: KeyHash(Hash([0x61; 32])) },
            TxOutput { value: amount(2_500), key_hash: owner.public().key_hash() },
        ],
        payload: Vec::new(),
    };
    transaction.sign(chain(), &owner);
    transaction
}

/// The batch of member `voter`, which has key `voter + 1`.
pub fn batch(voter: u16) -> VoteBatch {
    let mut batch = VoteBatch {
        era_tag: tag(),
        voter,
        sequence: 2,
        last: true,
        prepares: vec![txid(1), txid(2), txid(3)],
        commits: vec![txid(4)],
        signature: Signature([0; 64]),
    };
    batch.signature = key(voter.to_le_bytes()[0] + 1).sign(&batch.digest());
    batch
}

pub fn proof() -> VoteProof {
    batch(3).proof(Phase::Prepare, &txid(2)).unwrap()
}

pub fn certificate(voters: &[u16]) -> Certificate {
    let proofs = voters.iter().map(|voter| batch(*voter).proof(Phase::Prepare, &txid(3)).unwrap()).collect();
    Certificate { txid: txid(3), phase: Phase::Prepare, proofs }
}

pub fn header() -> Header {
    Header {
        version: HEADER_VERSION,
        height: 7,
        previous: BlockId(Hash([0xb0; 32])),
        time_ms: 1_800_000_000_123,
        proposer: MasternodeId(Hash([4; 32])),
        tx_root: tx_root(&[transaction().id()]),
        tx_count: 1,
        body_bytes: u64::try_from(encode(&transaction()).len()).unwrap(),
        last_commit_root: Hash([0x1c; 32]),
        utxo_hash: Hash([0x0f; 32]),
        utxo_count: 42,
        supply: amount(1_000_000 * 100_000_000),
        registry_root: Hash([0x2e; 32]),
        committee_root: committee().root(),
        next_committee_root: committee().root(),
        params_root: Params::of(NetworkKind::Devnet).root(),
    }
}

pub fn vote(voter: u16, step: Step, block: Option<BlockId>) -> Vote {
    let mut vote = Vote { era_tag: tag(), round: 1, step, block, voter, signature: Signature([0; 64]) };
    vote.signature = key(voter.to_le_bytes()[0] + 1).sign(&vote.digest());
    vote
}

pub fn qc(voters: &[u16]) -> Qc {
    let digest = vote_digest(tag(), 1, Step::Precommit, Some(header().id()));
    let votes = voters.iter().map(|voter| (*voter, key(voter.to_le_bytes()[0] + 1).sign(&digest))).collect();
    Qc::new(1, Step::Precommit, header().id(), votes)
}

pub fn block() -> Block {
    let transactions = vec![SealedTransaction::new(transaction())];
    Block { header: header(), last_commit: Some(qc(&[0, 2, 3])), transactions }
}

pub fn outline() -> Outline {
    block().outline()
}

pub fn proposal() -> Proposal {
    let mut proposal = Proposal {
        era_tag: tag(),
        round: 2,
        valid_round: -1,
        outline: outline(),
        pol: None,
        signature: Signature([0; 64]),
    };
    proposal.signature = key(4).sign(&proposal.digest());
    proposal
}

pub fn coinbase() -> Coinbase {
    let output = TxOutput { value: amount(100_000_250), key_hash: KeyHash(Hash([0x54; 32])) };
    Coinbase { height: 7, outputs: vec![output] }
}

/// One message of every kind, under its name.
pub fn messages() -> Vec<Message> {
    let status = Status {
        height: 7,
        previous: BlockId(Hash([0xb0; 32])),
        round: 1,
        has_proposal: true,
        prevotes: vec![0b1011],
        precommits: Vec::new(),
        stream_heads: vec![3, 3, 0, 2],
    };
    vec![
        Message::Transaction(transaction()),
        Message::VoteBatch(batch(1)),
        Message::Proposal(proposal()),
        Message::Vote(vote(2, Step::Prevote, None)),
        Message::Pol { era_tag: tag(), qc: qc(&[1, 2, 3]) },
        Message::Commit { height: 7, qc: qc(&[0, 1, 2, 3]) },
        Message::Status(status),
        Message::GetTransactions(vec![txid(1), txid(2)]),
        Message::Transactions(vec![transaction()]),
        Message::GetStream { era_tag: tag(), voter: 2, from: 5 },
        Message::Stream(vec![batch(0)]),
        Message::GetCertificate { era_tag: tag(), txid: txid(3) },
        Message::Certificate { era_tag: tag(), certificate: certificate(&[1, 2, 3]) },
        Message::GetCandidate { era_tag: tag(), block: header().id() },
        Message::Candidate { era_tag: tag(), outline: outline() },
        Message::GetBlock { height: 7 },
        Message::Block { outline: outline(), qc: qc(&[1, 2, 3]) },
        Message::GetBlockBodies { height: 7, from: 1 },
        Message::BlockBodies { height: 7, from: 0, transactions: vec![transaction()] },
        Message::BlockNotKept { height: 7, oldest: 1001 },
        Message::GetSnapshots,
        Message::Snapshots(vec![SnapshotOffer {
            height: 7,
            block: header().id(),
            manifest: Hash([0x5d; 32]),
            manifest_bytes: 4096,
            bytes: 1 << 20,
            commit: qc(&[0, 1, 2]),
        }]),
        Message::GetSnapshotManifest { manifest: Hash([0x5d; 32]), page: 0 },
        Message::SnapshotManifest { manifest: Hash([0x5d; 32]), page: 0, bytes: vec![1, 2, 3] },
        Message::GetSnapshotPart { manifest: Hash([0x5d; 32]), part: 3 },
        Message::SnapshotPart { manifest: Hash([0x5d; 32]), part: 3, bytes: vec![4, 5, 6] },
        Message::GetLinks { from: 0, to: 7 },
        Message::Links { from: 0, links: vec![vec![7, 8, 9]] },
        Message::GetHeaders { last: 9, count: 512 },
        Message::Headers(vec![header()]),
        Message::Announce(vec![Txid(Hash([1; 32])), Txid(Hash([2; 32]))]),
    ]
}

/// One transaction of every special kind, under its name, signed as its kind demands.
pub fn specials() -> Vec<(&'static str, Transaction)> {
    let change = Change { validator: MasternodeId(Hash([2; 32])), sequence: 3, expiry: 107 };
    let (owner, vote_key, fresh) = (key(9), key(2), key(8));
    let coin = Coin {
        outpoint: OutPoint { txid: txid(0x11), index: 2 },
        value: amount(1_001 * 100_000_000),
        key: &owner,
    };
    let masternode = NewMasternode {
        name: "node-9".to_owned(),
        vote_key: &fresh,
        tier: Tier::Bronze,
        owner: owner.public().key_hash(),
        payout: KeyHash(Hash([0x59; 32])),
        endpoint: Some("192.0.2.9:24101".parse().unwrap()),
        change_to: owner.public().key_hash(),
        expiry: 107,
        fee_per_byte: 1,
    };
    let params = Params::of(NetworkKind::Devnet);
    let changes = Changes {
        vote_key: Some(&fresh),
        payout: Some(KeyHash(Hash([0x5a; 32]))),
        endpoint: Some("[2001:db8::9]:24101".parse().unwrap()),
    };
    vec![
        ("register", special::register(chain(), &params, &[coin], &masternode).unwrap().transaction),
        ("update", special::update(chain(), change, &owner, &changes)),
        ("unbond", special::unbond(chain(), change, &owner)),
        ("resume", special::resume(chain(), change, &vote_key, [0x4e; 32], Some(&fresh))),
        ("evidence-batches", special::evidence(evidence(offence_of_batches()), 107)),
        ("evidence-payments", special::evidence(evidence(offence_of_payments()), 107)),
        ("evidence-votes", special::evidence(evidence(offence_of_votes()), 107)),
        ("evidence-proposals", special::evidence(evidence(offence_of_proposals()), 107)),
    ]
}

/// Evidence against member 1, which has key 2.
fn evidence(offence: Offence) -> Evidence {
    Evidence { offender: MasternodeId(Hash([2; 32])), vote_key: key(2).public(), era_tag: tag(), offence }
}

fn offence_of_batches() -> Offence {
    let mut other = batch(1);
    other.prepares.pop();
    other.signature = key(2).sign(&other.digest());
    Offence::Batches(BatchHead::of(&batch(1)), BatchHead::of(&other))
}

fn offence_of_payments() -> Offence {
    let mut rival = transaction();
    rival.expiry += 1;
    rival.sign(chain(), &key(9));
    let mut both = batch(1);
    both.prepares = vec![transaction().id(), rival.id()];
    both.signature = key(2).sign(&both.digest());
    let vote = |transaction: &Transaction| both.proof(Phase::Prepare, &transaction.id()).unwrap();
    let votes = [vote(&transaction()), vote(&rival)];
    Offence::Payments { phase: Phase::Prepare, votes, transactions: Box::new([transaction(), rival]) }
}

fn offence_of_votes() -> Offence {
    let head = |block| {
        let signature = key(2).sign(&vote_digest(tag(), 1, Step::Precommit, block));
        VoteHead { block, signature }
    };
    Offence::Votes { round: 1, step: Step::Precommit, votes: [head(None), head(Some(header().id()))] }
}

fn offence_of_proposals() -> Offence {
    let head = |valid_round| {
        let signature = key(2).sign(&proposal_digest(tag(), 1, valid_round, header().id()));
        ProposalHead { valid_round, block: header().id(), signature }
    };
    Offence::Proposals { round: 1, proposals: [head(-1), head(0)] }
}
