//! One fixed value of every type that travels or is stored, for the golden vectors and as seeds for
//! mutation.

use masternode::primitives::amount::Amount;
use masternode::primitives::block::{Block, Coinbase, HEADER_VERSION, Header, Outline, tx_root};
use masternode::primitives::certificate::{Certificate, Qc};
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::committee::{Committee, Member};
use masternode::primitives::encoding::encode;
use masternode::primitives::hash::{BlockId, ChainId, EraTag, Hash, KeyHash, MasternodeId, Txid, era_tag};
use masternode::primitives::keys::{SecretKey, Signature};
use masternode::primitives::merkle::Phase;
use masternode::primitives::message::{Message, Proposal, Status};
use masternode::primitives::params::Params;
use masternode::primitives::transaction::{
    OutPoint, SealedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind, TxInput, TxOutput,
};
use masternode::primitives::vote::{Step, Vote, VoteBatch, VoteProof, vote_digest};

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
    ]
}
