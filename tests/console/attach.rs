//! `masternode attach`: looks, leaves, is refused, operates; over `ssh`; instead of a second node; suspended.

use crate::program::{edit, masternode, set, until};
use crate::stage::{Network, PROGRAM, Stage, program};
use masternode::rpc::attach::Downward;
use masternode::rpc::control::{Answer, Request};
use masternode::rpc::mirror::{
    Host, Mirror, MirrorError, News, greeted, hello, order, read_frame, write_frame,
};
use portable_pty::CommandBuilder;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Each screen with words that only it shows.
const SCREENS: [(&str, &[&str]); 7] = [
    ("2", &["Members", "Vote stream"]),
    ("3", &["address", "jitter"]),
    ("4", &["Transactions", "Rejected"]),
    ("5", &["Checkpoints"]),
    ("8", &["Log", "following"]),
    ("?", &["Everywhere"]),
    ("1", &["Own signatures", "SIGNING"]),
];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_attached_console_shows_every_screen_and_leaves_the_node_voting() {
    let network = Network::start();
    let dir = network.dir(0);
    let recording = network.folder().join("events");
    let record = ["attach", "--data-dir", text(&dir), "--record", text(&recording)];
    let mut console = Stage::open(program(&record));
    // What was before it came is there: checkpoints, votes, log.
    console.until_shows(&["alpha devnet", "SIGNING", "VIEW", "checkpoint node=alpha"]);
    for (key, words) in SCREENS {
        console.press(key);
        console.until_shows(words);
    }
    network.goes_on(0);

    // It may look only, and says how to do more.
    console.press("q");
    console.until_shows(&["Leave?", "Detach", "Cancel", "attach --operate"]);
    assert!(!console.text().contains("Stop the node"), "{}", console.text());
    console.press("\r");
    until("the dialog is gone", || (!console.text().contains("Leave?")).then_some(()));
    assert!(console.is_taken(), "cancel is the default");
    console.press("d");
    assert_eq!(console.exit_code(), 0);
    console.until_shows(&["detached: alpha runs on"]);
    console.until_taken(false);
    network.goes_on(0);

    // A console that is killed is no different to the node; a hang-up and a signal end it with the terminal restored.
    for signal in ["-KILL", "-HUP", "-TERM"] {
        let mut console = Stage::open(program(&["attach", "--data-dir", text(&dir)]));
        console.until_shows(&["SIGNING"]);
        let pid = console.child.process_id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let code = console.exit_code();
        assert!(signal == "-KILL" || code == 0, "{signal}: {code}");
        if signal != "-KILL" {
            console.until_taken(false);
        }
        network.goes_on(0);
    }

    a_recording_is_played(&recording);
    run_offers_to_attach(&network);
    the_fleet_shows_all_and_the_one_that_is_not_there(&network);
    suspended_and_continued(&network);
}

fn run_offers_to_attach(network: &Network) {
    let dir = network.dir(1);
    let refused = masternode(&["run", "--data-dir", text(&dir)]);
    let words = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(78), "{words}");
    assert!(words.contains(&format!("masternode attach --data-dir {}", text(&dir))), "{words}");

    let mut asked = Stage::open(program(&["--data-dir", text(&dir)]));
    asked.until_shows(&["another masternode uses", "[Y/n]"]);
    asked.press("n\r");
    assert_eq!(asked.exit_code(), 1);
    let mut asked = Stage::open(program(&["run", "--data-dir", text(&dir)]));
    asked.until_shows(&["[Y/n]"]);
    asked.press("\r");
    asked.until_shows(&["bravo devnet", "SIGNING", "VIEW"]);
    asked.press("d");
    assert_eq!(asked.exit_code(), 0);
    network.goes_on(1);
}

fn a_recording_is_played(recording: &Path) {
    assert_eq!(recording.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut replay = Stage::open(program(&["replay", text(recording), "--speed", "20"]));
    replay.until_shows(&["alpha devnet", "SIGNING", "Own signatures"]);
    // At its end it stays where it is, and nothing is old.
    replay.until_shows(&["the recording has ended"]);
    replay.press("2");
    replay.until_shows(&["Vote stream", "alpha"]);
    assert!(!replay.text().contains("NO DATA"), "{}", replay.text());
    replay.press("q");
    replay.until_shows(&["no node is touched"]);
    replay.press("d\r");
    assert_eq!(replay.exit_code(), 0);
}

fn the_fleet_shows_all_and_the_one_that_is_not_there(network: &Network) {
    let file = network.dir(0).join("masternode.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let empty = Stage::open(program(&["attach", "--fleet", "--data-dir", text(&network.dir(0))]));
    empty.until_shows(&["console.fleet", "is empty"]);
    edit(&file, |config| {
        let absent = network.folder().join("absent").to_str().unwrap().to_owned();
        let one = network.dir(0).join("control.sock").to_str().unwrap().to_owned();
        let fleet = [one, network.dir(1).to_str().unwrap().to_owned(), absent];
        set(config, "console", "fleet", fleet.map(toml::Value::from).to_vec());
    });
    let dir = network.dir(0);
    let arguments = ["attach", "--fleet", "--operate", "--data-dir", text(&dir)];
    let mut fleet = Stage::sized(program(&arguments), 120, 30);
    fleet.until_shows(&["Fleet", "2 of 3 well", "alpha", "bravo", "NOT CONNECTED no masternode"]);
    // The worst is first; the third line is the second node that is well.
    fleet.press("jj\r");
    fleet.until_shows(&["bravo devnet", "SIGNING", "OPERATE", "Own signatures"]);
    fleet.press("0");
    fleet.until_shows(&["2 of 3 well"]);
    fleet.press("d");
    assert_eq!(fleet.exit_code(), 0);
    std::fs::write(&file, before).unwrap();
    network.goes_on(1);
}

fn suspended_and_continued(network: &Network) {
    let mut shell = CommandBuilder::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]);
    shell.env("PS1", "ready> ");
    let mut shell = Stage::open(shell);
    shell.until_shows(&["ready>"]);
    shell.press(&format!("{PROGRAM} attach --data-dir {}\r", text(&network.dir(2))));
    shell.until_shows(&["charlie devnet", "SIGNING"]);
    shell.press("\x1a");
    shell.until_taken(false);
    shell.until_shows(&["Stopped"]);
    network.goes_on(2);
    shell.press("fg\r");
    shell.until_taken(true);
    shell.until_shows(&["charlie devnet", "SIGNING", "VIEW"]);
    shell.press("3");
    shell.until_shows(&["jitter"]);
    shell.press("d");
    shell.until_taken(false);
    shell.until_shows(&["detached: charlie runs on"]);
    shell.press("exit 7\r");
    assert_eq!(shell.exit_code(), 7);
}

/// A `ssh` that notes what it was told and runs the far command here.
fn fake_ssh(folder: &Path) {
    let here = Path::new(PROGRAM).parent().unwrap();
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > {folder}/asked\nif [ -e {folder}/down ]; then echo 'no route to host' >&2; exit 255; fi\n\
         while [ \"$1\" != -- ]; do shift; done\nshift 2\nPATH={here}:$PATH exec sh -c \"$*\"\n",
        folder = folder.display(),
        here = here.display()
    );
    let file = folder.join("ssh");
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn over_ssh(folder: &Path, arguments: &[&str]) -> CommandBuilder {
    let mut command = program(&[&["attach"], arguments].concat());
    command.env("PATH", format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()));
    command
}

#[test]
fn a_console_over_ssh_operates_only_when_told_and_survives_a_broken_line() {
    let network = Network::start();
    let folder = network.folder().join("fake bin");
    std::fs::create_dir(&folder).unwrap();
    let folder = network.folder();
    fake_ssh(folder);
    let target = format!("ssh://op@north.example:2222{}", text(&network.dir(0)));

    // View only: the far side is not asked for more.
    let mut console = Stage::sized(over_ssh(folder, &[&target]), 120, 30);
    console.until_shows(&["alpha devnet", "SIGNING", "VIEW"]);
    let asked = std::fs::read_to_string(folder.join("asked")).unwrap();
    let far = format!("'masternode' attach --stdio --data-dir '{}'", text(&network.dir(0)));
    let asked: Vec<&str> = asked.lines().collect();
    assert!(asked.ends_with(&["-p", "2222", "-l", "op", "--", "north.example", &far]), "{asked:?}");

    // The line breaks: what was known stays, the reason is shown, and it comes back by itself.
    std::fs::write(folder.join("down"), "").unwrap();
    let bridges = bridges_of(&network.dir(0));
    assert_eq!(bridges.len(), 1);
    for bridge in bridges {
        assert!(Command::new("kill").args(["-KILL", &bridge]).status().unwrap().success());
    }
    console.until_shows(&["alpha devnet", "NOT CONNECTED", "no route to host"]);
    network.goes_on(0);
    std::fs::remove_file(folder.join("down")).unwrap();
    console.until_shows(&["VIEW", "SIGNING"]);
    console.press("d");
    assert_eq!(console.exit_code(), 0);

    // With --operate it may stop the node, after a second key.
    let mut console = Stage::sized(over_ssh(folder, &["--operate", &target]), 120, 30);
    console.until_shows(&["alpha devnet", "SIGNING", "OPERATE"]);
    console.press("\x03");
    console.until_shows(&["Stop the node", "NO QUORUM"]);
    console.press("s\r");
    console.until_shows(&["To stop it type its name, alpha"]);
    console.press("alpha\r");
    assert_eq!(console.exit_code(), 0);
    console.until_shows(&["node alpha is stopping in order"]);
    until("it is gone", || network.status(0).is_none().then_some(()));
    let audit = std::fs::read_to_string(network.dir(0).join("audit.log")).unwrap();
    let last: serde_json::Value = serde_json::from_str(audit.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["order"], &last["outcome"]),
        (&"stop (from an attached console)".into(), &"done".into())
    );
    assert!(network.status(1).is_some(), "the others run on");

    std::fs::write(folder.join("down"), "").unwrap();
    let mut console = Stage::open(over_ssh(folder, &[&target]));
    assert_eq!(console.exit_code(), 1);
    console.until_shows(&["ssh to op@north.example:2222 ended", "no route to host"]);
}

/// Processes that serve a console on `dir` from the far end of `ssh`.
fn bridges_of(dir: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let serves = |id: &String| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&&b"--stdio"[..]) && words.contains(&text(dir).as_bytes())
    };
    processes.map(|entry| entry.file_name().into_string().unwrap()).filter(serves).collect()
}

/// The far end of `ssh`, spoken to by the test.
struct Bridge {
    child: Child,
    mirror: Mirror,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

impl Bridge {
    fn open(command: &mut Command) -> Self {
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, mirror: Mirror::default() }
    }

    fn greet(&mut self, hello: &[u8]) -> Result<Host, MirrorError> {
        write_frame(self.child.stdin.as_mut().unwrap(), hello)?;
        greeted(&read_frame(self.child.stdout.as_mut().unwrap())?)
    }

    fn order(&mut self, request: Request) -> Answer {
        write_frame(self.child.stdin.as_mut().unwrap(), &order(1, request).unwrap()).unwrap();
        loop {
            let frame = read_frame(self.child.stdout.as_mut().unwrap()).unwrap();
            if let News::Other(Downward::Answer { answer, .. }) = self.mirror.take(&frame).unwrap() {
                return answer;
            }
        }
    }
}

#[test]
fn the_node_refuses_what_a_console_may_not() {
    let network = Network::start();
    let socket = network.dir(0).join("control.sock");
    let bridge = |more: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["attach", "--stdio", "--socket", text(&socket)]).args(more);
        command
    };
    // The far end was not told to operate: asking for it over the line changes nothing.
    let mut view = Bridge::open(&mut bridge(&[]));
    assert!(!view.greet(&hello(true, 250).unwrap()).unwrap().operate);
    let stop = || Request::Stop { reason: "a try".to_owned() };
    match view.order(stop()) {
        Answer::Refused { reason } => assert!(reason.contains("only views"), "{reason}"),
        other => panic!("not refused: {other:?}"),
    }
    network.goes_on(0);

    // Commands do not pass, nor another version.
    let ping = br#"{"version":1,"method":"ping"}"#;
    assert!(matches!(Bridge::open(&mut bridge(&[])).greet(ping), Err(MirrorError::Refused(_))));
    let newer = br#"{"version":1,"method":"attach","attach":2,"operate":false,"period_ms":250}"#;
    let refused = Bridge::open(&mut bridge(&[])).greet(newer).unwrap_err().to_string();
    assert!(refused.contains("version 2") && refused.contains("same release"), "{refused}");

    // A console that reads nothing while the node goes on.
    let mut stalled = Bridge::open(&mut bridge(&[]));
    stalled.greet(&hello(false, 250).unwrap()).unwrap();
    for _ in 0..3 {
        network.goes_on(0);
    }
    let frame = read_frame(stalled.child.stdout.as_mut().unwrap()).unwrap();
    assert!(matches!(stalled.mirror.take(&frame).unwrap(), News::Picture { .. }));

    another_user_is_refused(&network, &socket);

    let mut operator = Bridge::open(&mut bridge(&["--operate"]));
    assert!(operator.greet(&hello(true, 250).unwrap()).unwrap().operate);
    assert_eq!(operator.order(stop()), Answer::Stopping);
}

/// Only root can become somebody else.
fn another_user_is_refused(network: &Network, socket: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // However wide the doors were opened: the system says who knocks.
    let mut folder = socket.parent();
    while let Some(open) = folder.filter(|open| open.starts_with(network.folder())) {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder = open.parent();
    }
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    let copy = network.folder().join("copy");
    std::fs::copy(PROGRAM, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command.args(["attach", "--stdio", "--socket", text(socket)]).uid(65_534).gid(65_534).current_dir("/");
    let refused = Bridge::open(&mut command).greet(&hello(false, 250).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("user 65534 may not control this node"), "{refused}");
}

#[test]
fn without_a_terminal_or_a_node_attach_says_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let none = masternode(&["attach", "--socket", text(&root.path().join("control.sock"))]);
    let words = String::from_utf8(none.stderr).unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(words.contains("masternode status"), "{words}");
    let mut console = Stage::open(program(&["attach", "--socket", text(&root.path().join("control.sock"))]));
    assert_eq!(console.exit_code(), 1);
    console.until_shows(&["cannot connect to"]);
    assert_eq!(masternode(&["attach", "ssh://-oProxyCommand=x"]).status.code(), Some(2));
    // The far end tells the reason in the frames that a console reads.
    let mut child = Command::new(PROGRAM);
    child.args(["attach", "--stdio", "--socket", text(&root.path().join("control.sock"))]);
    let refused = Bridge::open(&mut child).greet(&hello(false, 250).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("cannot connect to"), "{refused}");
}
