//! A proof of a real payment, from a running node to somebody who has the file and a trusted block only.

use crate::rules::{Network, runtime};
use masternode::primitives::trusted::TrustedHeader;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Far above what anything here needs, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the binary; its exit status, output and errors.
async fn masternode(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masternode"));
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn json((status, out, err): (Option<i32>, String, String)) -> Value {
    assert_eq!(status, Some(0), "{out}{err}");
    serde_json::from_str(&out).unwrap()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A network, a payment that is final in it, and where to put things.
struct Paid {
    network: Network,
    txid: String,
    data_dir: String,
    genesis: TrustedHeader,
}

impl Paid {
    async fn new(era: Duration) -> Self {
        let network = Network::start(4, era).await;
        let genesis = network.founded.genesis.state().header;
        let genesis = TrustedHeader { height: 0, id: genesis.id() };
        let payment = network.signed(network.unsigned(1));
        let txid = network.nodes[0].submit(payment).await.unwrap();
        let witness = &network.nodes[2];
        tokio::time::timeout(PATIENCE, witness.wait_final(txid)).await.unwrap().unwrap();
        let data_dir = text(&network.founded.configs[2].data_dir);
        Self { network, txid: txid.to_string(), data_dir, genesis }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.network.root.path().join(name)
    }

    async fn get(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let arguments = ["proof", "get", &self.txid, "--json", "--data-dir", &self.data_dir];
        masternode(&[&arguments[..], more].concat()).await
    }
}

async fn verify(file: &Path, trusted: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let file = text(file);
    let arguments = ["proof", "verify", &file, "--json", "--trusted", trusted];
    masternode(&[&arguments[..], more].concat()).await
}

/// Refused with status 1, a reason with these words, and `"valid": false`.
#[track_caller]
fn expect_invalid((status, out, err): (Option<i32>, String, String), words: &str) {
    assert_eq!(status, Some(1), "{out}{err}");
    let verdict: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(verdict["valid"], Value::from(false));
    assert!(verdict["reason"].as_str().unwrap().contains(words) && err.contains(words), "{out}{err}");
}

#[test]
fn a_payment_of_the_running_era_is_proven_to_who_trusts_the_block_before() {
    runtime().block_on(async {
        // The era does not end within this test.
        let paid = Paid::new(Duration::from_secs(3600)).await;
        let file = paid.file("final.proof");
        let got = json(paid.get(&["--out", &text(&file)]).await);
        assert_eq!((&got["kind"], &got["height"]), (&Value::from("finality"), &Value::from(1)));
        assert_eq!(got["trusted"], Value::from(paid.genesis.to_string()));
        assert_eq!(got["bytes"].as_u64().unwrap(), file.metadata().unwrap().len());

        let trusted = paid.genesis.to_string();
        let genesis = text(&Path::new(&paid.data_dir).join("genesis.toml"));
        let verdict = json(verify(&file, &trusted, &["--genesis", &genesis]).await);
        assert_eq!(verdict["txid"], Value::from(paid.txid.as_str()));
        assert_eq!(verdict["valid"], Value::from(true));
        assert_eq!(verdict["kind"], Value::from("finality"));
        let weight = |name: &str| verdict[name].as_u64().unwrap();
        assert!(weight("weight") > weight("total_weight") * 2 / 3, "{verdict}");

        let other = format!("0:{}", "ab".repeat(32));
        expect_invalid(verify(&file, &other, &[]).await, "header 0 of the proof has the id");
        let mut bytes = std::fs::read(&file).unwrap();
        // The receiver of the payment.
        let receiver = bytes.windows(32).position(|window| window == [1; 32]).unwrap();
        bytes[receiver] ^= 1;
        let altered = paid.file("altered.proof");
        std::fs::write(&altered, &bytes).unwrap();
        expect_invalid(verify(&altered, &trusted, &[]).await, "signature of committee member");
        std::fs::write(&altered, "[p2p]").unwrap();
        expect_invalid(verify(&altered, &trusted, &[]).await, "not a proof bundle");

        // Never overwritten; a block above the proof and an unknown payment are told apart.
        let (status, _, err) = paid.get(&["--out", &text(&file)]).await;
        assert!(status == Some(1) && err.contains("already there"), "{err}");
        let (status, _, err) = paid.get(&["--trusted", &format!("9:{}", "ab".repeat(32))]).await;
        assert!(status == Some(1) && err.contains("name one at most 0"), "{err}");
        let (status, _, err) =
            masternode(&["proof", "get", &"ab".repeat(32), "--data-dir", &paid.data_dir]).await;
        assert!(status == Some(1) && err.contains("not known to this node"), "{err}");
        paid.network.stop().await;
    });
}

#[test]
fn a_payment_in_a_block_is_proven_from_an_older_trusted_block_on() {
    runtime().block_on(async {
        let paid = Paid::new(Duration::from_secs(1)).await;
        let node = &paid.network.nodes[2];
        let recorded = async {
            // Final by votes comes first; its block and some more follow.
            while node.ledger().tip().header.height < 4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, recorded).await.expect("blocks are decided");
        let (trusted, file) = (paid.genesis.to_string(), paid.file("block.proof"));
        let got = json(paid.get(&["--out", &text(&file), "--trusted", &trusted]).await);
        assert_eq!(got["kind"], Value::from("block"));
        let verdict = json(verify(&file, &trusted, &[]).await);
        assert_eq!(verdict["txid"], Value::from(paid.txid.as_str()));
        assert_eq!((&verdict["kind"], &verdict["height"]), (&got["kind"], &got["height"]));

        // Without a trusted block the proof begins at its own.
        let own = paid.file("own.proof");
        let got = json(paid.get(&["--out", &text(&own)]).await);
        let block = got["trusted"].as_str().unwrap();
        assert!(block.starts_with(&format!("{}:", verdict["height"])), "{got}");
        json(verify(&own, block, &[]).await);
        expect_invalid(verify(&own, &trusted, &[]).await, "the trusted one is 0");
        paid.network.stop().await;
    });
}
