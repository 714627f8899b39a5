//! What is measured while something goes on: memory and answers of the attacked nodes, honest connections, and the
//! honest payments.

use crate::field::{Field, NAMES, TARGETS};
use crate::payer::{Payer, Stretch};
use masternode::rpc::client::ControlClient;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Most more memory of a node under attack.
const MEMORY_MAX: u64 = 128 << 20;
/// Longest answer over the control socket, of 99 in 100.
const ANSWER_MS: f64 = 250.0;

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    pub payments: Stretch,
    /// Most more memory of a target than before, in bytes.
    pub memory: u64,
    /// Milliseconds of answers over the control socket.
    pub answers_ms: Vec<f64>,
    /// Honest connections that ended.
    pub lost: Vec<String>,
    pub lasted: Duration,
}

impl Measured {
    pub fn answer_ms(&self) -> f64 {
        let mut sorted = self.answers_ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// What does not depend on how busy the machine is.
    #[track_caller]
    pub fn check(&self, what: &str) {
        assert!(self.lost.is_empty(), "{what}: honest connections were lost: {:?}", self.lost);
        assert!(
            self.payments.refused.is_empty(),
            "{what}: payments were refused: {:?}",
            self.payments.refused
        );
        assert!(!self.payments.finals_us.is_empty(), "{what}: no payment became final");
        assert!(self.memory <= MEMORY_MAX, "{what}: {} MiB more memory", self.memory >> 20);
    }

    /// The marks that are times; `quiet` is the p99 of finality without an attack.
    pub fn misses(&self, quiet_ms: f64) -> Vec<String> {
        let mut misses = Vec::new();
        let p99 = self.payments.percentile(99);
        if p99 > 2.0 * quiet_ms {
            misses.push(format!("finality p99 {p99:.0} ms above twice {quiet_ms:.0} ms"));
        }
        if self.answer_ms() > ANSWER_MS {
            misses.push(format!("answers p99 {:.0} ms above {ANSWER_MS} ms", self.answer_ms()));
        }
        misses
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.1} s, {} payments final p50 {:.0} ms p99 {:.0} ms, memory +{} MiB, answers p99 {:.0} ms, {} honest \
             connections lost",
            self.lasted.as_secs_f64(),
            self.payments.finals_us.len(),
            self.payments.percentile(50),
            self.payments.percentile(99),
            self.memory >> 20,
            self.answer_ms(),
            self.lost.len()
        )
    }
}

/// Measures while `act` goes on; `spared` is left out where connections are concerned.
pub fn during<T>(
    field: &Field,
    payer: &Payer,
    spared: Option<usize>,
    act: impl FnOnce() -> T,
) -> (T, Measured) {
    let memory = |node: &usize| field.memory(*node);
    let before: Vec<u64> = TARGETS.iter().map(memory).collect();
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    payer.take();
    let (result, grown, answers_ms) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let (mut grown, mut answers_ms) = (0, Vec::new());
            while !stop.load(Relaxed) {
                for (node, before) in TARGETS.iter().zip(&before) {
                    grown = grown.max(memory(node).saturating_sub(*before));
                    let asked = Instant::now();
                    let answered = ControlClient::connect(&field.dir(*node)).and_then(|mut at| at.status());
                    assert!(answered.is_ok(), "{} does not answer: {:?}", NAMES[*node], answered.err());
                    answers_ms.push(asked.elapsed().as_secs_f64() * 1000.0);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            (grown, answers_ms)
        });
        let result = act();
        stop.store(true, Relaxed);
        let (grown, answers_ms) = watching.join().unwrap();
        (result, grown, answers_ms)
    });
    let lasted = begun.elapsed();
    let lost = lost_since(field, lasted, spared);
    // What was handed in last may still be under way.
    payer.until_paid(1);
    (result, Measured { payments: payer.take(), memory: grown, answers_ms, lost, lasted })
}

/// Honest connections that are younger than so long, or missing.
fn lost_since(field: &Field, lasted: Duration, spared: Option<usize>) -> Vec<String> {
    let mut lost = Vec::new();
    for node in (0..NAMES.len()).filter(|node| Some(*node) != spared) {
        let ages: BTreeMap<String, u64> =
            field.honest(node).into_iter().map(|peer| (peer.name.as_str().to_owned(), peer.age_ms)).collect();
        for (other, name) in NAMES.iter().chain([&crate::field::PAYER]).enumerate() {
            let older = ages.get(*name).is_some_and(|age| Duration::from_millis(*age) + SLACK >= lasted);
            if other != node && Some(other) != spared && !older {
                lost.push(format!("{name} at {}: {:?}", NAMES[node], ages.get(*name)));
            }
        }
    }
    lost
}

/// A picture of a node may be so old.
const SLACK: Duration = Duration::from_millis(1000);
