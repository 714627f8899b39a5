//! Pictures of every screen, keys that matter, and that nothing ever panics.

use crate::console::fixture::{NOW_MS, fresh, logs, phases, running, snapshot};
use crate::console::message::{Command, Leaving, Message};
use crate::console::source::{Events, LinkState};
use crate::console::state::{Hosting, QuitChoice, RowKey, State};
use crate::console::update::update;
use crate::console::view::view;
use crate::keymap::Screen;
use crate::theme::ColorMode;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use masternode::telemetry::clock::ClockFault;
use masternode::telemetry::snapshot::{NodeState, SyncInfo};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::sync::Arc;

pub fn press(state: &mut State, code: KeyCode) -> Vec<Command> {
    update(state, Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn type_text(state: &mut State, text: &str) {
    for character in text.chars() {
        press(state, KeyCode::Char(character));
    }
}

pub fn draw(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view(state, frame.area(), frame.buffer_mut())).unwrap();
    let lines = terminal.backend().to_string();
    // The backend quotes every line; trailing blanks only blur differences.
    lines.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
}

pub const SIZES: [(u16, u16); 3] = [(40, 10), (80, 24), (160, 48)];

pub const SCREENS: [(char, &str); 9] = [
    ('0', "fleet"),
    ('1', "overview"),
    ('2', "votes"),
    ('3', "peers"),
    ('4', "pool"),
    ('5', "chain"),
    ('8', "logs"),
    ('9', "host"),
    ('?', "help"),
];

#[test]
fn every_screen_looks_as_approved() {
    for (key, name) in SCREENS {
        for (width, height) in SIZES {
            let mut state = running(ColorMode::Truecolor, false);
            press(&mut state, KeyCode::Char(key));
            insta::assert_snapshot!(format!("{name}_{width}x{height}"), draw(&state, width, height));
        }
    }
}

#[test]
fn every_detail_looks_as_approved() {
    for (key, name) in SCREENS.into_iter().filter(|(key, _)| !matches!(key, '1' | '?')) {
        let mut state = running(ColorMode::Truecolor, false);
        press(&mut state, KeyCode::Char(key));
        press(&mut state, KeyCode::Char('j'));
        press(&mut state, KeyCode::Enter);
        insta::assert_snapshot!(format!("{name}_detail"), draw(&state, 80, 24));
    }
}

#[test]
fn special_moments_look_as_approved() {
    let mut state = fresh(1, ColorMode::Truecolor, false);
    insta::assert_snapshot!("starting_before_anything", draw(&state, 80, 24));
    update(&mut state, Message::Phases(phases()));
    insta::assert_snapshot!("starting_with_phases", draw(&state, 80, 24));

    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char('q'));
    insta::assert_snapshot!("quit_devnet", draw(&state, 80, 24));
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char(']'));
    insta::assert_snapshot!("second_node", draw(&state, 80, 24));

    let mut state = running(ColorMode::Truecolor, false);
    state.live.nodes.truncate(1);
    state.can_detach = true;
    let mut waiting = snapshot(0);
    waiting.consensus.connected_weight = 2;
    waiting.state = NodeState::WaitingForQuorum {
        connected_weight: 2,
        quorum_weight: 3,
        total_weight: 4,
        missing: vec!["node-3".into(), "node-4".into()],
    };
    update(&mut state, Message::Snapshot { node: 0, snapshot: Arc::new(waiting) });
    insta::assert_snapshot!("waiting_for_quorum", draw(&state, 80, 24));
    press(&mut state, KeyCode::Char('q'));
    insta::assert_snapshot!("quit_one_node", draw(&state, 80, 24));
    press(&mut state, KeyCode::Esc);
    let mut behind = snapshot(0);
    behind.state = NodeState::Syncing { height: 1_204, target: 9_000 };
    behind.sync = Some(SyncInfo {
        height: 1_204,
        target: 9_000,
        blocks_per_second: 35.2,
        transactions_per_second: 20_114.4,
        eta_s: Some(221),
        still_s: 0,
        peers: Vec::new(),
    });
    update(&mut state, Message::Snapshot { node: 0, snapshot: Arc::new(behind) });
    insta::assert_snapshot!("catching_up", draw(&state, 80, 24));

    let state = running(ColorMode::Never, true);
    insta::assert_snapshot!("overview_ascii", draw(&state, 80, 24));
    insta::assert_snapshot!("too_small", draw(&state, 38, 5));
}

#[test]
fn ascii_means_ascii_even_for_names_and_logs_of_others() {
    let mut state = running(ColorMode::Never, true);
    let mut foreign = snapshot(0);
    foreign.members[1].name = "名前é".into();
    update(&mut state, Message::Snapshot { node: 0, snapshot: Arc::new(foreign) });
    for (key, name) in SCREENS {
        press(&mut state, KeyCode::Char(key));
        let picture = draw(&state, 160, 48);
        assert!(picture.is_ascii(), "{name}:\n{picture}");
    }
}

#[test]
fn styles_differ_where_the_state_differs() {
    let cell = |mode, node_state| {
        let mut state = running(mode, false);
        let mut picture = snapshot(0);
        picture.state = node_state;
        update(&mut state, Message::Snapshot { node: 0, snapshot: Arc::new(picture) });
        let area = Rect::new(0, 0, 80, 24);
        let mut buffer = Buffer::empty(area);
        view(&state, area, &mut buffer);
        // The glyph of the state stands after ` node-1 devnet  `.
        buffer.cell((16, 0)).map(|cell| (cell.symbol().to_owned(), cell.style())).unwrap()
    };
    for mode in [ColorMode::Truecolor, ColorMode::Ansi256, ColorMode::Ansi16, ColorMode::Never] {
        let good = cell(mode, NodeState::Signing);
        let bad = cell(mode, NodeState::Halted { reason: "disk full".into() });
        assert_eq!((good.0.as_str(), bad.0.as_str()), ("●", "■"), "{mode:?}");
        assert_ne!(good.1, bad.1, "{mode:?}");
    }
}

#[test]
fn a_wrong_clock_of_this_machine_stands_above_everything_else() {
    let mut state = running(ColorMode::Truecolor, false);
    let mut wrong = snapshot(0);
    wrong.host.clock.fault = Some(ClockFault::Own { offset_ms: 1_240, against: 5, of: 6 });
    update(&mut state, Message::Snapshot { node: 0, snapshot: Arc::new(wrong) });
    let drawn = draw(&state, 80, 24);
    assert!(drawn.contains("own clock 1.2 s behind 5 of 6 peers"), "{drawn}");
    press(&mut state, KeyCode::Char('3'));
    let drawn = draw(&state, 160, 48);
    for word in ["rtt", "jitter", "offset", "+1240 ms", "members 2 in 2 out, observers 1 in of 64 1 out"] {
        assert!(drawn.contains(word), "{word}: {drawn}");
    }
}

#[test]
fn leaving_takes_a_deliberate_choice() {
    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char('q'));
    assert_eq!(state.dialog, Some(QuitChoice::Cancel));
    assert!(press(&mut state, KeyCode::Enter).is_empty());
    assert_eq!(state.dialog, None);

    update(&mut state, Message::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    assert!(press(&mut state, KeyCode::Char('s')).is_empty());
    assert_eq!(press(&mut state, KeyCode::Enter), [Command::Leave(Leaving::Stop(0))]);

    // Detaching is offered only where the caller can run on.
    press(&mut state, KeyCode::Char('q'));
    press(&mut state, KeyCode::Char('d'));
    assert_eq!(state.dialog, Some(QuitChoice::Cancel));
    press(&mut state, KeyCode::Esc);
    assert!(press(&mut state, KeyCode::Char('d')).is_empty());
    state.can_detach = true;
    assert_eq!(press(&mut state, KeyCode::Char('d')), [Command::Leave(Leaving::Detach)]);
}

#[test]
fn an_attached_console_offers_what_it_may_and_shows_how_it_stands() {
    let mut state = running(ColorMode::Truecolor, false);
    (state.can_detach, state.hosting) = (true, Hosting::View);
    assert!(draw(&state, 80, 24).lines().next().unwrap().contains("VIEW"));
    press(&mut state, KeyCode::Char('q'));
    press(&mut state, KeyCode::Char('s'));
    assert_eq!(state.dialog, Some(QuitChoice::Cancel), "no stop to choose");
    insta::assert_snapshot!("quit_view_only", draw(&state, 80, 24));
    press(&mut state, KeyCode::Esc);
    let control_z = KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL);
    assert_eq!(update(&mut state, Message::Key(control_z)), [Command::Suspend]);
    state.hosting = Hosting::Operate;
    press(&mut state, KeyCode::Char('q'));
    press(&mut state, KeyCode::Char('s'));
    assert!(press(&mut state, KeyCode::Enter).is_empty());
    insta::assert_snapshot!("stop_by_name", draw(&state, 80, 24));
    // What is meant is what was on screen when it was asked for.
    state.node = 1;
    assert!(update(&mut state, Message::Pasted).is_empty());
    type_text(&mut state, "node-1");
    assert_eq!(press(&mut state, KeyCode::Enter), [Command::Leave(Leaving::Stop(0))]);
    state.node = 0;
    for wrong in ["", "node-2"] {
        press(&mut state, KeyCode::Char('q'));
        press(&mut state, KeyCode::Char('s'));
        press(&mut state, KeyCode::Enter);
        type_text(&mut state, wrong);
        assert!(press(&mut state, KeyCode::Enter).is_empty());
        assert_eq!((state.stopping.take(), state.dialog), (None, None));
        assert!(state.notice.is_some());
        press(&mut state, KeyCode::Esc);
    }
    let lost = LinkState::Lost("the connection was closed; trying again".into());
    update(&mut state, Message::Link { node: 0, state: lost });
    update(&mut state, Message::Now(NOW_MS + 60_000));
    let drawn = draw(&state, 80, 24);
    assert!(
        drawn.contains("NOT CONNECTED") && drawn.contains("the connection was closed; trying"),
        "{drawn}"
    );
    assert!(drawn.contains("1,204,128"), "what was known stays: {drawn}");
}

#[test]
fn escape_goes_back_one_level_and_never_leaves() {
    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char('3'));
    press(&mut state, KeyCode::Char('/'));
    type_text(&mut state, "node-2");
    press(&mut state, KeyCode::Enter);
    press(&mut state, KeyCode::Enter);
    assert!(state.detail.is_some());
    press(&mut state, KeyCode::Char('?'));
    assert_eq!(state.screen, Screen::Help);
    for _ in 0..5 {
        assert!(press(&mut state, KeyCode::Esc).is_empty());
    }
    assert_eq!(state.screen, Screen::Peers);
    assert!(state.detail.is_none());
    assert!(!draw(&state, 80, 24).contains("/node-2"));
}

#[test]
fn a_filter_hides_rows_and_an_inverted_one_the_others() {
    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char('3'));
    press(&mut state, KeyCode::Char('/'));
    type_text(&mut state, "NODE-2");
    press(&mut state, KeyCode::Enter);
    let picture = draw(&state, 80, 24);
    assert!(picture.contains("127.0.0.1:24210") && !picture.contains("127.0.0.1:24220"), "{picture}");
    press(&mut state, KeyCode::Char('/'));
    for _ in 0..6 {
        press(&mut state, KeyCode::Backspace);
    }
    type_text(&mut state, "!node-2");
    press(&mut state, KeyCode::Enter);
    let picture = draw(&state, 80, 24);
    assert!(!picture.contains("127.0.0.1:24210") && picture.contains("127.0.0.1:24220"), "{picture}");
}

#[test]
fn the_selection_follows_its_peer_when_the_order_changes() {
    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char('3'));
    press(&mut state, KeyCode::Char('j'));
    let chosen = state.list(crate::console::state::ListId::Peers).selected.clone();
    press(&mut state, KeyCode::Char('s'));
    press(&mut state, KeyCode::Char('S'));
    press(&mut state, KeyCode::Enter);
    assert_eq!(state.detail, chosen);
    let mut emptied = snapshot(0);
    emptied.peers.list.clear();
    update(&mut state, Message::Snapshot { node: 0, snapshot: Arc::new(emptied) });
    assert!(draw(&state, 80, 24).contains("no longer connected"));
}

#[test]
fn sorting_by_round_trip_puts_the_slowest_first_when_reversed() {
    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char('3'));
    for _ in 0..5 {
        press(&mut state, KeyCode::Char('s'));
    }
    press(&mut state, KeyCode::Char('S'));
    let first = crate::screens::peers::rows(&state).first().and_then(|peer| peer.rtt_us);
    assert_eq!(first, snapshot(0).peers.list.iter().filter_map(|peer| peer.rtt_us).max());
}

#[test]
fn a_frozen_screen_stands_still_and_counts_what_it_holds_back() {
    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char(' '));
    let mut newer = snapshot(0);
    newer.chain.height += 1;
    newer.finality.total += 9;
    let before = draw(&state, 80, 24);
    update(&mut state, Message::Snapshot { node: 0, snapshot: Arc::new(newer) });
    assert_eq!(draw(&state, 80, 24), before);
    let mut page = logs();
    page.records.truncate(7);
    update(&mut state, Message::Logs(page));
    assert!(draw(&state, 80, 24).contains("FROZEN +7 new"));
    press(&mut state, KeyCode::Char(' '));
    assert!(draw(&state, 80, 24).contains("1,204,129"));
}

#[test]
fn the_log_stands_when_scrolled_up_and_follows_again_at_its_end() {
    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char('8'));
    assert!(draw(&state, 80, 24).contains("following"));
    for _ in 0..3 {
        press(&mut state, KeyCode::Char('k'));
    }
    assert!(draw(&state, 80, 24).contains("+3 new below"));
    let mut page = logs();
    for (index, (number, _)) in page.records.iter_mut().enumerate() {
        *number = 100 + index as u64;
    }
    page.records.truncate(4);
    page.next = 104;
    update(&mut state, Message::Logs(page));
    // One of the four is below the least level.
    assert!(draw(&state, 80, 24).contains("+6 new below"));
    press(&mut state, KeyCode::Char('G'));
    assert!(draw(&state, 80, 24).contains("following"));
}

#[test]
fn chatter_cannot_push_an_error_out_of_the_log() {
    let mut state = running(ColorMode::Truecolor, false);
    for round in 0..200u64 {
        let mut page = logs();
        page.records.retain(|(_, record)| record.level < masternode::telemetry::log::LogLevel::Warn);
        for (number, _) in &mut page.records {
            *number += 100 + 64 * round;
        }
        update(&mut state, Message::Logs(page));
    }
    assert!(state.live.logs.lines.len() <= crate::console::state::LOGS_MAX);
    press(&mut state, KeyCode::Char('8'));
    press(&mut state, KeyCode::Char('g'));
    assert!(draw(&state, 160, 48).contains("transaction refused \\u{1b}[31mred"));
}

#[test]
fn missed_events_are_counted_on_screen() {
    let mut state = running(ColorMode::Truecolor, false);
    update(&mut state, Message::Events { node: 0, events: Events { list: Vec::new(), missed: 1_234 } });
    press(&mut state, KeyCode::Char('2'));
    assert!(draw(&state, 160, 48).contains("1,234 missed"));
}

#[test]
fn old_data_is_called_old() {
    let mut state = running(ColorMode::Truecolor, false);
    update(&mut state, Message::Now(NOW_MS + 130_000));
    assert!(draw(&state, 80, 24).contains("NO DATA FOR 2 m 10 s"));
}

#[test]
fn suspending_is_refused_and_pasting_does_nothing() {
    let mut state = running(ColorMode::Truecolor, false);
    let control_z = KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL);
    assert!(update(&mut state, Message::Key(control_z)).is_empty());
    assert!(draw(&state, 80, 24).contains("not suspended"));
    assert!(update(&mut state, Message::Pasted).is_empty());
    assert_eq!(state.dialog, None);
}

#[test]
fn node_keys_switch_the_node_and_drop_its_detail() {
    let mut state = running(ColorMode::Truecolor, false);
    press(&mut state, KeyCode::Char('3'));
    press(&mut state, KeyCode::Enter);
    assert!(matches!(state.detail, Some(RowKey::Peer(_))));
    press(&mut state, KeyCode::F(3));
    assert_eq!((state.node, state.detail.is_none()), (2, true));
    press(&mut state, KeyCode::F(8));
    assert_eq!(state.node, 2);
    update(&mut state, Message::Key(KeyEvent::new(KeyCode::Char('4'), KeyModifiers::ALT)));
    assert_eq!((state.node, state.screen), (3, Screen::Peers));
    assert!(draw(&state, 80, 24).starts_with(" node-4 devnet"));
}

fn keys() -> impl Strategy<Value = KeyEvent> {
    let code = prop_oneof![
        8 => any::<char>().prop_map(KeyCode::Char),
        20 => prop_oneof![Just('1'), Just('2'), Just('3'), Just('4'), Just('5'), Just('8'), Just('9'), Just('0'), Just('z'), Just(':'), Just('y'), Just('a'), Just('A'), Just('?'), Just('q'),
            Just('/'), Just('j'), Just('k'), Just('G'), Just('g'), Just('s'), Just('S'), Just('t'), Just(' '),
            Just('['), Just(']'), Just('+'), Just('-'), Just('h'), Just('l')]
            .prop_map(KeyCode::Char),
        8 => prop_oneof![Just(KeyCode::Enter), Just(KeyCode::Esc), Just(KeyCode::Tab), Just(KeyCode::BackTab),
            Just(KeyCode::Up), Just(KeyCode::Down), Just(KeyCode::PageDown), Just(KeyCode::Backspace), Just(KeyCode::F(2))],
    ];
    let modifiers = prop_oneof![
        6 => Just(KeyModifiers::NONE),
        1 => Just(KeyModifiers::CONTROL),
        1 => Just(KeyModifiers::ALT),
        1 => Just(KeyModifiers::SHIFT),
    ];
    (code, modifiers).prop_map(|(code, modifiers)| KeyEvent::new(code, modifiers))
}

fn messages() -> impl Strategy<Value = Message> {
    prop_oneof![
        20 => keys().prop_map(Message::Key),
        1 => any::<u64>().prop_map(Message::Now),
        1 => Just(Message::Pasted),
        1 => Just(Message::Phases(phases())),
        1 => Just(Message::Logs(logs())),
        1 => (0usize..6, 0u16..4, any::<u64>(), any::<u64>()).prop_map(|(node, own, one, two)| {
            let mut wild = snapshot(own);
            wild.time_ms = one;
            wild.consensus.era_age_ms = two;
            wild.consensus.era_ms = one % 3;
            wild.consensus.total_weight = two % 2;
            wild.consensus.connected_weight = one;
            wild.finality.history = vec![one, two, 0, u64::MAX];
            wild.pool.bytes_max = 0;
            wild.members.truncate((one % 5) as usize);
            wild.peers.list.truncate((two % 7) as usize);
            wild.checkpoints.truncate((one % 97) as usize);
            Message::Snapshot { node, snapshot: Arc::new(wild) }
        }),
    ]
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(96))]

    #[test]
    fn no_size_and_no_messages_make_it_panic(
        start_empty in any::<bool>(),
        ascii in any::<bool>(),
        steps in proptest::collection::vec((messages(), 0u16..200, 0u16..200), 1..24),
    ) {
        let mut state = if start_empty { fresh(4, ColorMode::Truecolor, ascii) } else { running(ColorMode::Ansi256, ascii) };
        for (message, width, height) in steps {
            update(&mut state, message);
            let area = Rect { x: width % 3, y: height % 5, width, height };
            let mut buffer = Buffer::empty(area);
            view(&state, area, &mut buffer);
            // A rectangle larger than the buffer is clamped to it.
            view(&state, Rect::new(0, 0, 300, 300), &mut buffer);
        }
    }
}

#[test]
fn the_log_is_of_the_node_on_screen_until_all_nodes_are_asked_for() {
    let mut state = running(ColorMode::Never, false);
    for (screen, width) in [('8', 120), ('1', 80)] {
        press(&mut state, KeyCode::Char(screen));
        press(&mut state, KeyCode::F(1));
        let text = draw(&state, width, 40);
        assert!(text.contains("Log of node-1"), "{text}");
        let (own, other) = (owned(&state, "node-1"), owned(&state, "node-2"));
        assert!(own > 0 && other == 0, "{own} of node-1, {other} of node-2");
        press(&mut state, KeyCode::Char(']'));
        assert_eq!(owned(&state, "node-1"), 0);
        assert!(state.records().count() > 0, "records of the process stay");
        press(&mut state, KeyCode::Char('A'));
        assert_eq!(
            (owned(&state, "node-1"), state.records().count()),
            (own, state.shown().logs.all().count())
        );
        press(&mut state, KeyCode::Char('A'));
    }
    press(&mut state, KeyCode::Char('8'));
    press(&mut state, KeyCode::Char('A'));
    press(&mut state, KeyCode::Char('g'));
    let text = draw(&state, 120, 30);
    assert!(text.contains("Log of all nodes") && text.contains("node=node-1"), "{text}");
    press(&mut state, KeyCode::Char('?'));
    assert!(draw(&state, 160, 60).contains("log of all nodes, or of the one on screen"));
}

/// Records in the log shown that a node owns.
fn owned(state: &State, node: &str) -> usize {
    state.records().filter(|logged| logged.record.node() == Some(node)).count()
}
