//! Blocks with the header and certificate of the true one, and another body: served to a node that catches up.

use crate::field::{Field, VICTIM};
use crate::strangers::{Ends, Stranger, Strangers};
use masternode::network::wire::{Class, FRAME_MAX, FrameReader, frame};
use masternode::primitives::block::Outline;
use masternode::primitives::certificate::Qc;
use masternode::primitives::encoding::decode;
use masternode::primitives::hash::{BlockId, Hash, Txid};
use masternode::primitives::keys::Signature;
use masternode::primitives::message::{Message, Status};
use masternode::primitives::transaction::Transaction;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long a liar waits to be asked.
const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// Blocks as an honest node serves them.
#[derive(Debug, Default)]
pub struct Blocks {
    outlines: BTreeMap<u64, (Outline, Qc)>,
    bodies: BTreeMap<u64, Vec<Transaction>>,
}

/// All messages of one peer, in one queue.
fn hear(stranger: &Stranger) -> mpsc::Receiver<Message> {
    let (sender, heard) = mpsc::channel(1024);
    let connection = stranger.connection.clone();
    tokio::spawn(async move {
        while let Ok(stream) = connection.accept_uni().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut reader = FrameReader::new(stream, FRAME_MAX);
                let Ok(Some(class)) = reader.first_byte().await else { return };
                while let Ok(Some(payload)) = reader.next().await {
                    // Control messages are of another type.
                    if class != Class::Control.byte()
                        && let Ok(message) = decode::<Message, FRAME_MAX>(&payload)
                        && sender.send(message).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    heard
}

impl Blocks {
    /// Pulls these blocks from a node.
    pub async fn pull(strangers: &Strangers, field: &Field, heights: std::ops::RangeInclusive<u64>) -> Self {
        let stranger = strangers.join(field.address(0), Strangers::fresh_key()).await.unwrap();
        let mut heard = hear(&stranger);
        let mut stream = stranger.stream(Class::Votes).await.unwrap();
        let mut blocks = Self::default();
        for height in heights {
            let mut questions =
                vec![Message::GetBlock { height }, Message::GetBlockBodies { height, from: 0 }];
            while let Some(question) = questions.pop() {
                stream.write_all(&frame(&question).unwrap()).await.unwrap();
                loop {
                    let answer = timeout(Duration::from_secs(20), heard.recv()).await;
                    match answer.expect("an answer").expect("connected") {
                        Message::Block { outline, qc } if outline.header.height == height => {
                            blocks.outlines.insert(height, (outline, qc));
                            break;
                        }
                        Message::BlockBodies { height: of, transactions, .. } if of == height => {
                            blocks.bodies.insert(height, transactions);
                            break;
                        }
                        _ => {}
                    }
                }
            }
        }
        blocks
    }

    /// How many of them have a body to be poisoned.
    pub fn full(&self) -> usize {
        self.bodies.values().filter(|bodies| !bodies.is_empty()).count()
    }

    /// The lie number `kind` about a block: its outline.
    fn outline(&self, kind: u64, height: u64) -> Option<Message> {
        let (mut outline, qc) = self.outlines.get(&height)?.clone();
        if kind.is_multiple_of(2)
            && let Some(first) = outline.txids.first_mut()
        {
            *first = Txid(Hash([0xee; 32]));
        }
        Some(Message::Block { outline, qc })
    }

    /// And its body, with the signatures of others.
    fn bodies(&self, height: u64, from: u32) -> Option<Message> {
        let mut transactions: Vec<Transaction> =
            self.bodies.get(&height)?.iter().skip(usize::try_from(from).unwrap()).cloned().collect();
        for input in transactions.iter_mut().flat_map(|transaction| &mut transaction.inputs) {
            input.signature = Signature([0xee; 64]);
        }
        Some(Message::BlockBodies { height, from, transactions })
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Poisoned {
    /// False outlines and false bodies served.
    pub outlines: AtomicU64,
    pub bodies: AtomicU64,
    pub ends: Ends,
}

/// One stranger says to the victim that it is far ahead, and lies when it is asked, until it is cut off.
pub async fn lie(
    strangers: Arc<Strangers>,
    field: &Field,
    blocks: Arc<Blocks>,
    kind: u64,
    came: Arc<Poisoned>,
) {
    let to = field.address(VICTIM);
    let stranger = match strangers.join(to, Strangers::fresh_key()).await {
        Ok(stranger) => stranger,
        Err(how) => return came.ends.add(how),
    };
    let mut heard = hear(&stranger);
    let (Ok(mut votes), Ok(mut bulk)) =
        (stranger.stream(Class::Votes).await, stranger.stream(Class::Bulk).await)
    else {
        return;
    };
    let height = blocks.outlines.keys().next_back().map_or(0, |last| last + 1);
    let status = Message::Status(Status {
        height,
        previous: BlockId::default(),
        round: 0,
        has_proposal: false,
        prevotes: Vec::new(),
        precommits: Vec::new(),
        stream_heads: Vec::new(),
    });
    let begun = Instant::now();
    while stranger.ended().is_none() && begun.elapsed() < ASKED_WITHIN {
        let _cut_off = votes.write_all(&frame(&status).unwrap()).await;
        let Ok(Some(question)) = timeout(Duration::from_millis(200), heard.recv()).await else { continue };
        let (answer, count) = match question {
            Message::GetBlock { height } => (blocks.outline(kind, height), &came.outlines),
            Message::GetBlockBodies { height, from } => (blocks.bodies(height, from), &came.bodies),
            // It has what it wanted from others.
            Message::Status(status) if status.height >= height => break,
            _ => continue,
        };
        if let Some(answer) = answer {
            count.fetch_add(1, Relaxed);
            let _cut_off = bulk.write_all(&frame(&answer).unwrap()).await;
        }
    }
    came.ends.add(stranger.ended().unwrap_or("not asked".to_owned()));
}
