//! The one loop that owns machine, ledger and pool: every change of state starts here.
//!
//! A thread of its own. It takes what waits, votes before transactions, steps the machine, hands the
//! outputs to the effects thread and sleeps until the machine's next deadline or the next arrival. It
//! never waits for a disk, a socket or a lock that anyone holds for long. After each committed block it
//! publishes the era that signatures are checked against from then on.

use crate::consensus::input::Input;
use crate::consensus::machine::Machine;
use crate::consensus::output::{Notice, Output};
use crate::consensus::verify::EraContext;
use crate::node::clock;
use crate::node::halt::Halt;
use crate::node::host::ChainHost;
use crate::node::hub::Hub;
use crate::node::lanes::{Lanes, Taken, Waiting};
use crate::node::verify::{Answer, Arrival, Verifier};
use crate::primitives::hash::Txid;
use crate::primitives::rejection::Rejection;
use crate::telemetry::snapshot::OPEN_TRANSACTIONS_MAX;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

/// Votes, connections and blocks that may wait: beyond it the checking workers wait, then the network.
pub const URGENT_WAITING_MAX: usize = 8192;
/// Checked transactions that may wait: some 50 ms of work.
pub const BULK_WAITING_MAX: usize = 2048;
/// Most urgent things and transactions between two looks at what came in.
const AT_ONCE: (usize, usize) = (256, 32);

/// Everything the loop owns and talks to.
pub struct Engine {
    pub machine: Machine,
    pub host: ChainHost,
    /// What comes in.
    pub inbox: Arc<Lanes<Arrival>>,
    /// What goes out, in order.
    pub effects: SyncSender<Vec<Output>>,
    /// Takes messages back that wait for an era.
    pub verifier: Verifier,
    /// What signatures are checked against.
    pub era: Arc<ArcSwap<EraContext>>,
    /// Height of the last decided block, for the network.
    pub height: Arc<AtomicU64>,
    pub hub: Arc<Hub>,
    /// Set when a disk has failed: nothing may happen any more.
    pub halt: Arc<Halt>,
}

impl Engine {
    /// Works until the inbox is closed and empty. The effects queue closes when this returns.
    pub fn run(mut self) {
        let mut taken = Vec::new();
        let mut outputs = Vec::new();
        self.step(Input::Start, &mut outputs);
        self.forward(&mut outputs, true);
        loop {
            let until = self.machine.next_deadline().map(clock::instant_of);
            match self.inbox.take(&mut taken, AT_ONCE, until) {
                Taken::Closed => return,
                Taken::Nothing => self.step(Input::Wake, &mut outputs),
                Taken::Some => {}
            }
            if self.halt.is_set() {
                taken.clear();
                outputs.clear();
                self.wait_for_the_end();
                return;
            }
            let mut connections = false;
            for waiting in taken.drain(..) {
                connections |= is_connection(&waiting.item);
                self.accept(waiting, &mut outputs);
            }
            self.forward(&mut outputs, connections);
        }
    }

    /// After a failed disk only the order to stop is heard.
    fn wait_for_the_end(&self) {
        let mut taken = Vec::new();
        while self.inbox.take(&mut taken, (usize::MAX, usize::MAX), None) != Taken::Closed {
            taken.clear();
        }
    }

    fn accept(&mut self, waiting: Waiting<Arrival>, outputs: &mut Vec<Output>) {
        let now_us = clock::monotonic_us();
        self.hub.metrics.loop_lag.record(now_us, now_us.saturating_sub(waiting.since_us));
        match waiting.item {
            Arrival::Input(input) => self.step(input, outputs),
            Arrival::Submitted { transaction, answer } => {
                let txid = transaction.get().id();
                let before = outputs.len();
                self.step(Input::Transaction { from: None, transaction }, outputs);
                tell(answer, txid, outputs.get(before..).unwrap_or_default());
            }
        }
    }

    /// One input. What must happen before the next one is handled here, the rest by the effects.
    fn step(&mut self, input: Input, outputs: &mut Vec<Output>) {
        let stepped = self.machine.step(&mut self.host, clock::now(), input);
        for output in stepped {
            match output {
                Output::Replay(messages) => self.verifier.again(messages),
                Output::Committed { ref block, .. } => {
                    self.era.store(self.machine.era());
                    self.height.store(block.header.height, Ordering::Release);
                    outputs.push(output);
                }
                other => outputs.push(other),
            }
        }
    }

    fn forward(&mut self, outputs: &mut Vec<Output>, changed: bool) {
        let changed = changed || outputs.iter().any(is_change);
        let now = clock::now();
        if changed || self.hub.report_due(now.monotonic_us) {
            let open = self.machine.open_transactions(OPEN_TRANSACTIONS_MAX);
            self.hub.report(now, self.machine.view(), open);
        }
        if changed {
            self.hub.request_refresh();
        }
        if !outputs.is_empty() {
            // Fails only when the effects thread has died, which stops the node by itself.
            let _stopping = self.effects.send(std::mem::take(outputs));
        }
    }
}

/// Whether people should see this at once.
fn is_change(output: &Output) -> bool {
    matches!(
        output,
        Output::Committed { .. }
            | Output::Halt { .. }
            | Output::Notice(Notice::Frozen { .. } | Notice::RoundStarted { .. })
    )
}

fn is_connection(arrival: &Arrival) -> bool {
    matches!(arrival, Arrival::Input(Input::PeerUp { .. } | Input::PeerDown { .. }))
}

/// Tells whoever submitted a transaction what the machine made of it.
fn tell(answer: Answer, txid: Txid, outputs: &[Output]) {
    let refused = outputs.iter().find_map(|output| match output {
        Output::Rejected { txid: refused, from: None, reason } if *refused == txid => Some(reason.clone()),
        _ => None,
    });
    let result: Result<Txid, Rejection> = refused.map_or(Ok(txid), Err);
    // Whoever asked may have gone.
    let _gone = answer.send(result);
}
