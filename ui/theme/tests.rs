//! Shipped themes are readable, bad ones are refused by line, and the order of colour settings holds.

use super::{ColorChoice, ColorMode, Environment, Look, ThemeError, ThemeSource, Themes, nearest_indexed};
use crate::theme::roles::Role;
use ratatui::style::Color;

/// Relative luminance of WCAG 2.1.
fn luminance(color: Color) -> f64 {
    let Color::Rgb(red, green, blue) = color else { panic!("{color:?} is not a true colour") };
    let linear = |value: u8| {
        let share = f64::from(value) / 255.0;
        if share <= 0.040_45 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}

fn contrast(look: &Look, role: Role) -> f64 {
    let style = look.style(Role::Text).patch(look.style(role));
    let (fg, bg) = (luminance(style.fg.unwrap()), luminance(style.bg.unwrap()));
    (fg.max(bg) + 0.05) / (fg.min(bg) + 0.05)
}

#[test]
fn text_of_shipped_themes_has_a_contrast_of_at_least_four_and_a_half() {
    let themes = Themes::shipped().unwrap();
    // Lines and empty parts of bars are not text; everything else is read.
    let drawn = [Role::Border, Role::BarRest];
    // Those of the terminal and those without colours have none to measure.
    let of_the_terminal = ["ansi16", "mono"];
    let names = themes.names().into_iter().filter(|name| !of_the_terminal.contains(&name.as_str()));
    for name in names {
        let look = themes.look(&name, ColorMode::Truecolor, false).unwrap();
        for role in Role::ALL.iter().filter(|role| !drawn.contains(role)) {
            let ratio = contrast(&look, *role);
            assert!(ratio >= 4.5, "{name}: {} has {ratio:.2}", role.name());
        }
        // State words also stand on the header.
        let header = look.style(Role::Header).bg.unwrap();
        for role in [Role::Good, Role::Warn, Role::Bad, Role::Info] {
            let (fg, bg) = (luminance(look.style(role).fg.unwrap()), luminance(header));
            let ratio = (fg.max(bg) + 0.05) / (fg.min(bg) + 0.05);
            assert!(ratio >= 4.5, "{name}: {} on the header has {ratio:.2}", role.name());
        }
    }
}

#[test]
fn every_theme_resolves_for_every_kind_of_terminal() {
    let themes = Themes::shipped().unwrap();
    for name in themes.names() {
        for mode in [ColorMode::Truecolor, ColorMode::Ansi256, ColorMode::Ansi16, ColorMode::Never] {
            let look = themes.look(&name, mode, true).unwrap();
            assert_eq!(look.name, name);
            let colored =
                Role::ALL.iter().any(|role| !matches!(look.style(*role).fg, None | Some(Color::Reset)));
            assert_eq!(colored, mode != ColorMode::Never && name != "mono", "{name} {mode:?}");
        }
    }
}

#[test]
fn a_bad_theme_is_refused_with_file_line_and_reason() {
    for (text, line, reason) in [
        ("name = \"x\"\n[roles]\n\"text\" = 3\n", 3, "invalid type"),
        ("name = \"x\"\n[roles]\n\"texd\" = \"red\"\n", 3, "not a role"),
        ("name = \"x\"\n[glyphs]\nsigned = \"ab\"\n", 3, "one cell"),
        ("name = \"x\"\ncolour = 1\n", 2, "unknown field"),
        ("name = \"x\"\n[roles\n", 2, ""),
    ] {
        let error = ThemeSource::parse("my.toml", text).unwrap_err();
        let ThemeError::Invalid { file, line: at, reason: why } = &error else { panic!("{error}") };
        assert_eq!((file.as_str(), *at), ("my.toml", line), "{error}");
        assert!(why.contains(reason), "{error}");
    }
}

#[test]
fn a_theme_of_the_operator_is_added_and_a_bad_one_left_out_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("a.toml"),
        "name = \"mine\"\nextends = \"dark\"\n[palette]\nred = \"#ff0000\"\n",
    )
    .unwrap();
    std::fs::write(
        directory.path().join("b.toml"),
        "name = \"bad\"\nextends = \"dark\"\n[roles]\n\"text\" = \"redd\"\n",
    )
    .unwrap();
    std::fs::write(directory.path().join("c.toml"), "name = \"loop\"\nextends = \"loop\"\n").unwrap();
    let mut themes = Themes::shipped().unwrap();
    let errors = themes.add_directory(directory.path());
    assert_eq!(themes.names().len(), Themes::shipped().unwrap().names().len() + 1);
    let look = themes.look("mine", ColorMode::Truecolor, false).unwrap();
    assert_eq!(look.style(Role::Bad).fg, Some(Color::Rgb(255, 0, 0)));
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("b.toml:4: role `text`: `redd`"), "{texts:?}");
    assert!(texts[1].contains("c.toml:2: `extends` forms a loop"), "{texts:?}");
}

#[test]
fn the_command_line_beats_no_color_beats_the_configuration_beats_the_terminal() {
    let mut environment = Environment { term: Some("xterm-256color".to_owned()), ..Environment::default() };
    let auto = ColorChoice::Auto;
    assert_eq!(environment.color_mode(auto, auto), ColorMode::Ansi256);
    environment.colorterm = Some("truecolor".to_owned());
    assert_eq!(environment.color_mode(auto, auto), ColorMode::Truecolor);
    assert_eq!(environment.color_mode(auto, ColorChoice::Ansi16), ColorMode::Ansi16);
    environment.no_color = Some("1".to_owned());
    assert_eq!(environment.color_mode(auto, ColorChoice::Ansi16), ColorMode::Never);
    assert_eq!(environment.color_mode(ColorChoice::Ansi256, ColorChoice::Ansi16), ColorMode::Ansi256);
    let dumb = Environment { term: Some("dumb".to_owned()), ..Environment::default() };
    assert_eq!(dumb.color_mode(auto, auto), ColorMode::Never);
    let linux = Environment { term: Some("linux".to_owned()), ..Environment::default() };
    assert_eq!(linux.color_mode(auto, auto), ColorMode::Ansi16);
}

#[test]
fn only_a_utf8_locale_gets_symbols() {
    let of = |locale: Option<&str>| {
        Environment { locale: locale.map(str::to_owned), ..Environment::default() }.is_utf8()
    };
    assert!(of(Some("en_US.UTF-8")) && of(Some("C.utf8")));
    assert!(!of(None) && !of(Some("C")) && !of(Some("de_DE.ISO-8859-1")));
}

#[test]
fn colours_of_the_256_are_the_nearest() {
    assert_eq!(nearest_indexed(255, 255, 255), 231);
    assert_eq!(nearest_indexed(0, 0, 0), 16);
    assert_eq!(nearest_indexed(95, 135, 175), 67);
    assert_eq!(nearest_indexed(128, 128, 128), 244);
}
