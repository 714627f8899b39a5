//! What is held against a peer, and what for. Only what the peer itself must have done counts: whether an honest
//! node could have sent it depends on nothing but the message (docs/decisions/0011). Whatever rests on the state of
//! the two nodes weighs nothing.

use crate::primitives::clean::CleanText;

/// What a peer did. The order of the weights is that of how hard it is to do by a mistake of the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Bytes that are no frame or no message of this protocol, or not on the stream they belong to.
    BadFrame,
    /// A hello with a false certificate or one that is none.
    BadHello,
    /// A message whose signatures or certificates do not verify in the era it names itself.
    BadSignature,
    /// A transaction whose signatures do not verify; they are checked before a node passes one on.
    BadTransaction,
    /// A block that does not hold what its own header says.
    FalseBlock,
    /// Headers that do not follow one from the other.
    FalseHeaders,
    /// Parts, manifest or certificate of a snapshot that do not fit the manifest the peer offers.
    FalseSnapshot,
    /// More than any honest node can send, after it was slowed down.
    Flood,
    /// Something this node does not accept, and which an honest node could send that sees another chain or runs
    /// another release.
    Disagreement,
}

impl Offence {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::BadFrame,
        Self::BadHello,
        Self::BadSignature,
        Self::BadTransaction,
        Self::FalseBlock,
        Self::FalseHeaders,
        Self::FalseSnapshot,
        Self::Flood,
        Self::Disagreement,
    ];

    /// What it adds to the score; [`BAN_SCORE`](super::table::BAN_SCORE) leads to a ban. A connection ends with the
    /// first offence, so three connections in a short time are needed for one.
    #[must_use]
    pub const fn weight(self) -> f64 {
        match self {
            Self::BadFrame | Self::BadSignature | Self::BadTransaction => 40.0,
            Self::BadHello => 20.0,
            Self::FalseBlock | Self::FalseHeaders | Self::FalseSnapshot => 50.0,
            Self::Flood => 25.0,
            Self::Disagreement => 0.0,
        }
    }

    /// Stable name for logs and events.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadFrame => "bad-frame",
            Self::BadHello => "bad-hello",
            Self::BadSignature => "bad-signature",
            Self::BadTransaction => "bad-transaction",
            Self::FalseBlock => "false-block",
            Self::FalseHeaders => "false-headers",
            Self::FalseSnapshot => "false-snapshot",
            Self::Flood => "flood",
            Self::Disagreement => "disagreement",
        }
    }

    /// For people, as in "sent ..".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::BadFrame => "bytes that are no message of this protocol",
            Self::BadHello => "a false hello",
            Self::BadSignature => "a message with false signatures",
            Self::BadTransaction => "a transaction with a false signature",
            Self::FalseBlock => "a block that is not what its header says",
            Self::FalseHeaders => "headers that do not follow one from the other",
            Self::FalseSnapshot => "a snapshot that does not fit its manifest",
            Self::Flood => "more than any honest node can send",
            Self::Disagreement => "something this node does not accept",
        }
    }
}

/// Most bytes of a message shown as evidence.
const SAMPLE_BYTES_MAX: usize = 16;
/// Most characters of what was wrong that are kept.
const WHAT_CHARS_MAX: usize = 160;

/// An offence with its evidence, short enough to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub offence: Offence,
    /// What was wrong; told to the peer as well.
    pub what: CleanText,
    /// Kind of the message.
    kind: &'static str,
    /// Digest or first bytes in hexadecimal.
    sample: String,
    height: Option<u64>,
}

impl Charge {
    /// Of a message of this kind, what was wrong with it.
    #[must_use]
    pub fn new(offence: Offence, kind: &'static str, what: &str) -> Self {
        let what = CleanText::limited(what, WHAT_CHARS_MAX);
        Self { offence, what, kind, sample: String::new(), height: None }
    }

    /// With the first of these bytes: of a digest, a signature or the message.
    #[must_use]
    pub fn sample(mut self, bytes: &[u8]) -> Self {
        self.sample = hex::encode(bytes.get(..SAMPLE_BYTES_MAX).unwrap_or(bytes));
        self
    }

    /// With the height it was about.
    #[must_use]
    pub fn height(mut self, height: u64) -> Self {
        self.height = Some(height);
        self
    }

    /// The evidence in one line: what, kind, bytes, height.
    #[must_use]
    pub fn evidence(&self) -> CleanText {
        let mut text = format!("{}; {}", self.what, self.kind);
        if !self.sample.is_empty() {
            text.push(' ');
            text.push_str(&self.sample);
        }
        if let Some(height) = self.height {
            text.push_str(&format!(" at height {height}"));
        }
        CleanText::new(&text)
    }
}
