//! What operators do: look at several nodes, acknowledge, copy, zoom.

use crate::console::fixture::{running, snapshot};
use crate::console::message::{Command, Leaving, Message};
use crate::console::source::LinkState;
use crate::console::state::{Hosting, ListId, QuitChoice, State};
use crate::console::tests::{draw, press};
use crate::console::update::update;
use crate::keymap::Screen;
use crate::screens::fleet;
use crate::theme::ColorMode;
use crossterm::event::KeyCode;
use masternode::telemetry::event::AlertLevel;
use masternode::telemetry::log::{LogLevel, LogPage, LogRecord};
use masternode::telemetry::snapshot::{AlertInfo, NodeState, Snapshot};
use std::sync::Arc;

fn show(state: &mut State, node: usize, snapshot: Snapshot) {
    update(state, Message::Snapshot { node, snapshot: Arc::new(snapshot) });
}

#[test]
fn the_worst_node_is_first_and_enter_opens_it() {
    let mut state = running(ColorMode::Truecolor, false);
    state.hosting = Hosting::Operate;
    state.can_detach = true;
    let mut halted = snapshot(2);
    halted.state = NodeState::Halted { reason: "disk".into() };
    show(&mut state, 2, halted);
    update(&mut state, Message::Link { node: 3, state: LinkState::Lost("no route to host".into()) });
    press(&mut state, KeyCode::Char('0'));
    assert_eq!(fleet::rows(&state).get(..2), Some(&[3, 2][..]));
    let drawn = draw(&state, 120, 20);
    assert!(drawn.contains("NOT CONNECTED no route to host") && drawn.contains("HALTED"), "{drawn}");
    assert!(drawn.contains("2 of 4 well"), "{drawn}");
    // No node is meant here, so none can be stopped.
    press(&mut state, KeyCode::Char('q'));
    press(&mut state, KeyCode::Char('s'));
    assert_eq!(state.dialog, Some(QuitChoice::Cancel));
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char('j'));
    press(&mut state, KeyCode::Enter);
    assert_eq!((state.screen, state.node), (Screen::Overview, 2));
    press(&mut state, KeyCode::Char('q'));
    press(&mut state, KeyCode::Char('s'));
    press(&mut state, KeyCode::Enter);
    "node-3".chars().for_each(|letter| drop(press(&mut state, KeyCode::Char(letter))));
    assert_eq!(press(&mut state, KeyCode::Enter), [Command::Leave(Leaving::Stop(2))]);
}

fn alert(level: AlertLevel, text: &str) -> AlertInfo {
    AlertInfo { time_ms: snapshot(0).time_ms - 60_000, level, text: text.into() }
}

#[test]
fn an_acknowledged_alert_stays_faint_and_counts_no_more_until_it_is_another() {
    let mut state = running(ColorMode::Never, false);
    let mut worried = snapshot(0);
    worried.alerts = vec![alert(AlertLevel::Critical, "disk full"), alert(AlertLevel::Warning, "clock off")];
    show(&mut state, 0, worried.clone());
    let header = |state: &State| draw(state, 80, 24).lines().next().unwrap_or_default().to_owned();
    assert!(header(&state).contains("2 alerts"), "{}", header(&state));
    press(&mut state, KeyCode::Char('9'));
    press(&mut state, KeyCode::Char('a'));
    assert!(header(&state).contains("1 alert "), "{}", header(&state));
    let drawn = draw(&state, 80, 24);
    assert!(drawn.contains("seen") && drawn.contains("clock off") && drawn.contains("disk full"), "{drawn}");
    press(&mut state, KeyCode::Char('a'));
    assert!(!header(&state).contains("alert"));
    // It came back: that is another.
    worried.alerts.iter_mut().for_each(|alert| alert.time_ms += 1);
    show(&mut state, 0, worried);
    assert!(header(&state).contains("2 alerts"));
    // Of another node nothing was acknowledged.
    press(&mut state, KeyCode::Enter);
    assert!(draw(&state, 80, 24).contains("no; a acknowledges it"));
}

#[test]
fn orders_of_operators_are_listed_from_the_log() {
    let mut state = running(ColorMode::Never, false);
    let fields =
        [("event", "audit"), ("by", "user 0, console"), ("order", "ban 198.51.100.7"), ("outcome", "done")];
    let record = LogRecord {
        time_ms: snapshot(0).time_ms,
        level: LogLevel::Info,
        target: "masternode::node::audit".into(),
        message: "order".into(),
        fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    update(&mut state, Message::Logs(LogPage { records: vec![(500, record)], next: 501, skipped: 0 }));
    press(&mut state, KeyCode::Char('9'));
    let drawn = draw(&state, 80, 24);
    assert!(drawn.contains("user 0, cons") && drawn.contains("ban 198.51.100.7"), "{drawn}");
    press(&mut state, KeyCode::Tab);
    press(&mut state, KeyCode::Enter);
    assert!(draw(&state, 80, 24).contains("outcome = done"));
}

#[test]
fn copying_takes_the_whole_name_of_the_row() {
    let mut state = running(ColorMode::Never, false);
    press(&mut state, KeyCode::Char('3'));
    let id = snapshot(0).peers.list.first().map(|peer| peer.id.clone()).unwrap();
    assert_eq!(press(&mut state, KeyCode::Char('y')), [Command::Copy(id)]);
    press(&mut state, KeyCode::Char('5'));
    assert_eq!(press(&mut state, KeyCode::Char('y')), [Command::Copy("1204128".to_owned())]);
    for key in ['1', '2', '4', '8', '9', '0', '?'] {
        press(&mut state, KeyCode::Char(key));
        press(&mut state, KeyCode::Char('y'));
    }
}

#[test]
fn a_zoomed_pane_has_the_screen_and_escape_gives_it_back() {
    let mut state = running(ColorMode::Never, false);
    press(&mut state, KeyCode::Char('2'));
    assert_eq!(state.focused_list(), Some(ListId::Stream));
    press(&mut state, KeyCode::Char('z'));
    let drawn = draw(&state, 160, 48);
    assert!(drawn.contains("Vote stream") && !drawn.contains("Members"), "{drawn}");
    press(&mut state, KeyCode::Tab);
    assert!(!draw(&state, 160, 48).contains("Vote stream"));
    press(&mut state, KeyCode::Esc);
    let drawn = draw(&state, 160, 48);
    assert!(drawn.contains("Vote stream") && drawn.contains("Members"), "{drawn}");
}

fn palette(state: &mut State, text: &str) -> Vec<Command> {
    press(state, KeyCode::Char(':'));
    text.chars().for_each(|character| drop(press(state, KeyCode::Char(character))));
    press(state, KeyCode::Enter)
}

#[test]
fn the_palette_does_what_keys_do_and_what_needs_a_word() {
    let mut state = running(ColorMode::Truecolor, false);
    state.can_detach = true;
    assert!(palette(&mut state, "peers node-2").is_empty());
    assert_eq!((state.screen, state.list(ListId::Peers).filter.as_str()), (Screen::Peers, "node-2"));
    palette(&mut state, "h 1,204,120");
    assert!(draw(&state, 80, 24).contains("1,204,120") && state.screen == Screen::Chain);
    palette(&mut state, "theme okabe");
    assert_eq!(state.current_look().map(|look| look.name.as_str()), Some("okabe"));
    palette(&mut state, "node node-3");
    assert_eq!(state.node, 2);
    palette(&mut state, "level warn");
    assert_eq!(state.level, LogLevel::Warn);
    assert_eq!(palette(&mut state, "detach"), [Command::Leave(Leaving::Detach)]);
    // What asks, asks.
    assert!(palette(&mut state, "quit").is_empty());
    assert_eq!(state.dialog, Some(QuitChoice::Cancel));
    press(&mut state, KeyCode::Esc);
    for nonsense in ["theme none", "node 99", "h many", "dance", "level loud"] {
        assert!(palette(&mut state, nonsense).is_empty());
        assert!(state.notice.as_deref().is_some_and(|notice| notice.contains("no command")), "{nonsense}");
    }
}

#[test]
fn the_palette_completes_and_offers_only_what_applies() {
    let mut state = running(ColorMode::Never, false);
    press(&mut state, KeyCode::Char(':'));
    for key in ['t', 'h', 'e', 'm', 'e', ' ', 'o'] {
        press(&mut state, KeyCode::Char(key));
    }
    insta::assert_snapshot!("palette", draw(&state, 80, 24));
    press(&mut state, KeyCode::Tab);
    assert_eq!(state.palette.as_ref().map(|palette| palette.text.as_str()), Some("theme okabe"));
    press(&mut state, KeyCode::Enter);
    assert!(state.palette.is_none());
    // The chosen one of several is run.
    press(&mut state, KeyCode::Char(':'));
    press(&mut state, KeyCode::Char('p'));
    let offered = crate::console::palette::proposals(&state, "p");
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Enter);
    assert_eq!(offered.get(1).map(|each| each.text.as_str()), Some("pool"), "{offered:?}");
    assert_eq!(state.screen, Screen::Pool);
    assert!(!crate::console::palette::proposals(&state, "detach").iter().any(|each| each.text == "detach"));
    press(&mut state, KeyCode::Char(':'));
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.screen, Screen::Pool);
}
