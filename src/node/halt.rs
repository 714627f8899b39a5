//! The switch that a failed disk throws: from then on the node does nothing but tell why.

use crate::consensus::output::Output;
use crate::node::clock;
use crate::node::hub::Hub;
use std::sync::Arc;
use std::sync::OnceLock;

/// Thrown at most once, never reset before the next start.
#[derive(Debug)]
pub struct Halt {
    reason: OnceLock<String>,
    hub: Arc<Hub>,
}

impl Halt {
    /// Not thrown.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { reason: OnceLock::new(), hub })
    }

    /// Whether it was thrown.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.reason.get().is_some()
    }

    /// Throws it; the first reason stays.
    pub fn set(&self, reason: String) {
        tracing::error!(%reason, "halted");
        if self.reason.set(reason.clone()).is_ok() {
            self.hub.observe(clock::now(), &[Output::Halt { reason }]);
        }
    }
}
